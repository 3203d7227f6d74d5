"""Who may answer when, and when nobody looked, at every stage of a release."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks._clients.requests import Beat, Kind, Outcome, Request
from tasks._clients.turns import SETTLE_S, Before, before, holes, judged, turns_of
from tasks.records import Progress, Release, ServiceRecord, Step, StepName, StepState

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
SHIFT, BACK = StepName.SHIFT, StepName.MOVE_BACK
OLD, NEW = "chat-r1", "chat-r2"


def at(seconds: float) -> datetime:
    """Return a moment of the release."""
    return EPOCH + timedelta(seconds=seconds)


def release(number: int) -> Release:
    """Return a release of the service."""
    return Release(service="chat", number=number, model="org/model", commit="1" * 40, hub="http://hub", spec={})


def progress(**steps: tuple[float, float | None]) -> Progress:
    """Return the second release on its way, with these steps from one moment to another, or still begun."""
    made = tuple(
        Step(
            name=StepName(name),
            state=StepState.STARTED if end is None else StepState.DONE,
            started_at=at(begin),
            ended_at=None if end is None else at(end),
        )
        for name, (begin, end) in steps.items()
    )
    return Progress(release=release(2), run="run", opened_at=EPOCH, steps=made)


def answered(by: str | None, started: float, lasting: float = 0.1, **more: Any) -> Request:
    """Return an answer by a release, on a new connection unless told otherwise."""
    values = {
        "id": 0,
        "kind": Kind.PLAIN,
        "kept_alive": False,
        "at": at(started),
        "started": 7.0,
        "answered": 7.0 + lasting,
        "ended": 7.0 + lasting,
        "release": by,
        "outcome": Outcome.OK,
    }
    return Request.model_validate(values | more)


SHIFTED = {"shift": (10.0, 12.0)}
BACK_AGAIN = SHIFTED | {"move_back": (30.0, 32.0)}


@pytest.mark.parametrize(
    ("steps", "earlier", "request_", "right"),
    [
        pytest.param({}, OLD, answered(OLD, 1), True, id="live before the shift"),
        pytest.param({}, OLD, answered(NEW, 1), False, id="candidate without a shift"),
        pytest.param({}, OLD, answered("chat-r9", 1), False, id="a stranger"),
        pytest.param(SHIFTED, OLD, answered(NEW, 9), False, id="candidate before the shift"),
        pytest.param(SHIFTED, OLD, answered(NEW, 9, 2), True, id="asked before, answered in the shift"),
        pytest.param(SHIFTED, OLD, answered(NEW, 11), True, id="candidate in the shift"),
        pytest.param({"shift": (10.0, None)}, OLD, answered(OLD, 90), True, id="either while the shift goes on"),
        pytest.param(SHIFTED, OLD, answered(OLD, 12 + SETTLE_S - 1), True, id="old one while it settles"),
        pytest.param(SHIFTED, OLD, answered(OLD, 12 + SETTLE_S + 1), False, id="old one on a new connection"),
        pytest.param(SHIFTED, OLD, answered(OLD, 99, kept_alive=True), True, id="old one on a kept connection"),
        pytest.param(SHIFTED, None, answered(OLD, 11), False, id="nobody was live before"),
        pytest.param(BACK_AGAIN, OLD, answered(OLD, 31), True, id="old one again on the way back"),
        pytest.param(BACK_AGAIN, OLD, answered(OLD, 25), False, id="old one between shift and way back"),
        pytest.param(BACK_AGAIN, OLD, answered(NEW, 32 + SETTLE_S - 1), True, id="bad one while it settles"),
        pytest.param(BACK_AGAIN, OLD, answered(NEW, 32 + SETTLE_S + 1), False, id="bad one on a new connection"),
        pytest.param(BACK_AGAIN, OLD, answered(NEW, 99, kept_alive=True), True, id="bad one on a kept connection"),
    ],
)
def test_turns(steps: dict[str, Any], earlier: str | None, request_: Request, *, right: bool) -> None:
    """An answer is wrong when its release was not live at the time that its client met it."""
    turns = turns_of(progress(**steps), Before(release=earlier))

    assert judged(request_, turns).outcome is (Outcome.OK if right else Outcome.WRONG)


def test_only_whole_answers_are_wrong() -> None:
    """What was lost or cut stays that; without turns nobody is judged."""
    cut = answered(NEW, 1, outcome=Outcome.TRUNCATED)

    assert judged(cut, ()) == cut
    assert judged(answered(NEW, 1), None).outcome is Outcome.OK


def test_the_live_release_again() -> None:
    """A release that is live already and is led to again may answer from the beginning."""
    live = ServiceRecord(service="chat", live=release(2), previous=release(1))
    earlier = before(progress(), live)

    assert earlier == Before(again=True)
    assert judged(answered(NEW, 1), turns_of(progress(**SHIFTED), earlier)).outcome is Outcome.OK
    assert judged(answered(OLD, 1), turns_of(progress(**SHIFTED), earlier)).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("steps", "live", "previous", "earlier"),
    [
        ({}, None, None, None),
        ({}, 1, None, OLD),
        ({"shift": (10.0, None)}, 1, None, OLD),
        (SHIFTED, 2, 1, OLD),
        (SHIFTED, 2, None, None),
        (BACK_AGAIN, 1, None, OLD),
    ],
)
def test_before(steps: dict[str, Any], live: int | None, previous: int | None, earlier: str | None) -> None:
    """What was live before is read from the record at any time of the release."""
    record = ServiceRecord(service="chat", live=live and release(live), previous=previous and release(previous))

    assert before(progress(**steps), record) == Before(release=earlier)


def beats(*moments: float, first: bool = True) -> list[Beat]:
    """Return the beats of one probe."""
    return [Beat(at=at(moment), first=first and number == 0) for number, moment in enumerate(moments)]


def spans(steps: dict[str, Any], seen: list[Beat], now: float) -> list[tuple[float, float, bool]]:
    """Return the holes in seconds from the beginning."""
    return [
        ((hole.since - EPOCH).total_seconds(), (hole.until - EPOCH).total_seconds(), hole.moving)
        for hole in holes(seen, progress(**steps), at(now))
    ]


def test_no_hole() -> None:
    """A probe from the beginning to the end leaves none, nor does one beat that came late."""
    assert spans({}, beats(0.5, 1.5, 3.9, 5), 6) == []


def test_holes_between_probes() -> None:
    """A probe that was killed leaves a hole until the next, however short, and until the first and after the last."""
    seen = [*beats(4, 5), *beats(5.5, 6.5), *beats(20, 21)]

    assert spans({}, seen, 30) == [(0, 4, False), (5, 5.5, False), (6.5, 20, False), (21, 30, False)]


def test_a_stopped_probe_leaves_a_hole() -> None:
    """Beats that stay away for seconds are a hole as well: the process or the machine stood still."""
    assert spans({}, beats(1, 2, 9, 10), 11) == [(2, 9, False)]


@pytest.mark.parametrize(
    ("steps", "moving"),
    [
        ({"shift": (1.0, 4.0)}, False),
        ({"shift": (1.0, 6.0)}, True),
        ({"shift": (6.0, 7.0)}, True),
        ({"shift": (1.0, None)}, True),
        ({"shift": (1.0, 4.0), "move_back": (8.0, 12.0)}, True),
        ({"bake": (1.0, 20.0)}, False),
    ],
)
def test_holes_across_a_move(steps: dict[str, Any], *, moving: bool) -> None:
    """A hole hides a switch when traffic moved in any part of it."""
    assert spans(steps, [*beats(0, 3, 5), *beats(10, 12)], 13) == [(5, 10, moving)]


@pytest.mark.parametrize(("steps", "found"), [({"shift": (0.5, 1.5)}, [(0, 2, True)]), ({"bake": (0.5, 1.5)}, [])])
def test_a_short_time_before_the_first_probe(steps: dict[str, Any], found: list[tuple[float, float, bool]]) -> None:
    """It is a hole where traffic moved in it: another machine began the release, and what it saw is not here."""
    assert spans(steps, beats(2, 3), 4) == found


def test_never_watched() -> None:
    """Without any beat the whole release is a hole."""
    assert spans({"shift": (1.0, 2.0)}, [], 9) == [(0, 9, True)]
