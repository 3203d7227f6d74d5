"""How the record changes: pure functions from one record to the next, each one write.

What belongs together is one change, so that no crash falls between a step's end and what that end means: the
write that says "shifted" is also the one that says which release is live.
"""

from datetime import datetime

from tasks._release.machine import LEADS_BACK, doubt, fulfils, gives_way, judge
from tasks.errors import Conflict, NotFound
from tasks.records import (
    Approval,
    CheckResult,
    Failure,
    Kind,
    LedgerHead,
    Outcome,
    Progress,
    Question,
    Request,
    ServiceRecord,
    Step,
    StepName,
    StepState,
)

PAST_KEPT, PAST_WHOLE = 50, 3
"""Ended releases kept in the record, and how many of them with their evidence: enough to explain the last weeks, and
small enough to read at every step."""


def asked(record: ServiceRecord, request: Request) -> ServiceRecord:
    """Return the record with ``request`` waiting, if it is not known; of two that wait, the newer one counts."""
    return record if known_as(record, request) is not None else record.model_copy(update={"waiting": request})


def known_as(record: ServiceRecord, request: Request) -> str | None:
    """Return the id of the request by which ``record`` holds what is asked for, None where it does not.

    A run that died and is begun again asks under its own id, and finds what became of that, whatever it was.
    """
    current, waiting = record.current, record.waiting
    if any(one is not None and one.request == request.id for one in (current, *record.past)):
        return request.id
    if current is not None and fulfils(current, request):
        return current.request
    return waiting.id if waiting is not None and waiting.same(request) else None


def dropped(record: ServiceRecord, request: Request) -> ServiceRecord:
    """Return the record without ``request``, if it waits; a newer one stays."""
    return record.model_copy(update={"waiting": None}) if record.waiting == request else record


def opened(record: ServiceRecord, *, run: str, at: datetime) -> ServiceRecord:
    """Return the record with what waited on its way; raises ``Conflict`` while another release is."""
    if record.current is not None:
        raise Conflict(f"{record.current.release.name} is still on its way.", remedy="Wait until it has ended.")
    request = record.waiting
    if request is None:
        raise Conflict(f"Nothing waits to be done for {record.service}.", remedy="Another run may have done it.")
    new = request.kind is Kind.RELEASE
    release = request.release.model_copy(update={"number": record.next_number}) if new else request.release
    progress = Progress(
        kind=request.kind,
        release=release,
        run=run,
        request=request.id,
        actor=request.actor,
        reason=request.reason,
        opened_at=at,
    )
    number = record.next_number + new
    return record.model_copy(update={"current": progress, "waiting": None, "next_number": number})


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
    until: datetime | None = None,
    question: str = "",
    dark: bool = False,
    outage: bool = False,
) -> ServiceRecord:
    """Return the record with what ``step`` did, its verdicts, and what they mean for the release.

    What could not be measured becomes a question, as ``question`` does, to be answered by ``until``.  ``dark`` says
    that moving back found no release that could take the traffic, ``outage`` that the live one has to go first.
    """
    progress = on_its_way(record)
    failure, text = judge(progress, step, checks), question or doubt(progress.kind, step, checks)
    if failure is not None:
        record = broken(record, step, failure, at=at)
    else:
        record = _with_traffic(_with_step(record, step, StepState.DONE, at, detail), step, dark=dark)
        if outage:
            record = _with(record, outage=True)
        if text:
            record = _with(record, question=Question(step=step, text=text, asked_at=at, until=until or at))
    return _with(record, checks=(*_others(progress, checks), *checks))


def answered(record: ServiceRecord, approval: Approval) -> ServiceRecord:
    """Return the record with a person's answer; raises ``NotFound`` when nothing, or something else, is asked."""
    progress = record.current
    if progress is None or progress.question is None or progress.question.step is not approval.step:
        raise NotFound(f"Nothing of {record.service} waits for this answer.", remedy="`slipway explain` says why.")
    record = _with(record, question=None, approvals=(*progress.approvals, approval))
    if approval.granted:
        return record
    why = f": {approval.why}" if approval.why else ""
    reason = f"{approval.who} refused it{why}"
    return _with(record, failure=Failure(step=approval.step, outcome=Outcome.REFUSED, reason=reason))


def broken(
    record: ServiceRecord, step: StepName, failure: Failure | None, *, at: datetime, detail: str = ""
) -> ServiceRecord:
    """Return the record with ``step`` failed; with a ``failure`` the release is to be undone."""
    record = _with_step(record, step, StepState.FAILED, at, failure.reason if failure else detail)
    return _with(record, failure=failure) if failure else record


def adopted(record: ServiceRecord, run: str) -> ServiceRecord:
    """Return the record with the release on its way carried by another run."""
    return _with(record, run=run)


def gave_way(record: ServiceRecord) -> ServiceRecord:
    """Return the record with the release on its way given up for what waits, if it still can be."""
    progress, request = on_its_way(record), record.waiting
    if request is None or progress.failure is not None or not gives_way(progress, request):
        return record
    who = f" by {request.actor}" if request.actor else ""
    reason = f"A newer request{who} for commit {request.release.commit[:12]} took its place."
    return _with(record, question=None, failure=Failure(step=None, outcome=Outcome.SUPERSEDED, reason=reason))


def abandoned(record: ServiceRecord, reason: str) -> ServiceRecord:
    """Return the record with the release on its way given up by a person.

    What is being undone already stays so, and what leads back is not turned round: both end as they were to.
    """
    progress = on_its_way(record)
    if progress.failure is not None or progress.kind in LEADS_BACK:
        return record
    return _with(record, question=None, failure=Failure(step=None, outcome=Outcome.REFUSED, reason=reason))


def with_checks(record: ServiceRecord, checks: tuple[CheckResult, ...]) -> ServiceRecord:
    """Return the record with verdicts that change nothing any more."""
    return _with(record, checks=(*_others(on_its_way(record), checks), *checks))


def ending(record: ServiceRecord, outcome: Outcome, *, at: datetime) -> Progress:
    """Return the release on its way as it will be in the ledger."""
    return on_its_way(record).model_copy(update={"outcome": outcome, "closed_at": at})


def closed(record: ServiceRecord, last: Progress, ledger: LedgerHead) -> ServiceRecord:
    """Return the record with the release on its way ended as ``last``, which is the newest entry of the ledger."""
    on_its_way(record)
    past = (*record.past, last)[-PAST_KEPT:]
    past = (*map(_without_evidence, past[:-PAST_WHOLE]), *past[-PAST_WHOLE:])
    return record.model_copy(update={"current": None, "past": past, "ledger": ledger})


def on_its_way(record: ServiceRecord) -> Progress:
    """Return the release on its way; raises ``Conflict`` when another run has ended it."""
    if record.current is None:
        raise Conflict(f"No release of {record.service} is on its way.", remedy="Start one.")
    return record.current


def _without_evidence(past: Progress) -> Progress:
    """Return an ended release without what the ledger and its page hold anyway."""
    checks = (check.model_copy(update={"evidence": (), "examples": ()}) for check in past.checks)
    return past.model_copy(update={"checks": tuple(checks)})


def _others(progress: Progress, checks: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    """Return the verdicts that stay: a step that is repeated gives its own anew."""
    names = {check.name for check in checks}
    return tuple(check for check in progress.checks if check.name not in names)


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
    if record.live == progress.release and progress.kind is not Kind.RESTORE:
        return record.model_copy(update={"live": record.previous, "previous": progress.kept_warm})
    return record
