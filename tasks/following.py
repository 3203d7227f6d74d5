"""Follows a release from outside its run: by the record, which is the truth, and by the run's state.

What is shown is what is durable, so a watcher that comes late or twice sees the same.
"""

from collections.abc import Callable, Iterator
from uuid import UUID

from tasks._clock import Clock
from tasks._journal import Journal
from tasks._store import open_store
from tasks.errors import TransientError
from tasks.records import Progress, ServiceRecord, Step, StepState, Value
from tasks.runs import RunState, read_run
from tasks.settings import Settings

LOOK_EVERY = 0.5
"""Seconds between two looks at the record."""


class RunEnd(Value):
    """How a release run ended; ``release`` is absent when the run ended before it opened one."""

    state: str
    message: str
    good: bool
    release: Progress | None = None


class Follower:
    """Reads the record of ``service`` and yields each step once, when it has ended."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._journal = Journal(open_store(settings.store), service)
        self._before = len(self._journal.record.past)
        self._shown: set[tuple[str, str]] = set()

    @property
    def record(self) -> ServiceRecord:
        """Return the record as it was last read."""
        return self._journal.record

    def ended(self) -> Progress | None:
        """Return the release that ended last since this follower began, if one did."""
        return self.record.past[-1] if len(self.record.past) > self._before else None

    def news(self) -> Iterator[tuple[Progress, Step]]:
        """Read the record and yield the steps that have ended since the last time."""
        self._journal.reload()
        current = (self.record.current,) if self.record.current else ()
        for progress in (*self.record.past[self._before :], *current):
            for step in progress.steps:
                key = (progress.release.name, step.name.value)
                if step.state is not StepState.STARTED and key not in self._shown:
                    self._shown.add(key)
                    yield progress, step

    def follow(
        self,
        run: UUID,
        on_step: Callable[[Progress, Step], None],
        on_look: Callable[[ServiceRecord], None] = lambda _record: None,
        clock: Clock | None = None,
    ) -> RunEnd:
        """Call ``on_step`` for each step as it ends, until ``run`` has ended."""
        clock = clock or Clock()
        while True:
            state = self._state(run)
            for progress, step in self.news():
                on_step(progress, step)
            on_look(self.record)
            if state is not None and state.final:
                return RunEnd(state=state.name, message=state.message, good=state.good, release=self.ended())
            clock.sleep(LOOK_EVERY)

    def _state(self, run: UUID) -> RunState | None:
        try:
            return read_run(self._settings.prefect_api, run)
        except TransientError:
            return None
