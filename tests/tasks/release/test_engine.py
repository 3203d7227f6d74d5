"""Whole releases: the engine with a real S3 server and Hub, on a small cluster that behaves as Ray Serve does."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks._checks.quality import quality
from tasks._clients.witness import Witness
from tasks._clock import Clock
from tasks._release import ledger
from tasks._release.engine import Engine as ReleaseEngine
from tasks._release.machine import Observed
from tasks._release.ray import RayTarget
from tasks._release.world import World
from tasks._stores.store import Store
from tasks._weights.hub import Hub
from tasks.errors import Conflict, Refused, Unreachable
from tasks.records import Approval, Kind, Outcome, Progress, Question, Release, Request, StepName
from tests.fakes.completions import Messages
from tests.fakes.context_engine import ContextEngine
from tests.fakes.engine import Engine, EngineCutError
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    "service": "chat",
    "model": MODEL,
    "bake": {"seconds": 0.3, "interval": 0.1},
    "checks": {"prompts": "chat.prompts.yaml"},
    "deadlines": {"ready": 3, "request": 5},
    "approval": {"timeout": 20},
}
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]


@dataclass
class Stage:
    """A world to release in, and what stands behind it."""

    world: World
    cluster: RayServe
    hub: RunningHub
    model: Path

    def wanted(self, number: int, seed: int | None = None) -> Release:
        """Publish a commit and return the release of it."""
        commit = self.hub.publish(write_model(self.model, seed=number if seed is None else seed))
        return Release(service="chat", number=number, model=MODEL, commit=commit, hub=self.hub.endpoint, spec=SPEC)

    def request(self, number: int, seed: int | None = None) -> Request:
        """Publish a commit and return the request for its release."""
        return Request(id=f"request-{number}", release=self.wanted(number, seed), reason="test", at=Clock().now())

    def engine(self, run: str = "run") -> ReleaseEngine:
        """Return what a new run would work with."""
        return ReleaseEngine(self.world, "chat", run=run)

    def release(self, number: int) -> Progress:
        """Carry a new commit to its end."""
        return carried(self.engine(), self.request(number))

    def back(self, kind: Kind, release: Release) -> Progress:
        """Lead to a release that there was."""
        return carried(self.engine(), Request(id=f"to-{release.name}", kind=kind, release=release, at=Clock().now()))

    def left_before(self, step: StepName, number: int) -> str:
        """Have a run die when it is to do ``step`` of a new release, and return the request's id."""
        engine = self.engine("dead")
        asked = engine.ask(self.request(number))
        assert asked

        def perform(now: StepName) -> None:
            if now is step:
                raise DiedError
            engine.perform(now)

        with pytest.raises(DiedError):
            engine.carry(asked, perform)
        return asked

    def finish(self, asked: str) -> Progress:
        """Have a new run finish what a dead one left."""
        ended = self.engine().carry(asked)
        assert ended
        return ended

    def live(self) -> str | None:
        """Return which release answers at the live address."""
        return httpx.get(f"{self.world.target.address('chat')}/v1/models").headers.get("x-slipway-release")


def carried(engine: ReleaseEngine, request: Request) -> Progress:
    """Return how a request ended."""
    ended = engine.carry(engine.ask(request))
    assert ended
    return ended


