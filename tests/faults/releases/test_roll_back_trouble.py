"""Ways back that are blocked: what was live before is gone, cannot start again, or the run dies half-way."""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.records import Kind, Outcome, StepName
from tests.fakes.engine import Engine
from tests.faults.releases.stage import BAD, GOOD, KILLED, Stage, asking, engine

pytestmark = pytest.mark.slow


def turned_bad(stage: Stage, meanwhile: Callable[[], None]) -> str:
    """Have a new release shift, do something ``meanwhile``, and let it turn bad; return its name."""
    name = stage.next_name()
    request = stage.wanted()
    assert KILLED == stage.begin(request, crash_at="shift:outcome").exit()
    meanwhile()
    stage.cluster.engine_of(name).answer = lambda _messages: BAD
    stage.begin(request).ended()
    return name


def test_a_release_before_that_is_gone_is_started_again(stage: Stage) -> None:
    """The bad one keeps the traffic until the other has answered, so that nobody meets a closed door."""
    before = stage.record()
    assert before.live
    live = before.live.name

    turned_bad(stage, lambda: stage.cluster.lose(live))

    ended = stage.record().past[-1]
    assert (Outcome.ROLLED_BACK, before.live) == (ended.outcome, stage.record().live)
    assert live == stage.live()


def test_a_way_back_that_is_killed_after_the_old_release_began_to_start_is_finished(stage: Stage) -> None:
    """It is not started twice."""
    before, name = stage.record(), stage.next_name()
    assert before.live
    request = stage.wanted()
    assert KILLED == stage.begin(request, crash_at="shift:outcome").exit()
    stage.cluster.lose(before.live.name)
    stage.cluster.engine_of(name).answer = lambda _messages: BAD
    replicas = stage.cluster.made()

    for boundary in ("bake:outcome", "move_back:effect", "move_back:outcome", "remove:intent"):
        assert KILLED == stage.begin(request, crash_at=boundary).exit()
    stage.begin(request).ended()

    assert (before.live.name, replicas + 1) == (stage.live(), stage.cluster.made())
    assert Outcome.ROLLED_BACK is stage.record().past[-1].outcome


def test_a_roll_back_to_a_release_that_cannot_start_leaves_the_live_one(stage: Stage) -> None:
    """Traffic was not touched: what cannot answer is never led to."""
    before = stage.record()
    assert before.previous
    stage.cluster.lose(before.previous.name)
    stage.cluster.engine = lambda _args: None

    ended = stage.carry(asking(before.previous, Kind.ROLL_BACK))

    assert Outcome.FAILED is ended.outcome
    assert ended.step(StepName.SHIFT) is None
    assert before.live == stage.record().live
    stage.cluster.engine = lambda args: engine(args, lambda _release: GOOD)
    assert Outcome.PROMOTED is stage.carry(stage.wanted()).outcome


def test_a_service_without_any_good_release_ends_dark_and_can_be_released_again(stage: Stage) -> None:
    """The one before cannot start, the new one talks nonsense: none is live, it is said, and the next one is."""
    before, name = stage.record(), stage.next_name()
    stage.dark = True
    assert before.live
    live = before.live.name

    def only(wanted: str) -> Callable[[dict[str, Any]], Engine | None]:
        return lambda args: engine(args, lambda _release: GOOD) if args["release"] == wanted else None

    def lose() -> None:
        stage.cluster.lose(live)
        stage.cluster.engine = only("")

    turned_bad(stage, lose)

    assert (Outcome.ROLLED_BACK, name) == (stage.record().past[-1].outcome, stage.record().past[-1].release.name)
    assert (None, None, None) == (stage.record().live, stage.record().previous, stage.live())
    stage.answer(lambda _release: GOOD)
    assert Outcome.PROMOTED is stage.carry(stage.wanted()).outcome
    assert stage.live() == stage.record().past[-1].release.name
