"""Whole releases: the engine with a real S3 server and Hub, on a small cluster that behaves as Ray Serve does."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks._clock import Clock
from tasks._engine import Engine as ReleaseEngine
from tasks._machine import Observed
from tasks._ray import RayTarget
from tasks._steps import World
from tasks._stores.store import Store
from tasks._weights.hub import Hub
from tasks.errors import Conflict, Unreachable
from tasks.records import Outcome, Progress, Release, StepName
from tests.fakes.context_engine import ContextEngine
from tests.fakes.engine import Engine
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    "service": "chat",
    "model": MODEL,
    "bake": {"seconds": 0.3, "interval": 0.1},
    "checks": {"prompts": "chat.prompts.yaml"},
    "deadlines": {"ready": 3, "request": 5},
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

    def engine(self) -> ReleaseEngine:
        """Return what a new run would work with."""
        return ReleaseEngine(self.world, "chat")

    def release(self, number: int) -> Progress:
        """Carry a new commit to its end."""
        engine = self.engine()
        assert engine.begin(self.wanted(number), run=f"run-{number}", reason="test")
        return engine.drive()

    def engine_before(self, step: StepName, number: int) -> ReleaseEngine:
        """Return an engine that has a new commit on its way and ``step`` to do next."""
        engine = self.engine()
        engine.begin(self.wanted(number), run="run", reason="test")
        while (action := engine.next()).step is not step:
            assert action.step is not None
            engine.perform(action.step)
        return engine

    def live(self) -> str | None:
        """Return which release answers at the live address."""
        return httpx.get(f"{self.world.target.address('chat')}/v1/models").headers.get("x-slipway-release")


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
    """A target that is away at every third look."""

    def __init__(self, target: Any) -> None:
        self._target, self._looks = target, 0

    def observe(self, service: str) -> Observed:
        """Look, or not."""
        self._looks += 1
        if self._looks % 3 == 0:
            raise Unreachable("away")
        observed: Observed = self._target.observe(service)
        return observed

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


@pytest.fixture
def stage(store: Store, tmp_path: Path) -> Iterator[Stage]:
    """Set the stage: nothing released yet, engines answer well."""
    (tmp_path / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    cluster = RayServe(engine=answering("The capital of France is Paris."))
    with running_hub(tmp_path / "hub") as hub, serving(cluster) as settings, closing(RayTarget(settings)) as target:
        world = World(hub=Hub, store=store, target=target, services=tmp_path)
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
    assert "did not answer within 3 s" in ended.failure.reason
    assert not stage.engine().observe().placements


def test_a_release_that_turns_bad_in_its_bake_is_rolled_back(stage: Stage) -> None:
    """Traffic goes back to the release before, which was kept warm."""
    stage.release(1)
    engine = stage.engine_before(StepName.BAKE, 2)
    assert "chat-r2" == stage.live()
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"

    ended = engine.drive()

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())
    placements = stage.engine().observe().placements
    assert {"chat-r1"} == set(placements)
    assert not placements["chat-r1"].draining
    assert "chat-r1" == getattr(stage.engine().record.live, "name", None)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [StepName.START, StepName.SHIFT, StepName.TIDY])
def test_a_run_that_died_is_finished_by_the_next(stage: Stage, step: StepName, when: str) -> None:
    """Whether the effect happened or not, a new run comes to the same end with no second candidate."""
    stage.release(1)
    stage.engine_before(step, 2)

    dying = ReleaseEngine(replace(stage.world, clock=DyingClock(moments=0 if when == "before" else 1)), "chat")
    with pytest.raises(DiedError):
        dying.perform(step)

    ended = stage.engine().drive()

    assert (Outcome.PROMOTED, "chat-r2") == (ended.outcome, stage.live())
    assert 2 == stage.cluster.replicas


def test_of_two_writers_one_stops(stage: Stage) -> None:
    """A run that was thought dead and wakes up is stopped by its next write, before it touches anything."""
    zombie = stage.engine()
    zombie.begin(stage.wanted(1), run="zombie", reason="test")
    stage.engine().drive()

    with pytest.raises(Conflict):
        zombie.perform(StepName.START)

    assert 1 == stage.cluster.replicas


def test_a_roll_back_starts_the_old_release_again_when_it_is_gone(stage: Stage) -> None:
    """A cluster that came back empty does not keep the bad release live, nor the service stuck."""
    stage.release(1)
    del stage.cluster.apps["chat-r1"]
    engine = stage.engine_before(StepName.BAKE, 2)
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"

    ended = engine.drive()

    assert (Outcome.ROLLED_BACK, "chat-r1") == (ended.outcome, stage.live())


def test_a_roll_back_ends_even_when_nothing_can_take_the_traffic(stage: Stage) -> None:
    """The bad release goes, the record says that nothing is live, and the next release can begin."""
    stage.release(1)
    engine = stage.engine_before(StepName.BAKE, 2)
    del stage.cluster.apps["chat-r1"]
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"
    good, stage.cluster.engine = stage.cluster.engine, lambda _args: None

    ended = engine.drive()

    assert (Outcome.ROLLED_BACK, None) == (ended.outcome, stage.live())
    assert engine.record.live is None
    stage.cluster.engine = good
    del stage.cluster.apps["chat-r1"]
    assert Outcome.PROMOTED is stage.release(3).outcome


def test_a_target_that_is_away_for_a_while_is_waited_for(stage: Stage) -> None:
    """A record or target that does not answer is tried again before a release is left half-way."""
    engine = ReleaseEngine(replace(stage.world, target=Moody(stage.world.target), clock=Hasty()), "chat")
    engine.begin(stage.wanted(1), run="run", reason="test")

    assert Outcome.PROMOTED is engine.drive().outcome


def test_a_wish_for_what_is_being_undone_begins_anew(stage: Stage) -> None:
    """A dead run's refused release is ended first, and does not swallow the new wish."""
    engine = stage.engine()
    wanted = stage.wanted(1)
    engine.begin(wanted, run="run", reason="test")
    engine.give_way(wanted)

    later = stage.engine()

    assert later.stands_in_the_way(wanted)
    later.drive()
    assert later.begin(wanted, run="run-2", reason="test")
    assert (Outcome.PROMOTED, "chat-r2") == (later.drive().outcome, stage.live())


def test_asking_for_what_is_live_does_nothing(stage: Stage) -> None:
    """The same commit and spec, healthy at the live address, is no new release."""
    stage.release(1)

    assert not stage.engine().begin(stage.wanted(1), run="run", reason="test")


def test_a_hub_that_is_gone_fails_the_release_and_nothing_else(stage: Stage) -> None:
    """The commit cannot be mirrored, so no candidate is started."""
    stage.release(1)
    wanted = stage.wanted(2).model_copy(update={"commit": "f" * 40})
    engine = stage.engine()
    engine.begin(wanted, run="run", reason="test")

    ended = engine.drive()

    assert (Outcome.FAILED, "chat-r1") == (ended.outcome, stage.live())
    assert ended.step(StepName.START) is None
