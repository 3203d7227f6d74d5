"""What tests do while a release is on its way: hold its run where something is to happen, and look at its end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.records import Outcome, Progress, Request, ServiceRecord, StepName
from tests.faults.releases.stage import Run, Stage


@contextmanager
def held(stage: Stage, request: Request, boundary: str) -> Iterator[Run]:
    """Have a run carry ``request`` and stand still at the boundary until the block is left."""
    run = stage.begin(request, stop_at=boundary)
    stage.await_that(run.has_stopped)
    try:
        yield run
    finally:
        run.send(signal.SIGCONT)


def end_of(run: Run) -> Progress:
    """Wait for the end of the run's release."""
    ended = run.ended()[0]
    assert ended is not None
    return ended


def await_step(stage: Stage, step: StepName) -> None:
    """Wait until the release on its way has begun a step."""
    stage.await_that(lambda: (current := stage.record().current) and current.step(step))


def assert_promoted(stage: Stage, before: ServiceRecord, ended: Progress) -> None:
    """Assert that the release is live, the one before kept, and that it was started once."""
    after = stage.record()
    assert Outcome.PROMOTED is ended.outcome, ended.failure
    assert (ended.release, before.live) == (after.live, after.previous)
    assert before.next_number + 1 == after.next_number


def assert_unharmed(stage: Stage, before: ServiceRecord, ended: Progress, *words: str) -> None:
    """Assert that the candidate is gone for a reason with these words, and that what was live still is."""
    assert ended.failure is not None, ended.outcome
    missing = [word for word in words if word not in ended.failure.reason]
    assert [] == missing, ended.failure.reason
    assert ended.release.name not in stage.cluster.names()
    assert (before.live, before.previous) == (stage.record().live, stage.record().previous)
