"""Follows a run from outside it: by the record, which is the truth, and by the run's state.

What is shown is what is durable, so a watcher that comes late or twice sees the same.  A watcher does not wait for
ever: it says when a run does not begin or Prefect does not answer, and gives up; the run itself goes on.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

from tasks._clock import Clock
from tasks._release.journal import Journal
from tasks._release.news import News, news_of
from tasks._stores.store import open_store
from tasks.errors import CandidateFailed, Conflict, Refused, SlipwayError, TransientError, Unreachable
from tasks.records import Approval, Outcome, Progress, Question, ServiceRecord, Step, Value
from tasks.runs import RunState, read_run
from tasks.settings import Settings

CLOCK = Clock()
LOOK_EVERY = 0.5
"""Seconds between two looks at the record."""
SILENCE = 120.0
"""Seconds without an answer of Prefect's or the store's after which following ends."""
BEGIN_WITHIN = 300.0
"""Seconds within which a worker takes up a run that waits for nothing else."""
CODES = {
    Outcome.REFUSED: Refused.exit_code,
    Outcome.FAILED: CandidateFailed.exit_code,
    Outcome.ROLLED_BACK: CandidateFailed.exit_code,
    Outcome.SUPERSEDED: Conflict.exit_code,
}


class RunEnd(Value):
    """How a run ended; ``release`` is absent when the run ended none.

    ``superseded`` says that a newer request took its place, before its release began or afterwards.
    """

    message: str
    good: bool
    release: Progress | None = None
    superseded: bool = False

    @property
    def exit_code(self) -> int:
        """Return what a command that watched the run exits with."""
        if self.good:
            return 0
        if self.superseded:
            return CODES[Outcome.SUPERSEDED]
        outcome = self.release.outcome if self.release else None
        return CODES.get(outcome, SlipwayError.exit_code) if outcome else SlipwayError.exit_code


class Follower:
    """Reads the record of ``service`` and yields each thing that happens once, when it is written down."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._store = open_store(settings.store)
        self._journal = Journal(self._store, service)
        self._before = {progress.opened_at for progress in self.record.past}
        self._shown: set[tuple[object, ...]] = set()
        self._waited: set[str] = set()

    def close(self) -> None:
        """Let go of the store's connections."""
        self._store.close()

    @property
    def record(self) -> ServiceRecord:
        """Return the record as it was last read."""
        return self._journal.record

    def news(self) -> Iterator[tuple[Progress, News]]:
        """Read the record and yield what is new: steps that have ended, questions to a person, and their answers.

        A release that takes traffic several times is as many stories, told apart by their beginning.
        """
        self._journal.reload()
        if self.record.waiting is not None:
            self._waited.add(self.record.waiting.id)
        for progress in (*self._ended_since(), *((self.record.current,) if self.record.current else ())):
            for one, key in news_of(progress):
                if (progress.opened_at, *key) not in self._shown:
                    self._shown.add((progress.opened_at, *key))
                    yield progress, one

    def follow(
        self,
        run: UUID,
        on_step: Callable[[Progress, Step], None],
        on_state: Callable[[RunState], None] = lambda _state: None,
        on_look: Callable[[ServiceRecord], None] = lambda _record: None,
        on_person: Callable[[Progress, Question | Approval], None] = lambda _progress, _said: None,
        pause: Callable[[float], None] = CLOCK.sleep,
        state_of: Callable[[str, UUID], RunState] = read_run,
    ) -> RunEnd:
        """Call back for each step as it ends, each question and answer, and each state of the run, to its end.

        ``pause`` waits so many seconds between two looks; what it raises ends the following.  ``state_of`` tells the
        state of the run, by the address of Prefect's API.  Raises ``Unreachable`` when nothing answers for
        ``SILENCE`` seconds, or nobody takes the run up.
        """
        clock, state = CLOCK, None
        begun = heard = clock.monotonic()
        while True:
            try:
                now = state_of(self._settings.prefect_api, run)
                for progress, one in self.news():
                    on_step(progress, one) if isinstance(one, Step) else on_person(progress, one)
                heard = clock.monotonic()
            except TransientError:
                if clock.monotonic() - heard > SILENCE:
                    raise
                pause(LOOK_EVERY)
                continue
            if now != state:
                on_state(now)
            state = now
            on_look(self.record)
            if state.final:
                return self._end(run, state)
            if state.begun:
                begun = clock.monotonic()
            if clock.monotonic() - begun > BEGIN_WITHIN:
                raise Unreachable(
                    f"No worker has taken up the flow run {run} within {BEGIN_WITHIN:.0f} s.",
                    remedy="`slipway up` repairs the embedded worker, which then runs it.",
                )
            pause(LOOK_EVERY)

    def _end(self, run: UUID, state: RunState) -> RunEnd:
        release = self._release_of(str(run), state.message)
        if release is None:
            superseded = not state.good and str(run) in self._waited and not self._concerns(str(run))
        else:
            superseded = release.outcome is Outcome.SUPERSEDED
        message = state.message or f"The flow run {run} ended as {state.name}."
        return RunEnd(message=message, good=state.good, release=release, superseded=superseded)

    def _release_of(self, run: str, message: str) -> Progress | None:
        """Return the release that the run asked for, or carried, or, when another carried the same, that it names."""
        past = tuple(reversed(self.record.past))
        mine = (
            *(one for one in past if one.request == run),
            *(one for one in past if one.run == run),
            *(one for one in self._ended_since() if one.release.name in message.split()),
        )
        return next(iter(mine), None)

    def _ended_since(self) -> Iterator[Progress]:
        return (progress for progress in self.record.past if progress.opened_at not in self._before)

    def _concerns(self, run: str) -> bool:
        current, waiting = self.record.current, self.record.waiting
        return run in (current.request if current else "", waiting.id if waiting else "")
