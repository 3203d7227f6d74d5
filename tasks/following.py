"""Follows a release from outside its run: by the record, which is the truth, and by the run's state.

What is shown is what is durable, so a watcher that comes late or twice sees the same.  A watcher does not wait for
ever: it says when a run does not begin or Prefect does not answer, and gives up; the run itself goes on.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

from tasks._clock import Clock
from tasks._journal import Journal
from tasks._stores.store import open_store
from tasks.errors import CandidateFailed, Refused, SlipwayError, TransientError, Unreachable
from tasks.records import Outcome, Progress, ServiceRecord, Step, StepState, Value
from tasks.runs import RunState, read_run
from tasks.settings import Settings

LOOK_EVERY = 0.5
"""Seconds between two looks at the record."""
SILENCE = 120.0
"""Seconds without an answer of Prefect's or the store's after which following ends."""
WAITING = "AwaitingConcurrencySlot"
"""Prefect's name for a run that waits until another one of its deployment has ended."""
BEGIN_WITHIN = 300.0
"""Seconds within which a worker takes up a run that waits for nothing else."""


class RunEnd(Value):
    """How a release run ended; ``release`` is absent when the run ended before it opened one."""

    message: str
    good: bool
    release: Progress | None = None

    @property
    def exit_code(self) -> int:
        """Return what a command that watched the run exits with."""
        if self.good:
            return 0
        outcome = self.release.outcome if self.release else None
        codes = {Outcome.REFUSED: Refused, Outcome.FAILED: CandidateFailed, Outcome.ROLLED_BACK: CandidateFailed}
        return codes[outcome].exit_code if outcome in codes else SlipwayError.exit_code


class Follower:
    """Reads the record of ``service`` and yields each step once, when it has ended."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._store = open_store(settings.store)
        self._journal = Journal(self._store, service)
        self._before = {progress.release.name for progress in self.record.past}
        self._shown: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Let go of the store's connections."""
        self._store.close()

    @property
    def record(self) -> ServiceRecord:
        """Return the record as it was last read."""
        return self._journal.record

    def news(self) -> Iterator[tuple[Progress, Step]]:
        """Read the record and yield the steps that have ended since the last time."""
        self._journal.reload()
        ended = (progress for progress in self.record.past if progress.release.name not in self._before)
        for progress in (*ended, *((self.record.current,) if self.record.current else ())):
            for step in progress.steps:
                key = (progress.release.name, step.name.value)
                if step.state is not StepState.STARTED and key not in self._shown:
                    self._shown.add(key)
                    yield progress, step

    def follow(
        self,
        run: UUID,
        on_step: Callable[[Progress, Step], None],
        on_state: Callable[[RunState], None] = lambda _state: None,
        on_look: Callable[[ServiceRecord], None] = lambda _record: None,
        clock: Clock | None = None,
    ) -> RunEnd:
        """Call ``on_step`` for each step as it ends and ``on_state`` as the run's state changes, to its end.

        Raises ``Unreachable`` when nothing answers for ``SILENCE`` seconds, or nobody takes the run up.
        """
        clock, state = clock or Clock(), None
        begun = heard = clock.monotonic()
        while True:
            try:
                now = read_run(self._settings.prefect_api, run)
                for progress, step in self.news():
                    on_step(progress, step)
                heard = clock.monotonic()
            except TransientError:
                if clock.monotonic() - heard > SILENCE:
                    raise
                clock.sleep(LOOK_EVERY)
                continue
            if now != state:
                on_state(now)
            state = now
            on_look(self.record)
            if state.final:
                return RunEnd(message=state.message, good=state.good, release=self._ended(run))
            if state.begun or state.name == WAITING:
                begun = clock.monotonic()
            if clock.monotonic() - begun > BEGIN_WITHIN:
                raise Unreachable(
                    f"No worker has taken up the flow run {run} within {BEGIN_WITHIN:.0f} s.",
                    remedy="`slipway up` repairs the embedded worker, which then runs it.",
                )
            clock.sleep(LOOK_EVERY)

    def _ended(self, run: UUID) -> Progress | None:
        return next((progress for progress in reversed(self.record.past) if progress.run == str(run)), None)


def step_line(progress: Progress, step: Step) -> str:
    """Return one line about a step that has ended."""
    mark = "ok" if step.state is StepState.DONE else "FAIL"
    return f"{progress.release.name:10} {mark:4} {step.name.value:10} {step.seconds:6.1f} s  {step.detail}"
