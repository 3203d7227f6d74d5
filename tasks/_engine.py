"""The release engine: opens a release, does its next action, and writes down each intent and outcome.

What to do is decided by ``next_action``; how each step is done is in ``_steps``.  This module joins the two with
the record, and is where a fault becomes a reason: a step that goes forward and fails starts the undoing.  What the
loop itself needs, the record and the target, may be away for a while; it waits for them, because a release left
half-way helps nobody.
"""

import logging
from collections.abc import Callable

from tasks import _transitions
from tasks._journal import Journal
from tasks._machine import FORWARD, Action, ActionKind, Health, Observed, next_action
from tasks._steps import StepResult, World, do
from tasks.errors import Conflict, Refused, SlipwayError, TransientError
from tasks.records import CheckResult, Failure, Outcome, Progress, Release, ServiceRecord, StepName

PATIENCE = 900.0
"""Seconds that the record or the target may be away, on top of each request's own retries, before a run gives up."""
PAUSE = 5.0
"""Seconds between two tries while something is away."""

log = logging.getLogger(__name__)


class Engine:
    """Carries the releases of one service from one recorded state to the next."""

    def __init__(self, world: World, service: str) -> None:
        self.service = service
        self._world = world
        self._journal = Journal(world.store, service)

    @property
    def record(self) -> ServiceRecord:
        """Return the record as this engine last read or wrote it."""
        return self._journal.record

    @property
    def progress(self) -> Progress:
        """Return the release on its way; raises ``Conflict`` when there is none."""
        return _transitions.on_its_way(self.record)

    def observe(self) -> Observed:
        """Return what the target shows of the service."""
        return self._world.target.observe(self.service)

    def next(self) -> Action:
        """Return what is to be done now."""
        return next_action(self.record, self.observe())

    def stands_in_the_way(self, wanted: Release) -> bool:
        """Return whether an earlier run left a release that must end before ``wanted`` can begin."""
        left = self.record.current
        return left is not None and (left.failure is not None or not _same(left.release, wanted))

    def give_way(self, wanted: Release) -> None:
        """Give up the release on its way for a newer wish, unless it has begun to shift traffic: then it goes on."""
        if self.progress.step(StepName.SHIFT) is None:
            reason = f"A newer request for commit {wanted.commit[:12]} took its place."
            self._journal.change(lambda record: _transitions.abandoned(record, reason))

    def begin(self, wanted: Release, *, run: str, reason: str) -> bool:
        """Record that ``wanted`` is on its way, with the next number; false when it is live and healthy already.

        The same wish that an earlier run left on its way is taken over.  Raises ``Conflict`` while another one is.
        """
        record = self.record
        if record.current is not None and not self.stands_in_the_way(wanted):
            log.info("carries on %s, which an earlier run left on its way", record.current.release.name)
            self._journal.change(lambda record: _transitions.adopted(record, run))
            return True
        if record.live is not None and _same(record.live, wanted):
            placement = self.observe().placements.get(record.live.name)
            if placement and placement.live and placement.health is Health.HEALTHY:
                return False
        release = wanted.model_copy(update={"number": record.next_number})
        at = self._world.clock.now()
        self._journal.change(lambda record: _transitions.opened(record, release, run=run, reason=reason, at=at))
        return True

    def drive(self, perform: Callable[[StepName], object] | None = None) -> Progress:
        """Do one action after the other until the release on its way has ended, and return it.

        ``perform`` stands around the engine's own and calls it.  Raises ``TransientError`` when the record or the
        target stayed away longer than ``PATIENCE``, ``Conflict`` when another run owns the record.
        """
        act, clock = perform or self.perform, self._world.clock
        well = clock.monotonic()
        while True:
            try:
                action = self.next()
                if action.kind is ActionKind.STEP and action.step is not None:
                    act(action.step)
                elif action.outcome is not None:
                    return self.close(action.outcome)
                else:
                    return self.record.past[-1]
                well = clock.monotonic()
            except TransientError as error:
                if clock.monotonic() - well > PATIENCE:
                    raise
                log.warning("waits and tries again: %s", error)
                clock.sleep(PAUSE)
                self._reload()

    def perform(self, step: StepName) -> tuple[CheckResult, ...]:
        """Do one step of the release on its way and return the verdicts it gave.

        Raises ``Conflict`` when another run owns the record, and whatever ends a step of the undoing.
        """
        begun = self._world.clock.now()
        self._journal.change(lambda record: _transitions.begun(record, step, at=begun))
        try:
            result = do(step, self._world, self.progress, self.record)
        except Conflict:
            raise
        except Exception as error:
            self._break(step, error)
            if step not in FORWARD:
                raise
            return ()
        self._end(step, result)
        return result.checks

    def close(self, outcome: Outcome) -> Progress:
        """Write the end of the release on its way and return it."""
        at = self._world.clock.now()
        return self._journal.change(lambda record: _transitions.closed(record, outcome, at=at)).past[-1]

    def _end(self, step: StepName, result: StepResult) -> None:
        at = self._world.clock.now()
        self._journal.change(
            lambda record: _transitions.ended(
                record, step, detail=result.detail, checks=result.checks, at=at, dark=result.dark
            )
        )

    def _break(self, step: StepName, error: Exception) -> None:
        reason = _sentence(error)
        log.warning("%s: %s failed: %s", self.progress.release.name, step.value, reason)
        outcome = Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED
        undo = step in FORWARD and step is not StepName.TIDY
        failure = Failure(step=step, outcome=outcome, reason=reason) if undo else None
        at = self._world.clock.now()
        self._journal.change(lambda record: _transitions.broken(record, step, failure, at=at, detail=reason))

    def _reload(self) -> None:
        """Read the record again: a write whose answer was lost may have happened."""
        try:
            self._journal.reload()
        except TransientError as error:
            log.warning("%s", error)


def _same(one: Release, other: Release) -> bool:
    """Return whether two releases are of one commit and one spec, whatever their numbers."""
    return one.model_copy(update={"number": other.number}) == other


def _sentence(error: Exception) -> str:
    """Return what to record of an error; a foreign one's text may hold anything, so only its kind is kept."""
    if isinstance(error, SlipwayError):
        return str(error)
    log.error("A step ended in an error that nothing expected.", exc_info=error)
    return f"An unexpected {type(error).__name__}; the log of the run has its traceback."