class DiedError(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class DyingClock(Clock):
    """Kills whoever asks for the time once too often: a step asks before its effect and after it."""

    def __init__(self, moments: int) -> None:
        self._left = moments

    def now(self) -> datetime:
        """Return the time, or die."""
        self._left -= 1
        if self._left < 0:
            raise DiedError
        return super().now()


class Moody:
    """A target that is away at the very first look and at every third, and whenever it is first told something."""

    def __init__(self, target: Any) -> None:
        self._target, self._looks, self._told = target, 0, set[str]()

    def observe(self, service: str) -> Observed:
        """Look, or not."""
        self._looks += 1
        if self._looks % 3 == 1:
            raise Unreachable("away")
        observed: Observed = self._target.observe(service)
        return observed

    def __getattr__(self, name: str) -> Any:
        if name in {"room", "start", "shift"} and name not in self._told:
            self._told.add(name)
            raise Unreachable("away")
        return getattr(self._target, name)


class Meddled:
    """A target on which somebody edits the release called ``edited``, and which has something against each start."""

    def __init__(self, target: Any, edited: str = "", *, starts: bool = True) -> None:
        self._target, self._edited, self._starts = target, edited, starts

    def observe(self, service: str) -> Observed:
        """Look, and see what was edited."""
        shown: Observed = self._target.observe(service)
        placements = {
            name: one.model_copy(update={"edited": True, "message": "somebody edited it"})
            if name == self._edited and one.live
            else one
            for name, one in shown.placements.items()
        }
        return shown.model_copy(update={"placements": placements})

    def start(self, release: Release, weights: str) -> None:
        """Start it, or refuse to."""
        if not self._starts:
            raise Refused("A field belongs to somebody else.")
        self._target.start(release, weights)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class Hasty(Clock):
    """Waits a hundredth of what it is asked to."""

    def sleep(self, seconds: float) -> None:
        """Wait, but not for long."""
        super().sleep(seconds / 100)


def answering(text: str) -> Any:
    """Return a maker of engines that answer ``text`` to everything."""

    def make(args: dict[str, Any]) -> Engine:
        return ContextEngine(
            answer=lambda _messages: text, release=args["release"], commit=args["commit"], model="chat"
        )

    return make


def moody(messages: Messages) -> str:
    """Answer one question, and break at any other."""
    if "France" not in messages[-1]["content"]:
        raise EngineCutError
    return "The capital of France is Paris."


@pytest.fixture
def stage(store: Store, tmp_path: Path) -> Iterator[Stage]:
    """Set the stage: nothing released yet, engines answer well."""
    (tmp_path / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    cluster = RayServe(engine=answering("The capital of France is Paris."))
    with running_hub(tmp_path / "hub") as hub, serving(cluster) as settings, closing(RayTarget(settings)) as target:
        world = World(hub=Hub, store=store, target=target, services=tmp_path, judge=quality)
        yield Stage(world, cluster, hub, tmp_path / "model")


def test_three_good_releases_leave_the_last_two(stage: Stage) -> None:
    """Each is promoted, the one before stays warm, older ones are removed."""
    ended = [stage.release(number) for number in (1, 2, 3)]

    assert [Outcome.PROMOTED] * 3 == [progress.outcome for progress in ended]
    assert "chat-r3" == stage.live()
    placements = stage.engine().observe().placements
    assert {"chat-r2", "chat-r3"} == set(placements)
    assert placements["chat-r2"].draining
    assert not placements["chat-r3"].draining


def test_a_release_that_answers_nonsense_is_refused(stage: Stage) -> None:
    """It is healthy and fast, its answers are wrong, and no client ever meets it."""
    stage.release(1)
    stage.cluster.engine = answering("rk rk rk rk rk rk")

    ended = stage.release(2)

    assert Outcome.REFUSED is ended.outcome
    assert ended.failure is not None
    assert "facts" in ended.failure.reason
    assert ended.step(StepName.SHIFT) is None
    assert ("chat-r1", {"chat-r1"}) == (stage.live(), set(stage.engine().observe().placements))


def test_a_candidate_that_cannot_start_is_removed(stage: Stage) -> None:
    """The reason is the payload's own, the live release is as it was."""
    stage.release(1)
    stage.cluster.engine = lambda _args: None

    ended = stage.release(2)

    assert (Outcome.FAILED, "chat-r1") == (ended.outcome, stage.live())
    assert ended.failure is not None
    assert "no such weights" in ended.failure.reason
    assert {"chat-r1"} == set(stage.engine().observe().placements)


def test_a_candidate_that_never_answers_meets_its_deadline(stage: Stage) -> None:
    """Deploying for ever ends at ``deadlines.ready``."""
    stage.cluster.start_s = 60

    ended = stage.release(1)

    assert Outcome.FAILED is ended.outcome
    assert ended.failure is not None
    assert "did not answer within 3 s: it is starting." in ended.failure.reason
    assert not stage.engine().observe().placements


def test_a_release_that_turns_bad_in_its_bake_is_rolled_back(stage: Stage) -> None:
    """Traffic goes back to the release before, which was kept warm."""
    stage.release(1)
    left = stage.left_before(StepName.BAKE, 2)
    assert "chat-r2" == stage.live()
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"

    ended = stage.finish(left)

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())
    placements = stage.engine().observe().placements
    assert {"chat-r1"} == set(placements)
    assert not placements["chat-r1"].draining
    assert "chat-r1" == getattr(stage.engine().record.live, "name", None)


def test_a_release_that_fails_only_the_probe_in_its_bake_is_rolled_back(stage: Stage, tmp_path: Path) -> None:
    """Golden prompts get their facts, other clients get errors: the bake ends at once, long before its time."""
    other = {"id": "weather", "prompt": "The weather?"}
    (tmp_path / "chat.prompts.yaml").write_text(json.dumps([*PROMPTS, other]))
    stage.release(1)
    asking = stage.request(2)
    spec = {**asking.release.spec, "bake": {"seconds": 60, "interval": 0.1}, "probe": {"rate": 20, "streams": 0}}
    asking = asking.model_copy(update={"release": asking.release.model_copy(update={"spec": spec})})
    world = replace(stage.world, witness=Witness(stage.world.store, tmp_path / "receipts"))
    engine = ReleaseEngine(world, "chat", run="run")

    def perform(step: StepName) -> None:
        if step is StepName.BAKE:
            stage.cluster.apps["chat-r2"].engine.answer = moody
        engine.perform(step)

    begun = time.monotonic()
    with closing(world.witness):
        ended = engine.carry(engine.ask(asking), perform)

    assert ended is not None
    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())
    assert ended.failure is not None
    assert StepName.BAKE is ended.failure.step
    assert "requests of the probe" in ended.failure.reason
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [StepName.START, StepName.SHIFT, StepName.TIDY])
def test_a_run_that_died_is_finished_by_the_next(stage: Stage, step: StepName, when: str) -> None:
    """Whether the effect happened or not, a new run comes to the same end with no second candidate."""
    stage.release(1)
    left = stage.left_before(step, 2)
    dying = ReleaseEngine(
        replace(stage.world, clock=DyingClock(moments=0 if when == "before" else 1)), "chat", run="dying"
    )
    with pytest.raises(DiedError):
        dying.perform(step)

    ended = stage.finish(left)

    assert (Outcome.PROMOTED, "chat-r2") == (ended.outcome, stage.live())
    assert 2 == stage.cluster.replicas


