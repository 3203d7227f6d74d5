"""What to do next: a pure function of the record and of what the target shows.

Every flow is a loop around ``next_action``, so a run that dies is finished by any later one: the record says what
was begun and what ended, the target says what is there, and together they have exactly one answer.  Repeating an
action is harmless, because each effect first looks at what exists.  Undoing moves traffic first, then removes the
candidate, and writes the outcome last.
"""

from collections.abc import Mapping
from enum import StrEnum

from tasks.records import (
    CheckResult,
    Failure,
    Outcome,
    Progress,
    ServiceRecord,
    StepName,
    StepState,
    Value,
    Verdict,
)

FORWARD = (
    StepName.MIRROR,
    StepName.START,
    StepName.READY,
    StepName.SMOKE,
    StepName.QUALITY,
    StepName.SHIFT,
    StepName.BAKE,
    StepName.TIDY,
)
NEEDS_CANDIDATE = FORWARD[FORWARD.index(StepName.READY) :]
NEEDS_TRAFFIC = (StepName.BAKE, StepName.TIDY)


class Health(StrEnum):
    """What a target says of one release."""

    STARTING = "starting"
    HEALTHY = "healthy"
    FAILED = "failed"
    REMOVING = "removing"


class Placement(Value):
    """One release as the target shows it; ``live`` when the live address leads to it."""

    health: Health
    live: bool = False
    draining: bool = False
    message: str = ""


class Observed(Value):
    """Everything a target shows of one service, by release name."""

    placements: Mapping[str, Placement] = {}

    @property
    def live(self) -> str | None:
        """Return the release that the live address leads to."""
        return next((name for name, placement in self.placements.items() if placement.live), None)


class ActionKind(StrEnum):
    """Do a step, write the end of the release, or nothing."""

    STEP = "step"
    CLOSE = "close"
    IDLE = "idle"


class Action(Value):
    """One next action; ``step`` for ``ActionKind.STEP``, ``outcome`` for ``ActionKind.CLOSE``."""

    kind: ActionKind
    step: StepName | None = None
    outcome: Outcome | None = None


def next_action(record: ServiceRecord, observed: Observed) -> Action:
    """Return the one thing to do now; total, and idle only when no release is on its way."""
    progress = record.current
    if progress is None:
        return Action(kind=ActionKind.IDLE)
    if progress.failure is not None:
        return _undo(progress, progress.failure, observed)
    undone = next((step for step in FORWARD if not _settled(progress, step)), None)
    step = _repair(undone, progress, observed)
    if step is None:
        return Action(kind=ActionKind.CLOSE, outcome=Outcome.PROMOTED)
    return Action(kind=ActionKind.STEP, step=step)


def _settled(progress: Progress, step: StepName) -> bool:
    """Tidying up comes after the release is decided, so a failure there is recorded and left at that."""
    recorded = progress.step(step)
    ended_badly = recorded is not None and recorded.state is StepState.FAILED
    return progress.done(step) or (step is StepName.TIDY and ended_badly)


def _repair(step: StepName | None, progress: Progress, observed: Observed) -> StepName | None:
    """Return an earlier step where the target no longer shows what ``step`` (none: the end) builds on."""
    if step is not None and step not in NEEDS_CANDIDATE:
        return step
    placement = observed.placements.get(progress.release.name)
    if placement is None:
        return StepName.START
    if placement.health is not Health.HEALTHY:
        return StepName.READY
    if (step is None or step in NEEDS_TRAFFIC) and not placement.live:
        return StepName.SHIFT
    return step


def _undo(progress: Progress, failure: Failure, observed: Observed) -> Action:
    name = progress.release.name
    shifted = progress.step(StepName.SHIFT) is not None
    if observed.live == name or (shifted and not progress.done(StepName.MOVE_BACK)):
        return Action(kind=ActionKind.STEP, step=StepName.MOVE_BACK)
    if name in observed.placements:
        return Action(kind=ActionKind.STEP, step=StepName.REMOVE)
    outcome = Outcome.ROLLED_BACK if progress.done(StepName.SHIFT) else failure.outcome
    return Action(kind=ActionKind.CLOSE, outcome=outcome)


def judge(step: StepName, checks: tuple[CheckResult, ...]) -> Failure | None:
    """Return why these checks stop the release, or ``None`` when every one of them passed.

    A check that could not measure stops it like one that failed: inconclusive never promotes.
    """
    worst = (Verdict.FAIL, Verdict.INCONCLUSIVE)
    stopping = sorted((c for c in checks if c.verdict in worst), key=lambda check: worst.index(check.verdict))
    if not stopping:
        return None
    reason = "; ".join(f"{check.name}: {check.summary}" for check in stopping)
    return Failure(step=step, outcome=Outcome.REFUSED, reason=reason)
