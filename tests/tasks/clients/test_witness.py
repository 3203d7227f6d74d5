"""The witness through whole releases on a small cluster: what clients meet there is what the receipt says."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tasks._clients.receipt import Receipt
from tasks._clients.requests import Lines, Request, read_journal
from tasks._clients.witness import Witness
from tasks._release.journal import evidence_key
from tasks._release.ray import RayTarget
from tasks._stores.store import Store, open_store
from tasks.errors import Unreachable
from tasks.records import CheckResult, Progress, Release, ServiceRecord, Step, StepName, StepState, Verdict
from tasks.settings import StoreSettings
from tests.fakes import asgi
from tests.fakes.engine import Engine, Fault
from tests.fakes.ray_serve import RayServe, serving

pytestmark = pytest.mark.slow

DEADLINE_S = 15.0
SPEC: dict[str, Any] = {
    "service": "chat",
    "model": "org/model",
    "deadlines": {"request": 5},
    "probe": {"rate": 20, "streams": 4, "stream_tokens": 20},
}
OLD, NEW = "chat-r1", "chat-r2"


def release(number: int, spec: dict[str, Any] | None = None) -> Release:
    """Return a release of the service."""
    commit = str(number) * 40
    return Release(
        service="chat", number=number, model="org/model", commit=commit, hub="http://hub", spec=spec or SPEC
    )


def begun(number: int = 2, spec: dict[str, Any] | None = None) -> Progress:
    """Return a release that begins now."""
    return Progress(release=release(number, spec), run="run", opened_at=datetime.now(UTC))


@contextmanager
def stepping(progress: Progress, name: StepName) -> Iterator[list[Progress]]:
    """Give, in a list, the release with the step begun and, after the block, with the step ended."""
    begin = datetime.now(UTC)
    step = Step(name=name, state=StepState.STARTED, started_at=begin)
    given = [progress.model_copy(update={"steps": (*progress.steps, step)})]
    yield given
    done = step.model_copy(update={"state": StepState.DONE, "ended_at": datetime.now(UTC)})
    given.append(progress.model_copy(update={"steps": (*progress.steps, done)}))


@dataclass
class Stage:
    """A cluster with one release live, and where a witness keeps its things."""

    cluster: RayServe
    target: RayTarget
    store: Store
    folder: Path
    witnesses: list[Witness] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Return the live address."""
        return self.target.address("chat")

    def witness(self) -> Witness:
        """Return the witness of a new run."""
        self.witnesses.append(Witness(self.store, self.folder))
        return self.witnesses[-1]

    def lines(self) -> Lines:
        """Return what the only journal holds so far."""
        return next((read_journal(path) for path in self.folder.glob("*.jsonl")), Lines())

    def until(self, what: Callable[[Request], object], count: int = 8) -> None:
        """Wait until so many requests of a kind have ended after now."""
        moment = time.monotonic()
        wait(lambda: sum(bool(what(r)) for r in self.lines().requests if r.started > moment) >= count)

    def move(self, progress: Progress, name: StepName, to: str, away: str) -> Progress:
        """Move traffic as a step of the release, and wait until clients have met where it leads."""
        with stepping(progress, name) as moved:
            self.target.shift("chat", to)
            self.until(lambda request: request.release == to, 1)
            self.target.drain("chat", away)
        self.until(lambda request: request.release == to)
        return moved[-1]

    def receipt(self, progress: Progress) -> Receipt:
        """Return the stored receipt."""
        found = self.store.get(evidence_key(progress, "receipt.json"))
        assert found is not None
        return Receipt.from_json(found[0])