def test_a_run_that_lost_its_lease_stops_before_it_touches_anything(stage: Stage) -> None:
    """A run that was thought dead and wakes up finds at its next action that another one has its place."""
    zombie = stage.engine("zombie")
    asked = zombie.ask(stage.request(1))
    changes: list[int] = []

    def perform(step: StepName) -> None:
        if step is StepName.START:
            take_over(stage.world.store)
            assert Outcome.PROMOTED is stage.finish(str(asked)).outcome
            changes.append(len(stage.cluster.puts))
        zombie.perform(step)

    with pytest.raises(Conflict, match="taken"):
        zombie.carry(asked, perform)

    assert [len(stage.cluster.puts)] == changes
    assert 1 == stage.cluster.replicas


def take_over(store: Store) -> None:
    """Make the lease look as if its holder had been silent for long."""
    data, version = store.get("services/chat/lease.json") or (b"", "")
    silent = {**json.loads(data), "renewed_at": "2026-01-01T00:00:00Z"}
    store.put_if("services/chat/lease.json", json.dumps(silent).encode(), expect=version)


def test_a_roll_back_starts_the_old_release_again_when_it_is_gone(stage: Stage) -> None:
    """A cluster that came back empty does not keep the bad release live, nor the service stuck."""
    stage.release(1)
    del stage.cluster.apps["chat-r1"]
    left = stage.left_before(StepName.BAKE, 2)
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"

    ended = stage.finish(left)

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())


def test_a_roll_back_ends_even_when_nothing_can_take_the_traffic(stage: Stage) -> None:
    """The bad release goes, the record says that nothing is live, and the next release can begin."""
    stage.release(1)
    left = stage.left_before(StepName.BAKE, 2)
    del stage.cluster.apps["chat-r1"]
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"
    good, stage.cluster.engine = stage.cluster.engine, lambda _args: None

    ended = stage.finish(left)

    assert (Outcome.ROLLED_BACK, None) == (ended.outcome, stage.live())
    assert stage.engine().record.live is None
    stage.cluster.engine = good
    del stage.cluster.apps["chat-r1"]
    assert Outcome.PROMOTED is stage.release(3).outcome


