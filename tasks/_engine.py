"""The release engine: opens a release, does its next action, and writes down each intent and outcome.

What to do is decided by ``next_action``; how each step is done is in ``_steps``.  This module joins the two with
the record, and is where a fault becomes a reason: a step that goes forward and fails starts the undoing, a step of
the undoing that fails leaves the record as it is and raises, so that the next run takes it up again.
"""

import logging

from tasks import _transitions
from tasks._journal import Journal
from tasks._machine import FORWARD, Action, Observed, next_action
from tasks._steps import World, do
from tasks.errors import Conflict, Refused, SlipwayError
from tasks.records import CheckResult, Failure, Outcome, Progress, Release, ServiceRecord, StepName

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

    def open(self, release: Release, *, run: str, reason: str) -> Progress:
        """Record that ``release`` is on its way; raises ``Conflict`` while another one is."""
        at = self._world.clock.now()
        self._journal.change(lambda record: _transitions.opened(record, release, run=run, reason=reason, at=at))
        return self.progress

    def abandon(self, reason: str) -> None:
        """Give up the release on its way; the next actions undo it."""
        self._journal.change(lambda record: _transitions.abandoned(record, reason))

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
        at = self._world.clock.now()
        self._journal.change(
            lambda record: _transitions.ended(record, step, detail=result.detail, checks=result.checks, at=at)
        )
        return result.checks

    def close(self, outcome: Outcome) -> Progress:
        """Write the end of the release on its way and return it."""
        at = self._world.clock.now()
        return self._journal.change(lambda record: _transitions.closed(record, outcome, at=at)).past[-1]

    def _break(self, step: StepName, error: Exception) -> None:
        reason = _sentence(error)
        log.warning("%s: %s failed: %s", self.progress.release.name, step.value, reason)
        outcome = Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED
        undo = step in FORWARD and step is not StepName.TIDY
        failure = Failure(step=step, outcome=outcome, reason=reason) if undo else None
        at = self._world.clock.now()
        self._journal.change(lambda record: _transitions.broken(record, step, failure, at=at, detail=reason))


def _sentence(error: Exception) -> str:
    """Return what to record of an error; a foreign one's text may hold anything, so only its kind is kept."""
    if isinstance(error, SlipwayError):
        return str(error)
    log.error("A step ended in an error that nothing expected.", exc_info=error)
    return f"An unexpected {type(error).__name__}; the log of the run has its traceback."
