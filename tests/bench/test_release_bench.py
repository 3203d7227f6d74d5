"""From the record and the clients' answers to the figures of releases: nothing that is wrong looks good."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from tasks.records import (
    Kind,
    LedgerHead,
    Outcome,
    Progress,
    Release,
    Request,
    ServiceRecord,
    Step,
    StepName,
    StepState,
)
from tests.bench.driver import Answer, Driver, Load, Way, driving
from tests.bench.outcomes import (
    Carried,
    Decision,
    Scene,
    across,
    is_wrong,
    kept,
    live_spans,
    long_stream,
    memory,
    one_release,
    overhead,
    restored,
    way_back,
)
from tests.bench.rig import leads_back
from tests.fakes.engine import Engine, Fault, serving

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
T = BEGAN.timestamp()
CLIENTS = (Way.NEW, Way.KEPT, Way.STREAM)


def progress(number: int, *steps: tuple[StepName, float, float], kind: Kind = Kind.RELEASE) -> Progress:
    """Return a release with steps, each from one second to another."""
    release = Release(service="chat", number=number, model="a/b", commit="1" * 40, hub="-", spec={})
    done = tuple(
        Step(name=name, state=StepState.DONE, started_at=after(begun), ended_at=after(ended))
        for name, begun, ended in steps
    )
    closed = max((ended for _, _, ended in steps), default=0.0)
    return Progress(
        kind=kind,
        release=release,
        run="run",
        opened_at=BEGAN,
        closed_at=after(closed),
        steps=done,
        outcome=Outcome.PROMOTED,
    )


def after(seconds: float) -> datetime:
    """Return a moment of the story."""
    return BEGAN + timedelta(seconds=seconds)


def got(
    release: str, began: float, ended: float, *, way: Way = Way.NEW, fault: str = "", cut: bool = False
) -> Answer:
    """Return what a client got, with headers halfway."""
    headers = None if fault and not cut else T + (began + ended) / 2
    return Answer(way, T + began, headers, T + ended, release, fault, cut)


SHIFTED = live_spans([progress(1, (StepName.SHIFT, 0, 1)), progress(2, (StepName.SHIFT, 10, 12))])


def test_a_release_is_live_from_one_switch_to_the_end_of_the_next() -> None:
    """While the address moves, both may answer."""
    assert {"chat-r1": [(T, T + 12)], "chat-r2": [(T + 10, inf)]} == SHIFTED


def test_what_was_moved_back_is_live_no_more() -> None:
    """The release before is, for the second time."""
    bad = progress(2, (StepName.SHIFT, 10, 12), (StepName.MOVE_BACK, 20, 21))

    spans = live_spans([progress(1, (StepName.SHIFT, 0, 1)), bad])

    assert {"chat-r1": [(T, T + 12), (T + 20, inf)], "chat-r2": [(T + 10, T + 21)]} == spans


def test_a_candidate_that_never_shifted_was_never_live() -> None:
    """It was undone before, and what was live stays so."""
    spans = live_spans([progress(1, (StepName.SHIFT, 0, 1)), progress(2, (StepName.MOVE_BACK, 5, 6))])

    assert {"chat-r1": [(T, inf)]} == spans


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (got("chat-r1", 11.5, 14), False),
        (got("chat-r1", 12.5, 14), True),
        (got("chat-r2", 11, 11.5), False),
        (got("chat-r2", 8, 9), True),
        (got("chat-r3", 11, 12), True),
        (got("", 11, 12), True),
    ],
)
def test_an_answer_by_a_release_that_was_not_live_is_wrong(answer: Answer, *, wrong: bool) -> None:
    """One that nobody knows, or that does not say its name, is as well."""
    assert wrong is is_wrong(answer, SHIFTED)


def test_lost_truncated_and_wrong_are_counted_apart() -> None:
    """And what is outside of the scene is not."""
    answers = [
        *(got("chat-r1", 2, 3, way=way) for way in CLIENTS),
        got("", 4, 5, fault="ConnectError"),
        got("chat-r1", 4, 5, fault="has no end", cut=True),
        got("chat-r1", 13, 14),
        got("", 90, 91, fault="ConnectError"),
    ]

    figures = kept("C1", Scene("a release", T, T + 20, answers, SHIFTED))

    assert [1, 1, 1] == [figure.value for figure in figures]
    assert not any(figure.met for figure in figures)


def test_nothing_is_proven_where_not_every_client_asked() -> None:
    """Nobody lost anything, because nobody was there."""
    figures = kept("C1", Scene("a release", T, T + 20, [got("chat-r1", 2, 3)], SHIFTED))

    assert [None] * 3 == [figure.value for figure in figures]


def test_a_stream_is_across_when_another_release_has_answered_meanwhile() -> None:
    """By the answers, and not by the record, whose step takes longer than the switch."""
    held = got("chat-r1", 9, 13, way=Way.STREAM)
    soon_over = got("chat-r1", 9, 10.4, way=Way.STREAM)

    assert [held] == across([held, soon_over, got("chat-r2", 10.4, 10.6)], SHIFTED)


def test_the_longest_stream_across_counts_and_none_may_break() -> None:
    """One that is whole proves nothing where another one broke."""
    whole, moved = got("chat-r1", 0, 130, way=Way.LONG), got("chat-r2", 11, 11.2)

    assert (130, True) == (long_stream([whole, moved], SHIFTED).value, long_stream([whole, moved], SHIFTED).met)
    broken = got("chat-r1", 0, 50, way=Way.LONG, fault="ReadError", cut=True)
    assert long_stream([whole, broken, moved], SHIFTED).value is None
    assert long_stream([got("chat-r1", 0, 9, way=Way.LONG), moved], SHIFTED).value is None


def test_the_way_back_is_counted_from_before_the_decision_was_written() -> None:
    """An answer by the bad release counts only where its request began afterwards."""
    answers = [
        got("chat-r2", 29.9, 30.7, way=Way.LOOK_NEW),
        got("chat-r2", 30.2, 30.4, way=Way.LOOK_NEW),
        got("chat-r1", 30.8, 31.2, way=Way.LOOK_NEW),
        got("chat-r2", 33, 34, way=Way.LOOK_IDLE),
    ]

    figures = way_back("now", answers, Decision(T + 30, T + 30.1), "chat-r1", "chat-r2")

    assert [1.0, 0.3, 3.5] == [round(figure.value or 0, 3) for figure in figures]


def test_a_way_back_that_never_led_back_has_no_figure() -> None:
    """That the bad release fell silent is no success."""
    figures = way_back("now", [], Decision(T, T), "chat-r1", "chat-r2")

    assert [None] * 3 == [figure.value for figure in figures]


def test_waiting_is_not_the_controllers_own_time() -> None:
    """All the rest is: before, between and after the steps too."""
    ended = progress(1, (StepName.START, 1, 2), (StepName.READY, 2, 60), (StepName.SHIFT, 61, 63))

    figure = overhead(Carried(ended, T - 3, T + 64), None, {}).to_json()

    assert (9.0, {"start": 1.0, "shift": 2.0}) == (figure["value"], figure["acting_s"])
    assert (3.0, 2.0, 1.0) == (
        figure["before_it_opened_s"],
        figure["between_steps_s"],
        figure["after_it_closed_s"],
    )


def test_a_step_that_was_done_again_leaves_the_own_time_unknown() -> None:
    """It keeps its first start, so that it covers what was done in between, which then counts twice."""
    ended = progress(1, (StepName.START, 1, 2), (StepName.SHIFT, 40, 43), (StepName.READY, 2, 60))

    assert overhead(Carried(ended, T - 3, T + 61), None, {}).value is None


def test_the_largest_process_counts() -> None:
    """A release whose process nobody saw has no figure."""
    runs = [Carried(progress(1), T, T, peak) for peak in (100_000_000, 310_000_000)]

    assert (310, False) == (memory(runs, {}).value, memory(runs, {}).met)
    assert memory([Carried(progress(1), T, T)], {}).value is None


def test_every_request_must_have_heard_of_the_one_release() -> None:
    """One that was lost, or heard of another, is no success."""
    assert one_release(3, ["chat-r1"] * 3, 1, {}).met
    assert not one_release(3, ["chat-r1"] * 3, 2, {}).met
    assert one_release(3, ["chat-r1"] * 2, 1, {}).value is None
    assert one_release(3, ["chat-r1", "chat-r1", "chat-r2"], 1, {}).value is None


def test_another_release_than_before_is_none_restored() -> None:
    """Nor is one of the same name with other weights."""
    assert restored("chat-r1 aaa", "chat-r1 aaa", 3, {}).met
    assert not restored("chat-r1 aaa", "chat-r1 bbb", 3, {}).met


def test_a_roll_back_is_written_as_a_wish_or_as_a_failure() -> None:
    """What was there before the question is not meant."""
    bare = ServiceRecord(service="chat", ledger=LedgerHead(sequence=3), past=(progress(1, kind=Kind.ROLL_BACK),))
    wish = Request(id="1", kind=Kind.ROLL_BACK, release=bare.past[0].release, at=BEGAN)

    assert not leads_back(bare, 3)
    assert leads_back(bare, 2)
    assert leads_back(bare.model_copy(update={"waiting": wish}), 3)


LIGHT = Load(40, 8, 2, 8, 0.0, looks=40, idle=1, idle_s=0.05, timeout_s=5)


def wait_for(driver: Driver, what: Callable[[Answer], object]) -> Answer:
    """Return the first answer that is so, of those to come."""
    known, deadline = len(driver.seen()), time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := next((one for one in driver.seen()[known:] if what(one)), None):
            return found
        time.sleep(0.02)
    raise AssertionError("no client got that")


def whole(way: Way) -> Callable[[Answer], bool]:
    """Return what tells whole answers to those who ask in this way."""
    return lambda one: one.way is way and not one.fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "truncated"),
    [(Fault.CUT, True), (Fault.NO_DONE, True), (Fault.RESET, False), (Fault.STATUS_500, False)],
)
def test_the_driver_sees_each_fault_for_what_it_is(fault: Fault, *, truncated: bool) -> None:
    """And before it every client was answered whole."""
    engine = Engine(delay_s=0.01)
    with serving(engine) as url, driving(url, "chat", LIGHT) as driver:
        for way in set(Way) - {Way.LONG}:
            assert "chat-r1" == wait_for(driver, whole(way)).release
        assert not [one for one in driver.seen() if one.fault]
        engine.fault = fault

        bad = wait_for(driver, lambda one: one.way is Way.STREAM and one.fault)

    assert truncated is bad.truncated


@pytest.mark.slow
def test_a_long_stream_is_awaited() -> None:
    """It is as long as asked, while all others come and go."""
    with serving(Engine(delay_s=0.01)) as url, driving(url, "chat", LIGHT) as driver:
        driver.open_long(2, 60)
        found = wait_for(driver, lambda one: one.way is Way.LONG)

    assert ("", 0) == (found.fault, driver.long_open)
    assert found.ended - found.began >= 0.6
