"""The release engine: takes requests, holds the lease, and does the next action until the end.

What to do is decided by ``next_action``, how it is done is in ``_performing`` and ``_steps``.  What the loop itself
needs, the record and the target, may be away for a while; it waits for them, because a release left
half-way helps nobody.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from tasks._release import transitions
from tasks._release.fenced import Fenced
from tasks._release.journal import Journal, evidence_key
from tasks._release.lease import HeldLease, take_lease
from tasks._release.machine import Action, ActionKind, Health, Observed, gives_way, next_action
from tasks._release.performing import Performer
from tasks._release.target import check_kind
from tasks._release.world import World
from tasks.errors import TransientError
from tasks.records import Approval, CheckResult, Kind, Progress, Question, Request, ServiceRecord, StepName

PATIENCE = 900.0
"""Seconds that the record or the target may be away, on top of each request's own retries, before a run gives up."""
PAUSE = 5.0
"""Seconds between two tries while something is away."""
TURN = 1.0
"""Seconds between two looks whether the lease is free, or a person has answered."""

log = logging.getLogger(__name__)


class Engine:
    """Carries the releases of one service from one recorded state to the next, as the run called ``run``."""

    def __init__(self, world: World, service: str, *, run: str) -> None:
        self.service, self.run = service, run
        self._world = world
        self._journal = Journal(world.store, service)
        self._performer = Performer(world, self._journal)
        self._told: Question | None = None

    @property
    def record(self) -> ServiceRecord:
        """Return the record as this engine last read or wrote it."""
        return self._journal.record

    @property
    def progress(self) -> Progress:
        """Return the release on its way; raises ``Conflict`` when there is none."""
        return transitions.on_its_way(self.record)

    def observe(self) -> Observed:
        """Return what the target shows of the service."""
        return self._world.target.observe(self.service)

    def next(self) -> Action:
        """Return what is to be done now."""
        return next_action(self.record, self.observe())

    def ask(self, request: Request) -> str | None:
        """Ask for something; return the id of the request to ``carry``, None when it is so already.

        That is an earlier request's where it asks for the same.  Raises ``BadInput`` for a release whose spec names
        another kind of target.
        """
        check_kind(self._world.target, request.release)
        record = self._journal.reload()
        known = transitions.known_as(record, request)
        if known is not None:
            log.info("what is asked for is known already, as request %s", known)
            return known
        if record.current is None and record.waiting is None and self._is_surely_so(request):
            return None
        record = self._journal.change(lambda record: transitions.asked(record, request))
        self._world.cross("asked")
        return transitions.known_as(record, request)

    def give_up(self, reason: str) -> str | None:
        """Have the release on its way undone; return the id of its request, None when nothing is on its way."""
        if self._journal.reload().current is None:
            return None
        return transitions.on_its_way(
            self._journal.change(lambda record: transitions.abandoned(record, reason))
        ).request

    def answer(self, approval: Approval) -> None:
        """Write down a person's answer to what is asked; raises ``NotFound`` when nothing is."""
        self._journal.reload()
        self._journal.change(lambda record: transitions.answered(record, approval))

    def evidence(self, progress: Progress, name: str) -> bytes | None:
        """Return a piece of evidence about a release, as ``evidence_key`` says; None where there is none."""
        found = self._world.store.get(evidence_key(progress, name))
        return found[0] if found else None

    def onlooker(self) -> Callable[[Question], bool]:
        """Return what tells, of the record as it is then, whether a question needs no answer any more."""
        journal = Journal(self._world.store, self.service)

        def look(question: Question) -> bool:
            record = journal.reload()
            current, waiting = record.current, record.waiting
            return current is None or current.question != question or bool(waiting and gives_way(current, waiting))

        return look

    def carry(
        self,
        request: str | None,
        perform: Callable[[StepName], object] | None = None,
        consult: Callable[[Question], None] | None = None,
    ) -> Progress | None:
        """See the request called ``request`` to its end; return how it ended, None when a newer one took its place.

        Whatever an earlier run left is ended first; with ``request`` None that is all that is done, and what ended
        last is returned.  Waits while another run holds the lease.  ``perform`` stands around the engine's own and
        calls it; ``consult`` waits a while for a person's answer.  Raises ``TransientError`` when the record or the
        target stayed away longer than ``PATIENCE``, ``Conflict`` when another run has taken over.
        """
        told, clock = "", self._world.clock
        well = clock.monotonic()
        while self._concerns(request):
            try:
                lease = take_lease(self._world.store, self.service, self.run, above=self.record.fence)
                well = clock.monotonic()
            except TransientError as error:
                self._bear(error, well)
                continue
            if isinstance(lease, HeldLease):
                with lease.kept():
                    self._drive(lease, request, perform or self.perform, consult or self._await_answer)
                break
            if lease.run != told:
                log.info("waits: the run %s is at work on %s", lease.run, self.service)
                told = lease.run
            clock.sleep(TURN)
            self._reload()
        return self.ended(request)

    def perform(self, step: StepName) -> tuple[CheckResult, ...]:
        """Do one step of the release on its way; see ``Performer.perform``."""
        return self._performer.perform(step)

    def ended(self, request: str | None) -> Progress | None:
        """Return how a request ended, if it has; with None, what ended last."""
        past = reversed(self.record.past)
        return next((one for one in past if request is None or one.request == request), None)

    def _concerns(self, request: str | None) -> bool:
        """Return whether there is still something to be done for a request, None for any."""
        record = self.record
        current, waiting = record.current, record.waiting
        if request is None:
            return current is not None
        return request in (current.request if current else None, waiting.id if waiting else None)

    def _drive(
        self,
        lease: HeldLease,
        request: str | None,
        perform: Callable[[StepName], object],
        consult: Callable[[Question], None],
    ) -> None:
        fenced = replace(self._world, target=Fenced(self._world.target, lease.renew))
        self._performer = Performer(fenced, self._journal)
        self._take_over(lease)
        clock = self._world.clock
        well = clock.monotonic()
        while self._concerns(request):
            try:
                self._act(self.next(), perform, consult)
                well = clock.monotonic()
            except TransientError as error:
                self._bear(error, well)

    def _take_over(self, lease: HeldLease) -> None:
        self._world.cross("leased")
        self._journal.reload()
        self._journal.fence(lease.fence)
        if self.record.current is not None:
            log.info("carries on %s, which an earlier run left on its way", self.progress.release.name)
            self._journal.change(lambda record: transitions.adopted(record, self.run))

    def _act(
        self, action: Action, perform: Callable[[StepName], object], consult: Callable[[Question], None]
    ) -> None:
        match action.kind:
            case ActionKind.OPEN:
                self._open()
            case ActionKind.GIVE_WAY:
                self._journal.change(transitions.gave_way)
            case ActionKind.ASK:
                self._consult(consult)
            case ActionKind.CLOSE if action.outcome is not None:
                self._performer.close(action.outcome)
            case ActionKind.STEP if action.step is not None:
                self._performer.watch()
                perform(action.step)
                self._journal.reload()

    def _open(self) -> None:
        request = self.record.waiting
        if request is not None and self._is_so(request):
            self._journal.change(lambda record: transitions.dropped(record, request))
            return
        at = self._world.clock.now()
        self._journal.change(lambda record: transitions.opened(record, run=self.run, at=at))
        self._world.cross("opened")

    def _is_surely_so(self, request: Request) -> bool:
        """Return whether what is asked for is so already; a target that is away does not keep anybody from asking."""
        try:
            return self._is_so(request)
        except TransientError as error:
            log.warning("asks without having seen what is live: %s", error)
            return False

    def _is_so(self, request: Request) -> bool:
        """Return whether what is asked for is live and healthy already."""
        live = self.record.live
        if live is None or request.kind is Kind.ROLL_BACK:
            return False
        named = (
            request.release
            if request.kind is not Kind.RELEASE
            else request.release.model_copy(update={"number": live.number})
        )
        placement = self.observe().placements.get(live.name)
        return named == live and placement is not None and placement.live and placement.health is Health.HEALTHY

    def _consult(self, consult: Callable[[Question], None]) -> None:
        question = self.progress.question
        if question is None:
            return
        now = self._world.clock.now()
        if now < question.until:
            if self._world.witness is not None:
                self._world.witness.close()  # nothing moves until somebody answers, which may take a day
            if question != self._told:
                self._told = question
                self._world.tell(self.progress)
            consult(question)
            self._journal.reload()
            return
        silence = Approval(step=question.step, granted=False, who="nobody", why="no answer came in time", at=now)
        self._journal.change(
            lambda record: transitions.answered(record, silence) if _asks(record, question) else record
        )

    def _await_answer(self, _question: Question) -> None:
        self._world.clock.sleep(TURN)

    def _bear(self, error: TransientError, well: float) -> None:
        """Wait for what is away; raises ``error`` when all was well too long ago, a moment of the monotonic clock."""
        if self._world.clock.monotonic() - well > PATIENCE:
            raise error
        log.warning("waits and tries again: %s", error)
        self._world.clock.sleep(PAUSE)
        self._reload()

    def _reload(self) -> None:
        """Read the record again: a write whose answer was lost may have happened."""
        try:
            self._journal.reload()
        except TransientError as error:
            log.warning("%s", error)


def _asks(record: ServiceRecord, question: Question) -> bool:
    return record.current is not None and record.current.question == question
