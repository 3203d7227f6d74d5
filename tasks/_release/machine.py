"""What to do next: a pure function of the record and of what the target shows.

Every flow is a loop around ``next_action``, so a run that dies is finished by any later one: the record says what
was begun and what ended, the target says what is there, and together they have exactly one answer.  Repeating an
action is harmless, because each effect first looks at what exists.  Undoing moves traffic first, then removes the
candidate, and writes the outcome last.

A newer request takes the place of a release that has not begun to shift traffic; any other waits for its end.  A
question to a person stops everything but that and the answer.
"""

from collections.abc import Mapping
from enum import StrEnum

from tasks.records import (
    CheckResult,
    Failure,
    Kind,
    Outcome,
    Progress,
    Request,
    ServiceRecord,
    StepName,
    StepState,
    Value,
    Verdict,
)

PLANS = {
    Kind.RELEASE: (
        StepName.ROOM,
        StepName.MIRROR,
        StepName.START,
        StepName.READY,
        StepName.SMOKE,
        StepName.QUALITY,
        StepName.PAIRED,
        StepName.PERFORMANCE,
        StepName.OWN,
        StepName.APPROVE,
        StepName.SHIFT,
        StepName.BAKE,
        StepName.TIDY,
        StepName.RECEIPT,
    ),
    Kind.PROMOTE: (
        StepName.ROOM,
        StepName.START,
        StepName.READY,
        StepName.SMOKE,
        StepName.SHIFT,
        StepName.BAKE,
        StepName.TIDY,
        StepName.RECEIPT,
    ),
    Kind.ROLL_BACK: (StepName.ROOM, StepName.START, StepName.READY, StepName.SHIFT, StepName.RECEIPT),
    Kind.RESTORE: (
        StepName.ROOM,
        StepName.START,
        StepName.READY,
        StepName.SMOKE,
        StepName.SHIFT,
        StepName.RECEIPT,
    ),
}
"""The steps of each kind in their order.  A roll back is as short as it can be: what it leads to was live before."""

FORWARD = PLANS[Kind.RELEASE]
NEEDS_CANDIDATE = FORWARD[FORWARD.index(StepName.READY) :]
NEEDS_TRAFFIC = (StepName.BAKE, StepName.TIDY, StepName.RECEIPT)
LEADS_BACK = (Kind.ROLL_BACK, Kind.RESTORE)
CLEANING = (StepName.TIDY,)
"""Steps after the decision: what fails there is recorded and left at that."""


class Health(StrEnum):
    """What a target says of one release."""

    STARTING = "starting"
    HEALTHY = "healthy"
    FAILED = "failed"
    REMOVING = "removing"


class Placement(Value):
    """One release as the target shows it; ``live`` when the live address leads to it.

    ``edited`` when somebody else changed what it is, however well it answers.
    """

    health: Health
    live: bool = False
    draining: bool = False
    message: str = ""
    edited: bool = False


class Observed(Value):
    """Everything a target shows of one service, by release name.

    With ``lasting``, what was started stays until somebody removes it: one that is gone was removed on purpose, and
    is not started over that.
    """

    placements: Mapping[str, Placement] = {}
    lasting: bool = False

    @property
    def live(self) -> str | None:
        """Return the release that the live address leads to."""
        return next((name for name, placement in self.placements.items() if placement.live), None)


class ActionKind(StrEnum):
    """Begin what waits, do a step, wait for a person, give way to a newer request, write the end, or nothing."""

    OPEN = "open"
    STEP = "step"
    ASK = "ask"
    GIVE_WAY = "give_way"
    CLOSE = "close"
    IDLE = "idle"


class Action(Value):
    """One next action; ``step`` for ``ActionKind.STEP``, ``outcome`` for ``ActionKind.CLOSE``."""

    kind: ActionKind
    step: StepName | None = None
    outcome: Outcome | None = None