def test_a_target_that_is_away_for_a_while_is_waited_for(stage: Stage) -> None:
    """A target that does not answer, or takes no change, is tried again before a release is left half-way."""
    world = replace(stage.world, target=Moody(stage.world.target), clock=Hasty())

    ended = carried(ReleaseEngine(world, "chat", run="run"), stage.request(1))

    assert Outcome.PROMOTED is ended.outcome


def test_a_request_for_what_is_being_undone_begins_anew(stage: Stage) -> None:
    """A dead run's refused release is ended first, and does not swallow the new wish."""
    stage.left_before(StepName.START, 1)
    stage.engine().give_up("a person's wish")

    ended = carried(stage.engine(), stage.request(1).model_copy(update={"id": "again"}))

    assert (Outcome.PROMOTED, "chat-r2") == (ended.outcome, stage.live())
    assert [Outcome.REFUSED, Outcome.PROMOTED] == [one.outcome for one in stage.engine().record.past]


def test_asking_for_what_is_live_does_nothing(stage: Stage) -> None:
    """The same commit and spec, healthy at the live address, is no new release."""
    stage.release(1)

    assert stage.engine().ask(stage.request(1).model_copy(update={"id": "again"})) is None


def test_a_run_that_begins_again_finds_what_became_of_its_request(stage: Stage) -> None:
    """A flow run that is started anew asks as itself, and is told how its release ended."""
    ended = stage.release(1)

    assert ended == carried(stage.engine(), stage.request(1))


def test_asking_for_what_is_on_its_way_joins_it(stage: Stage) -> None:
    """Both who ask see the same release end."""
    left = stage.left_before(StepName.READY, 1)

    assert left == stage.engine().ask(stage.request(1).model_copy(update={"id": "another"}))


def test_of_two_that_wait_the_newer_one_counts(stage: Stage) -> None:
    """The older one ends without a release, and says so."""
    older, newer = stage.engine("older"), stage.engine("newer")
    first = older.ask(stage.request(1))
    second = newer.ask(stage.request(2))

    assert older.carry(first) is None or older.record.past
    ended = newer.carry(second)

    assert ended
    assert (Outcome.PROMOTED, "request-2") == (ended.outcome, ended.request)
    assert 1 == len(newer.record.past)


def test_a_roll_back_leads_to_what_was_live_before(stage: Stage) -> None:
    """It is quick, because that release still runs; what was left stays, to lead forth again."""
    stage.release(1)
    stage.release(2)
    before = stage.engine().record.previous
    assert before

    ended = stage.back(Kind.ROLL_BACK, before)

    record = stage.engine().record
    assert (Outcome.PROMOTED, "chat-r1") == (ended.outcome, stage.live())
    assert ("chat-r1", "chat-r2") == (record.live and record.live.name, record.previous and record.previous.name)
    assert stage.engine().observe().placements["chat-r2"].draining


def test_a_roll_back_to_a_release_that_runs_needs_no_start(stage: Stage) -> None:
    """What a target has against starting it again is no reason to leave clients where they are."""
    stage.release(1)
    stage.release(2)
    before = stage.engine().record.previous
    assert before
    stage.world = replace(stage.world, target=Meddled(stage.world.target, starts=False))

    ended = stage.back(Kind.ROLL_BACK, before)

    assert (Outcome.PROMOTED, "chat-r1") == (ended.outcome, stage.live())


def test_a_bad_release_is_rolled_back_to_one_that_runs_without_a_start(stage: Stage) -> None:
    """What a target has against starting it again is no reason to lead clients nowhere."""
    stage.release(1)
    left = stage.left_before(StepName.BAKE, 2)
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"
    stage.world = replace(stage.world, target=Meddled(stage.world.target, starts=False))

    ended = stage.finish(left)

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())


def test_a_release_that_somebody_edits_while_it_bakes_is_rolled_back(stage: Stage) -> None:
    """It answers well, and is not what was judged."""
    stage.release(1)
    stage.world = replace(stage.world, target=Meddled(stage.world.target, edited="chat-r2"))

    ended = stage.release(2)

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())
    assert ended.failure
    assert (StepName.BAKE, "bake: somebody edited it") == (ended.failure.step, ended.failure.reason)


