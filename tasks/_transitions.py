"""How the record changes: pure functions from one record to the next, each one write.

What belongs together is one change, so that no crash falls between a step's end and what that end means: the
write that says "shifted" is also the one that says which release is live.
"""

from datetime import datetime

from tasks._machine import judge
from tasks.errors import Conflict
from tasks.records import (
    CheckResult,
    Failure,
    Outcome,
    Progress,
    Release,
    ServiceRecord,
    Step,
    StepName,
    StepState,
)

PAST_KEPT = 50
"""Ended releases kept in the record: enough to explain the last weeks, small enough to read at every step."""


def opened(record: ServiceRecord, release: Release, *, run: str, reason: str, at: datetime) -> ServiceRecord:
    """Return the record with ``release`` on its way; raises ``Conflict`` while another one is."""
    if record.current is not None:
        raise Conflict(f"{record.current.release.name} is still on its way.", remedy="Wait until it has ended.")
    progress = Progress(release=release, run=run, reason=reason, opened_at=at)
    return record.model_copy(update={"current": progress, "next_number": release.number + 1})


def begun(record: ServiceRecord, step: StepName, *, at: datetime) -> ServiceRecord:
    """Return the record with the intent to do ``step``."""
    return _with_step(record, step, StepState.STARTED, at, "")


def ended(
    record: ServiceRecord,
    step: StepName,
    *,
    detail: str,
    checks: tuple[CheckResult, ...],
    at: datetime,
    dark: bool = False,
) -> ServiceRecord:
    """Return the record with what ``step`` did, its verdicts, and what they mean for the release.

    ``dark`` says that moving back found no release that could take the traffic.
    """
    failure = judge(step, checks)
    if failure is not None:
        record = broken(record, step, failure, at=at)
    else:
        record = _with_traffic(_with_step(record, step, StepState.DONE, at, detail), step, dark=dark)
    return _with(record, checks=(*on_its_way(record).checks, *checks))


def broken(
    record: ServiceRecord, step: StepName, failure: Failure | None, *, at: datetime, detail: str = ""
) -> ServiceRecord:
    """Return the record with ``step`` failed; with a ``failure`` the release is to be undone."""
    record = _with_step(record, step, StepState.FAILED, at, failure.reason if failure else detail)
    return _with(record, failure=failure) if failure else record


def adopted(record: ServiceRecord, run: str) -> ServiceRecord:
    """Return the record with the release on its way carried by another run."""
    return _with(record, run=run)


def abandoned(record: ServiceRecord, reason: str) -> ServiceRecord:
    """Return the record with the release on its way given up, unless it is being undone already."""
    if on_its_way(record).failure is not None:
        return record
    return _with(record, failure=Failure(step=None, outcome=Outcome.FAILED, reason=reason))


def closed(record: ServiceRecord, outcome: Outcome, *, at: datetime) -> ServiceRecord:
    """Return the record with the release on its way ended."""
    last = on_its_way(record).model_copy(update={"outcome": outcome, "closed_at": at})
    return record.model_copy(update={"current": None, "past": (*record.past, last)[-PAST_KEPT:]})


def on_its_way(record: ServiceRecord) -> Progress:
    """Return the release on its way; raises ``Conflict`` when another run has ended it."""
    if record.current is None:
        raise Conflict(f"No release of {record.service} is on its way.", remedy="Start one.")
    return record.current


def _with(record: ServiceRecord, **fields: object) -> ServiceRecord:
    return record.model_copy(update={"current": on_its_way(record).model_copy(update=fields)})


def _with_step(record: ServiceRecord, name: StepName, state: StepState, at: datetime, detail: str) -> ServiceRecord:
    progress = on_its_way(record)
    before = progress.step(name)
    step = Step(
        name=name,
        state=state,
        started_at=before.started_at if before else at,
        ended_at=None if state is StepState.STARTED else at,
        detail=detail,
    )
    others = (one for one in progress.steps if one.name is not name)
    return _with(record, steps=(*others, step))


def _with_traffic(record: ServiceRecord, step: StepName, *, dark: bool) -> ServiceRecord:
    progress = on_its_way(record)
    if step is StepName.SHIFT and record.live != progress.release:
        kept = _with(record, kept_warm=record.previous)
        return kept.model_copy(update={"previous": record.live, "live": progress.release})
    if step is not StepName.MOVE_BACK:
        return record
    if dark:
        return record.model_copy(update={"live": None, "previous": None})
    if record.live == progress.release:
        return record.model_copy(update={"live": record.previous, "previous": progress.kept_warm})
    return record
