"""Does one action of a release under the lease: each step between its intent and its outcome, and the end.

This is where a fault becomes a reason: a step that goes forward and fails starts the undoing.  Every boundary between
two effects has a name, so that a test can end the process there.
"""

import logging

from pydantic import ValidationError

from tasks._clients.receipt import Receipt
from tasks._release import ledger, transitions
from tasks._release.journal import Journal, evidence_key
from tasks._release.judging import prompts_of
from tasks._release.machine import CLEANING, FORWARD, PLANS
from tasks._release.report import store_report
from tasks._release.step_result import StepResult, spec_of
from tasks._release.steps import do
from tasks._release.world import World
from tasks.errors import Conflict, Refused, SlipwayError, TransientError
from tasks.records import CheckResult, Failure, Outcome, Progress, StepName

GIVES_UP = frozenset({StepName.MIRROR, StepName.TIDY, StepName.RECEIPT})
"""Forward steps that end when something stays away: the Hub has had its time, and of the others nothing depends.

In any other it is the target that is away: then there is nothing to judge, and the step is done again later.
"""

log = logging.getLogger(__name__)


class Performer:
    """Acts on ``world`` for the release on its way in ``journal``."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world, self._journal = world, journal

    @property
    def progress(self) -> Progress:
        """Return the release on its way; raises ``Conflict`` when there is none."""
        return transitions.on_its_way(self._journal.record)

    def perform(self, step: StepName) -> tuple[CheckResult, ...]:
        """Do one step of the release on its way and return the verdicts it gave.

        Raises ``Conflict`` when another run owns the record, ``TransientError`` while the target is away, and
        whatever ends a step of the undoing.
        """
        begun = self._world.clock.now()
        self._journal.change(lambda record: transitions.begun(record, step, at=begun))
        self._world.cross(f"{step.value}:intent")
        try:
            result = do(step, self._world, self.progress, self._journal.record)
        except Conflict:
            raise
        except Exception as error:
            if step in FORWARD and step not in GIVES_UP and isinstance(error, TransientError):
                raise
            self._break(step, error)
            if step not in PLANS[self.progress.kind]:
                raise
            return ()
        self._world.cross(f"{step.value}:effect")
        self._end(step, result)
        self._world.cross(f"{step.value}:outcome")
        return result.checks

    def watch(self) -> None:
        """Have the witness keep requests open from the first step of a release on.

        Without a witness a release goes on, and its receipt proves nothing: no undoing must wait for a prompt file.
        """
        witness, progress = self._world.witness, self.progress
        if witness is None or progress.done(StepName.RECEIPT):
            return
        try:
            texts = tuple(prompt.prompt for prompt in prompts_of(self._world, spec_of(progress.release)).all)
            address = self._world.target.address(progress.release.service)
            witness.watch(address, progress, self._journal.record, texts)
        except (SlipwayError, OSError) as error:
            log.warning("Nobody watches what clients see: %s", error)

    def close(self, outcome: Outcome) -> None:
        """Write the end of the release on its way: to the ledger first, then to the record.

        People are told between the two: whoever takes over from a run that died there closes it, and tells, again.
        """
        check = self._world.witness.testify(self.progress) if self._world.witness else None
        if check is not None and not self.progress.done(StepName.RECEIPT):
            self._journal.change(lambda record: transitions.with_checks(record, (check,)))
        at = self._world.clock.now()
        last = transitions.ending(self._journal.record, outcome, at=at)
        head, last = ledger.append(self._world.store, self._journal.record.ledger, last)
        self._world.cross("ledger")
        self._report(last)
        self._world.tell(last)
        self._journal.change(lambda record: transitions.closed(record, last, head))
        self._world.cross("closed")

    def _report(self, last: Progress) -> None:
        """Write the page of an ended release beside its evidence; without it everything is in the record still."""
        record, store = self._journal.record, self._world.store
        before = record.previous if record.live == last.release else record.live
        try:
            found = store.get(evidence_key(last, "receipt.json"))
            store_report(store, last, Receipt.from_json(found[0]) if found else None, previous=before)
        except (SlipwayError, ValidationError) as error:
            log.warning("%s has no page: %s", last.release.name, type(error).__name__)

    def _end(self, step: StepName, result: StepResult) -> None:
        at = self._world.clock.now()
        until = at + spec_of(self.progress.release).approval.span
        self._journal.change(
            lambda record: transitions.ended(
                record,
                step,
                detail=result.detail,
                checks=result.checks,
                at=at,
                until=until,
                question=result.question,
                dark=result.dark,
                outage=result.outage,
            )
        )

    def _break(self, step: StepName, error: Exception) -> None:
        reason = _sentence(error)
        log.warning("%s: %s failed: %s", self.progress.release.name, step.value, reason)
        outcome = Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED
        undo = step in PLANS[self.progress.kind] and step not in CLEANING
        failure = Failure(step=step, outcome=outcome, reason=reason) if undo else None
        at = self._world.clock.now()
        self._journal.change(lambda record: transitions.broken(record, step, failure, at=at, detail=reason))


def _sentence(error: Exception) -> str:
    """Return what to record of an error; a foreign one's text may hold anything, so only its kind is kept."""
    if isinstance(error, SlipwayError):
        return str(error)
    log.error("A step ended in an error that nothing expected.", exc_info=error)
    return f"An unexpected {type(error).__name__}; the log of the run has its traceback."