def test_a_bake_ends_when_somebody_rolls_back(stage: Stage) -> None:
    """The person does not wait for the rest of it, and neither do clients."""
    stage.release(1)
    asking = stage.request(2)
    spec = {**asking.release.spec, "bake": {"seconds": 120, "interval": 0.1}}
    request = asking.model_copy(update={"release": asking.release.model_copy(update={"spec": spec})})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(carried, stage.engine(), request)
        for _ in Clock().ticks(30, 0.05):
            current = stage.engine("person").record.current
            if current and current.step(StepName.BAKE):
                break
        stage.engine("person").give_up("ada rolled it back")
        ended = running.result(timeout=30)

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())
    assert ended.failure
    assert "ada rolled it back" == ended.failure.reason


def test_a_candidate_that_starts_for_long_makes_room_for_a_newer_request(stage: Stage) -> None:
    """Nobody waits for a deadline of something that is not wanted any more."""
    stage.cluster.start_s = 60
    asking = stage.request(1)
    spec = {**asking.release.spec, "deadlines": {"ready": 120, "request": 5}}
    request = asking.model_copy(update={"release": asking.release.model_copy(update={"spec": spec})})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(carried, stage.engine("older"), request)
        for _ in Clock().ticks(30, 0.05):
            current = stage.engine("person").record.current
            if current and current.step(StepName.READY):
                break
        newer = stage.engine("newer")
        asked = newer.ask(stage.request(2))
        older = running.result(timeout=30)
        stage.cluster.start_s = 0.1

    assert Outcome.SUPERSEDED is older.outcome
    ended = newer.carry(asked)
    assert ended
    assert Outcome.PROMOTED is ended.outcome


def test_the_live_release_comes_back_in_an_empty_cluster(stage: Stage) -> None:
    """Nothing but the store is needed, and it keeps its number."""
    stage.release(1)
    stage.cluster.apps.clear()
    live = stage.engine().record.live
    assert live

    ended = stage.back(Kind.RESTORE, live)

    assert (Outcome.PROMOTED, "chat-r1", "chat-r1") == (ended.outcome, ended.release.name, stage.live())


@pytest.mark.parametrize("granted", [True, False])
def test_a_release_under_the_policy_approve_waits_for_a_person(stage: Stage, granted: bool) -> None:
    """It is started and judged, and takes traffic when somebody says so."""
    engine, asking = stage.engine(), stage.request(1)
    spec = {**asking.release.spec, "policy": "approve"}
    asked = engine.ask(asking.model_copy(update={"release": asking.release.model_copy(update={"spec": spec})}))

    def consult(question: Question) -> None:
        assert stage.live() is None
        answer = Approval(step=question.step, granted=granted, who="ada", why="because", at=Clock().now())
        stage.engine().answer(answer)

    ended = engine.carry(asked, consult=consult)

    assert ended
    assert (Outcome.PROMOTED if granted else Outcome.REFUSED) is ended.outcome
    assert ("chat-r1" if granted else None) == stage.live()
    assert ["ada"] == [approval.who for approval in ended.approvals]


def test_a_question_that_nobody_answers_is_a_refusal(stage: Stage) -> None:
    """A candidate does not hold its capacity for ever."""
    engine, asking = stage.engine(), stage.request(1)
    spec = {**asking.release.spec, "policy": "approve", "approval": {"timeout": 0.2}}

    ended = carried(engine, asking.model_copy(update={"release": asking.release.model_copy(update={"spec": spec})}))

    assert Outcome.REFUSED is ended.outcome
    assert ended.failure
    assert "nobody refused it: no answer came in time" == ended.failure.reason


def test_every_end_is_in_the_ledger(stage: Stage) -> None:
    """One entry each, in their order, and the chain holds."""
    stage.release(1)
    stage.cluster.engine = answering("rk rk rk rk rk rk")
    stage.release(2)

    entries = list(ledger.entries(stage.world.store, "chat"))
    assert [Outcome.PROMOTED, Outcome.REFUSED] == [entry.release.outcome for entry in entries]
    assert 2 == ledger.verify(stage.world.store, stage.engine().record)


def test_a_hub_that_is_gone_fails_the_release_and_nothing_else(stage: Stage) -> None:
    """The commit cannot be mirrored, so no candidate is started."""
    stage.release(1)
    wanted = stage.wanted(2).model_copy(update={"commit": "f" * 40})

    ended = carried(stage.engine(), Request(id="gone", release=wanted, at=Clock().now()))

    assert (Outcome.FAILED, "chat-r1") == (ended.outcome, stage.live())
    assert ended.step(StepName.START) is None