def wait(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most ``DEADLINE_S``."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def engine(args: dict[str, Any], **more: Any) -> Engine:
    """Return the engine of a release; a stream takes a tenth of a second."""
    return Engine(release=args["release"], commit=args["commit"], delay_s=0.005, **more)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a cluster on which the first release is live and the second one beside it."""
    (tmp_path / "store").mkdir()
    cluster = RayServe(engine=engine, start_s=0, stop_s=0)
    with serving(cluster) as settings:
        target, store = RayTarget(settings), open_store(StoreSettings(url=f"file://{tmp_path}/store"))
        stage = Stage(cluster, target, store, tmp_path / "receipts")
        try:
            target.start(release(1), "")
            target.shift("chat", OLD)
            yield stage
        finally:
            for witness in stage.witnesses:
                witness.close()
            target.close()
            store.close()
    assert "probe" not in {thread.name for thread in threading.enumerate()}


LIVE = ServiceRecord(service="chat", live=release(1))


def watched(stage: Stage, witness: Witness, number: int = 2) -> Progress:
    """Begin a release under the eyes of the witness, with its candidate started."""
    progress = begun(number)
    stage.target.start(progress.release, "")
    witness.watch(stage.address, progress, LIVE, ("Hi",))
    stage.until(lambda request: request.release == OLD)
    return progress


def said_by(witness: Witness, progress: Progress) -> CheckResult:
    """Return what the witness says, which is something."""
    check = witness.testify(progress)
    assert check is not None
    return check


def test_a_good_release(stage: Stage) -> None:
    """A release that loses nothing passes; receipt and drawing are stored, and said again they are the same."""
    witness = stage.witness()
    progress = stage.move(watched(stage, witness), StepName.SHIFT, NEW, OLD)
    check = said_by(witness, progress)
    seen = stage.receipt(progress)

    assert (check.name, check.verdict) == ("receipt", Verdict.PASS), check
    assert (seen.lost, seen.truncated, seen.wrong, seen.gaps) == (0, 0, 0, ())
    assert [(switch.from_release, switch.to_release) for switch in seen.switches] == [(OLD, NEW)]
    assert check.measured["requests"] == seen.requests == len(stage.lines().requests)
    assert seen.may_answer == (OLD, NEW)
    assert b"<svg" in (stage.store.get(evidence_key(progress, "timeline.svg")) or (b"",))[0]
    assert check == said_by(witness, progress) == said_by(stage.witness(), progress)


def test_a_failed_candidate_and_the_way_back(stage: Stage) -> None:
    """Both may answer in their turn, and a release that is undone without a loss passes."""
    witness = stage.witness()
    progress = stage.move(watched(stage, witness), StepName.SHIFT, NEW, OLD)
    progress = stage.move(progress, StepName.MOVE_BACK, OLD, NEW)
    check = said_by(witness, progress)

    assert check.verdict is Verdict.PASS, check
    assert set(stage.receipt(progress).by_release) == {OLD, NEW}


def test_a_drain_that_is_too_short(stage: Stage) -> None:
    """An old release that is removed under its open streams is caught: they are truncated."""
    witness, stage.cluster.drain = stage.witness(), False
    stage.cluster.apps[OLD].engine.delay_s = 0.1
    progress = watched(stage, witness)
    with stepping(progress, StepName.SHIFT) as moved:
        stage.target.shift("chat", NEW)
        stage.until(lambda request: request.release == NEW, 1)
    stage.target.remove("chat", OLD)
    stage.until(lambda request: request.release == NEW)
    check = said_by(witness, moved[-1])

    assert (check.verdict, check.measured["truncated"] > 0) == (Verdict.FAIL, True), check
    assert any(f"stream truncated ({OLD}): cut after" in line for line in check.evidence)


def test_a_candidate_that_fails_after_some_answers(stage: Stage) -> None:
    """A candidate that answers 500 after its first requests is caught, and the losses are its own."""
    stage.cluster.engine = lambda args: engine(args, fault=Fault.STATUS_500, healthy_requests=9)
    witness = stage.witness()
    progress = stage.move(watched(stage, witness), StepName.SHIFT, NEW, OLD)
    stage.until(lambda request: request.status == 500)
    check = said_by(witness, progress)
    seen = stage.receipt(progress)

    assert check.verdict is Verdict.FAIL
    assert list(seen.faults) == [NEW]
    assert seen.lost == seen.faults[NEW]["lost"] >= 8


def test_a_half_ready_endpoint(stage: Stage) -> None:
    """One of two backends that is not ready is caught, though every other request finds the good one."""
    backends = cycle((Engine(delay_s=0.002), Engine(fault=Fault.STATUS_503)))

    async def balance(scope: Scope, receive: Receive, send: Send) -> None:
        await next(backends).application()(scope, receive, send)

    witness, progress = stage.witness(), begun()
    with asgi.serving(balance) as (url, _server):
        witness.watch(url, progress, LIVE, ("Hi",))
        stage.until(lambda request: request.status == 503)
        check = said_by(witness, progress)

    assert check.verdict is Verdict.FAIL
    assert any("HTTP 503" in line for line in check.evidence)


def test_a_candidate_that_answers_too_early(stage: Stage) -> None:
    """An answer of the candidate at the live address before its shift is wrong, whole as it may be."""
    witness = stage.witness()
    progress = watched(stage, witness)
    stage.target.shift("chat", NEW)
    stage.until(lambda request: request.release == NEW)
    check = said_by(witness, progress)

    assert (check.verdict, check.measured["wrong"] >= 8) == (Verdict.FAIL, True)
    assert check.measured["lost"] == check.measured["truncated"] == 0


@pytest.mark.parametrize("across", [False, True])
def test_a_run_that_died(stage: Stage, across: bool) -> None:
    """The next run goes on with the journal; the hole is told, and one across the switch proves nothing."""
    first, second = stage.witness(), stage.witness()
    progress = watched(stage, first)
    before = len(stage.lines().requests)
    first.close()
    if across:
        with stepping(progress, StepName.SHIFT) as moved:
            stage.target.shift("chat", NEW)
        progress = moved[-1]
    record = LIVE.model_copy(update={"live": release(2), "previous": release(1)}) if across else LIVE
    second.watch(stage.address, progress, record, ("Hi",))
    stage.until(lambda request: request.release == (NEW if across else OLD))
    check = said_by(second, progress)
    seen = stage.receipt(progress)

    assert check.verdict is (Verdict.INCONCLUSIVE if across else Verdict.PASS), check
    assert [gap.moving for gap in seen.gaps] == [across]
    assert "No probe ran for" in check.summary
    assert seen.requests == len({request.id for request in stage.lines().requests}) > before


def test_watching_is_done_once(stage: Stage) -> None:
    """Asked again for the same release nothing changes; for another one the first probe ends."""
    witness = stage.witness()
    progress = watched(stage, witness)
    witness.watch(stage.address, progress, LIVE, ("Hi",))
    assert [thread.name for thread in threading.enumerate()].count("probe") == 1

    witness.watch(stage.address, begun(3), LIVE, ("Hi",))
    wait(lambda: len(list(stage.folder.glob("*.jsonl"))) == 2)

    assert [thread.name for thread in threading.enumerate()].count("probe") == 1


def test_no_probe_was_asked_for(stage: Stage) -> None:
    """Without a probe in the spec nothing is asked, and there is no verdict."""
    witness, progress = stage.witness(), begun(spec=SPEC | {"probe": {"enabled": False}})
    witness.watch(stage.address, progress, LIVE, ("Hi",))

    assert witness.testify(progress) is None
    assert not stage.folder.exists()


def test_nobody_was_live(stage: Stage) -> None:
    """The refused first release of a service had no clients: that is said, and is no pass."""
    stage.target.shift("chat", None)
    witness, progress = stage.witness(), begun(1)
    witness.watch(stage.address, progress, ServiceRecord(service="chat"), ("Hi",))
    wait(lambda: stage.lines().beats)
    check = said_by(witness, progress)

    assert check.verdict is Verdict.INCONCLUSIVE
    assert check.summary == "Nobody was live, so there was nothing to see."


def test_a_first_release(stage: Stage) -> None:
    """Until the first release takes traffic nobody is asked; from then on every answer counts."""
    stage.target.shift("chat", None)
    witness, progress = stage.witness(), begun(1)
    witness.watch(stage.address, progress, ServiceRecord(service="chat"), ("Hi",))
    with stepping(progress, StepName.SHIFT) as moved:
        stage.target.shift("chat", OLD)
        stage.until(lambda request: request.release == OLD)
    check = said_by(witness, moved[-1])

    assert check.verdict is Verdict.PASS, check
    assert set(stage.receipt(progress).by_release) == {OLD}


def test_nothing_was_watched(stage: Stage) -> None:
    """A run that finds neither a receipt nor a journal of the release proves nothing, and says why."""
    check = said_by(stage.witness(), begun())

    assert check.verdict is Verdict.INCONCLUSIVE
    assert "no journal of a probe can be read here (FileNotFoundError)" in check.summary


def test_a_folder_that_cannot_be_written(stage: Stage) -> None:
    """A witness that cannot keep a journal leaves the release alone, unproven."""
    stage.folder.write_text("in the way")
    witness, progress = stage.witness(), begun()
    witness.watch(stage.address, progress, LIVE, ("Hi",))

    assert said_by(witness, progress).verdict is Verdict.INCONCLUSIVE


def test_a_store_that_is_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict does not depend on whether its evidence could be stored just then."""

    def away(*_: object, **__: object) -> None:
        raise Unreachable("away")

    witness = stage.witness()
    progress = watched(stage, witness)
    for name in ("get", "put_if"):
        monkeypatch.setattr(stage.store, name, away)

    assert said_by(witness, progress).verdict is Verdict.PASS


def test_a_late_probe(stage: Stage) -> None:
    """A probe that began long after the release did leaves a hole from its beginning."""
    witness, progress = stage.witness(), begun()
    progress = progress.model_copy(update={"opened_at": progress.opened_at - timedelta(seconds=60)})
    witness.watch(stage.address, progress, LIVE, ("Hi",))
    stage.until(lambda request: request.release == OLD)
    check = said_by(witness, progress)
    (gap,) = stage.receipt(progress).gaps

    assert (check.verdict, gap.moving) == (Verdict.PASS, False)
    assert gap.to_s - gap.from_s == pytest.approx(60, abs=5)