def next_action(record: ServiceRecord, observed: Observed) -> Action:
    """Return the one thing to do now; total, and idle only when nothing is on its way or asked for."""
    progress = record.current
    if progress is None:
        return Action(kind=ActionKind.OPEN if record.waiting else ActionKind.IDLE)
    if progress.failure is not None:
        return _undo(record, progress, progress.failure, observed)
    if record.waiting is not None and gives_way(progress, record.waiting):
        return Action(kind=ActionKind.GIVE_WAY)
    if progress.question is not None:
        return Action(kind=ActionKind.ASK)
    undone = next((step for step in PLANS[progress.kind] if not _settled(progress, step)), None)
    step = _repair(undone, progress, observed)
    if step is None:
        return Action(kind=ActionKind.CLOSE, outcome=Outcome.PROMOTED)
    return Action(kind=ActionKind.STEP, step=step)


def gives_way(progress: Progress, request: Request) -> bool:
    """Return whether a release ends for a newer request: only before it has begun to shift traffic.

    What leads back to a release that was live before is never given up half-way.
    """
    return (
        progress.kind not in LEADS_BACK and progress.step(StepName.SHIFT) is None and not fulfils(progress, request)
    )


def fulfils(progress: Progress, request: Request) -> bool:
    """Return whether a release on its way is what ``request`` asks for."""
    asked = Request(id="", kind=progress.kind, release=progress.release, at=request.at)
    return progress.failure is None and asked.same(request)


def _settled(progress: Progress, step: StepName) -> bool:
    recorded = progress.step(step)
    ended_badly = recorded is not None and recorded.state is StepState.FAILED
    return progress.done(step) or (step in CLEANING and ended_badly)


def _repair(step: StepName | None, progress: Progress, observed: Observed) -> StepName | None:
    """Return an earlier step where the target no longer shows what ``step`` (none: the end) builds on."""
    if step is not None and step not in NEEDS_CANDIDATE:
        return step
    placement = observed.placements.get(progress.release.name)
    if placement is None:
        return StepName.READY if observed.lasting and progress.done(StepName.START) else StepName.START
    if placement.health is not Health.HEALTHY:
        return StepName.READY
    if (step is None or step in NEEDS_TRAFFIC) and not placement.live:
        return StepName.SHIFT
    return step


def _undo(record: ServiceRecord, progress: Progress, failure: Failure, observed: Observed) -> Action:
    """Move traffic back, remove the candidate, say how it ended; what was kept warm before it came stays.

    Where the live release was removed to make room, it has to come back whatever had been reached.
    """
    name = progress.release.name
    shifted = progress.step(StepName.SHIFT) is not None
    came = shifted or progress.kind is Kind.RELEASE
    led = shifted or (progress.outage and progress.step(StepName.START) is not None)
    if (came and observed.live == name) or (led and not progress.done(StepName.MOVE_BACK)):
        return Action(kind=ActionKind.STEP, step=StepName.MOVE_BACK)
    removal = progress.step(StepName.REMOVE)
    begun = removal is not None and removal.state is StepState.STARTED
    kept = progress.release in (record.live, record.previous)
    if (begun or name in observed.placements) and observed.live != name and not kept:
        return Action(kind=ActionKind.STEP, step=StepName.REMOVE)
    outcome = Outcome.ROLLED_BACK if progress.done(StepName.SHIFT) else failure.outcome
    return Action(kind=ActionKind.CLOSE, outcome=outcome)


def judge(progress: Progress, step: StepName, checks: tuple[CheckResult, ...]) -> Failure | None:
    """Return why these checks stop the release, or ``None`` when none of them failed.

    A receipt with a loss does not undo what leads back, for there is nothing better to lead to, nor a release whose
    spec had consented to an outage.
    """
    if step is StepName.RECEIPT and (progress.kind in LEADS_BACK or progress.outage):
        return None
    failed = [check for check in checks if check.verdict is Verdict.FAIL]
    if not failed:
        return None
    return Failure(step=step, outcome=Outcome.REFUSED, reason=said(failed))


def doubt(kind: Kind, step: StepName, checks: tuple[CheckResult, ...]) -> str:
    """Return what could not be measured: a person decides about that, because inconclusive never promotes.

    After the shift there is nothing to hold; what was doubtful then is in the record and in the report.
    """
    if step in NEEDS_TRAFFIC or kind in LEADS_BACK:
        return ""
    return said([check for check in checks if check.verdict is Verdict.INCONCLUSIVE])


def said(checks: list[CheckResult]) -> str:
    """Return what checks say, in one line."""
    return "; ".join(f"{check.name}: {check.summary}" for check in checks)
