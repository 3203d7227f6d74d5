"""Why a release is where it is: every state has one answer, and a command where a person can do something."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks._processes import this_process
from tasks._release import transitions
from tasks._release.explain import Explanation, Waits, explain
from tasks._release.lease import Lease
from tasks.records import (
    Approval,
    CheckResult,
    Failure,
    Kind,
    LedgerHead,
    Outcome,
    Release,
    Request,
    ServiceRecord,
    StepName,
    Verdict,
)

AT = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)


def a_release(number: int = 1) -> Release:
    """Return the release of that number."""
    return Release(
        service="chat",
        number=number,
        model="org/name",
        commit=f"{number:040x}",
        hub="http://hub",
        spec={"service": "chat", "model": "org/name"},
    )


def asked(number: int = 1, kind: Kind = Kind.RELEASE, **fields: Any) -> Request:
    """Return a request for the release of that number."""
    return Request(id=f"request-{number}", kind=kind, release=a_release(number), at=AT, **fields)


def on_its_way(*done: StepName, kind: Kind = Kind.RELEASE, **fields: Any) -> ServiceRecord:
    """Return a record with a release on its way that has ``done`` these steps."""
    record = transitions.asked(ServiceRecord(service="chat"), asked(kind=kind, **fields))
    record = transitions.opened(record, run="run-1", at=AT)
    for step in done:
        record = transitions.ended(transitions.begun(record, step, at=AT), step, detail="", checks=(), at=AT)
    return record


def lease(seconds: float = 1.0, *, held: bool = True) -> Lease:
    """Return a lease that was renewed so many seconds before."""
    return Lease(
        service="chat",
        fence=1,
        run="run-1",
        process=this_process(),
        renewed_at=AT - timedelta(seconds=seconds),
        held=held,
    )


def test_nothing_on_its_way_needs_nothing() -> None:
    """An empty service is told as such."""
    told = explain(ServiceRecord(service="chat"), None, AT)

    assert (told.waits_for, told.unblock, told.live) == (Waits.NOTHING, (), None)
    assert "Nothing is on its way." in told.lines()
    assert Explanation.from_json(told.to_json()) == told


def test_a_step_that_is_being_done_is_named() -> None:
    """With its beginning and the run that carries it; nobody has to do anything."""
    record = transitions.begun(on_its_way(StepName.MIRROR, actor="anna"), StepName.START, at=AT)
    told = explain(record, lease(), AT)

    assert (told.waits_for, told.step, told.since, told.unblock) == (Waits.STEP, "start", AT, ())
    assert any("run-1 carries it" in line for line in told.lines())
    assert any("for anna" in line for line in told.lines())


@pytest.mark.parametrize("left", [None, lease(held=False), lease(60.0)])
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (Kind.RELEASE, "slipway release chat"),
        (Kind.PROMOTE, "slipway promote chat"),
        (Kind.ROLL_BACK, "slipway rollback chat"),
        (Kind.RESTORE, "slipway restore chat"),
    ],
)
def test_a_release_that_nobody_carries_says_how_to_go_on(left: Lease | None, kind: Kind, command: str) -> None:
    """No lease, one let go of, and one that fell silent are all nobody's."""
    told = explain(on_its_way(kind=kind), left, AT)

    assert (told.waits_for, told.unblock) == (Waits.RUN, (command,))


@pytest.mark.parametrize(
    ("when", "unblock"),
    [
        (AT, ("slipway approve chat", "slipway reject chat")),
        (AT + timedelta(hours=3), ("slipway release chat",)),
    ],
)
def test_a_question_waits_for_a_person(when: datetime, unblock: tuple[str, ...]) -> None:
    """Until its time is over; then only a run is missing, to write the refusal."""
    record = transitions.begun(on_its_way(), StepName.SMOKE, at=AT)
    doubtful = CheckResult(name="tools", verdict=Verdict.INCONCLUSIVE, summary="no answer")
    record = transitions.ended(
        record, StepName.SMOKE, detail="", checks=(doubtful,), at=AT, until=AT + timedelta(hours=1)
    )

    told = explain(record, lease(), when)

    assert (told.waits_for, told.step, told.until) == (Waits.PERSON, "smoke", AT + timedelta(hours=1))
    assert told.unblock == unblock
    assert any("tools: no answer" in line for line in told.lines())


def test_an_answered_question_is_no_longer_asked() -> None:
    """A refusal is being undone then, with the person's reason."""
    record = transitions.ended(
        on_its_way(), StepName.APPROVE, detail="", checks=(), at=AT, until=AT, question="Shall it?"
    )
    record = transitions.answered(
        record, Approval(step=StepName.APPROVE, granted=False, who="anna", why="too slow", at=AT)
    )
    told = explain(record, lease(), AT)

    assert (told.waits_for, told.unblock) == (Waits.UNDOING, ())
    assert any("anna refused it: too slow" in line for line in told.lines())


@pytest.mark.parametrize(("shifted", "what"), [(False, "takes the place of chat-r1"), (True, "waits until chat-r1")])
def test_a_waiting_request_is_told_when_it_begins(shifted: bool, what: str) -> None:
    """Before the shift it takes the place of the other, after it it waits."""
    record = on_its_way(*((StepName.SHIFT,) if shifted else ()))
    told = explain(transitions.asked(record, asked(2)), lease(), AT)

    assert told.waiting is not None
    assert what in told.waiting


def test_a_request_that_no_run_has_begun_says_so() -> None:
    """Its run died between asking and opening."""
    told = explain(transitions.asked(ServiceRecord(service="chat"), asked()), None, AT)

    assert (told.waits_for, told.unblock) == (Waits.RUN, ("slipway release chat",))


def test_the_last_outcome_has_its_reason() -> None:
    """So that nobody has to look elsewhere why nothing changed."""
    record = on_its_way()
    failure = Failure(step=StepName.SMOKE, outcome=Outcome.REFUSED, reason="stop reasons are missing")
    record = transitions.broken(record, StepName.SMOKE, failure, at=AT)
    record = transitions.closed(record, transitions.ending(record, Outcome.REFUSED, at=AT), LedgerHead())

    assert explain(record, None, AT).last == (
        "chat-r1 was refused at 2026-01-01 10:00:00 UTC: stop reasons are missing"
    )
