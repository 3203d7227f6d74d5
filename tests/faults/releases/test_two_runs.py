"""Two runs of one service at once, and one that was taken for dead and wakes: exactly one acts."""

import signal

import pytest

from tasks.records import Outcome, StepName
from tests.faults.releases.stage import FENCED_OFF, Stage, asking

pytestmark = pytest.mark.slow

LIFETIME_S = 2.0
"""Of a lease, for runs that are stopped for longer."""
PROCESSES, ASKS = 20, 5


def test_two_runs_for_one_commit_make_one_release(stage: Stage) -> None:
    """Both see it end; only one of them carried it."""
    before, replicas, request = stage.record(), stage.cluster.made(), stage.wanted()

    runs = [stage.begin(asking(request.release)) for _ in range(2)]
    ended = [one for run in runs for one in run.ended() if one]

    assert {Outcome.PROMOTED} == {one.outcome for one in ended}
    assert 1 == len({one.release.name for one in ended})
    assert before.next_number + 1 == stage.record().next_number
    assert replicas + 1 == stage.cluster.made()


def test_a_newer_commit_takes_the_place_of_one_that_has_not_shifted(stage: Stage) -> None:
    """The older one ends superseded and its candidate is gone; the newer one is live."""
    stage.start_slowly(1.0)
    older, newer = stage.wanted(), stage.wanted()
    first = stage.begin(older)
    stage.await_that(lambda: (current := stage.record().current) and current.step(StepName.READY))

    second = stage.carry(newer)

    superseded = first.ended()[0]
    assert superseded is not None
    assert (Outcome.SUPERSEDED, None) == (superseded.outcome, superseded.step(StepName.SHIFT))
    assert (Outcome.PROMOTED, newer.release.commit) == (second.outcome, stage.commit())
    assert superseded.release.name not in stage.cluster.names()


def test_a_newer_commit_waits_for_one_that_has_shifted(stage: Stage) -> None:
    """Both become live, one after the other."""
    older, newer = stage.wanted(bake={"seconds": 1.5, "interval": 1.0}), stage.wanted()
    first = stage.begin(older)
    stage.await_that(lambda: (current := stage.record().current) and current.step(StepName.BAKE))

    second = stage.carry(newer)

    assert [Outcome.PROMOTED] == [one.outcome for one in first.ended() if one]
    assert (Outcome.PROMOTED, newer.release.commit) == (second.outcome, stage.commit())


@pytest.mark.parametrize(
    "boundary", ["opened", "mirror:effect", "start:intent", "shift:intent", "bake:intent", "ledger"]
)
def test_a_run_that_was_stopped_and_wakes_touches_nothing(stage: Stage, boundary: str) -> None:
    """It was taken for dead and its release was finished by another one; it ends, and says so."""
    before, replicas, request = stage.record(), stage.cluster.made(), stage.wanted()
    asleep = stage.begin(request, stop_at=boundary, lifetime_s=LIFETIME_S)
    stage.await_that(asleep.has_stopped)
    ended = stage.begin(asking(request.release), lifetime_s=LIFETIME_S).ended()[0]
    after, puts = stage.record(), stage.cluster.changes()

    asleep.send(signal.SIGCONT)

    assert FENCED_OFF == asleep.exit(), asleep.said()
    assert puts == stage.cluster.changes()
    assert after == stage.record()
    assert ended is not None
    assert (Outcome.PROMOTED, request.release.commit) == (ended.outcome, stage.commit())
    assert replicas + 1 == stage.cluster.made()
    assert before.ledger.sequence + 1 == after.ledger.sequence


def test_a_run_that_wakes_between_two_steps_sees_what_became_of_its_release(stage: Stage) -> None:
    """It reads the record before it does anything, and there another one has written the end."""
    request = stage.wanted()
    asleep = stage.begin(request, stop_at="approve:outcome", lifetime_s=LIFETIME_S)
    stage.await_that(asleep.has_stopped)
    ended = stage.begin(asking(request.release), lifetime_s=LIFETIME_S).ended()
    after, puts = stage.record(), stage.cluster.changes()

    asleep.send(signal.SIGCONT)

    assert ended == asleep.ended()
    assert (after, puts) == (stage.record(), stage.cluster.changes())


def test_nobody_takes_over_from_a_run_that_lives(stage: Stage) -> None:
    """It is slow, for longer than the lease lasts, and renews it all the while."""
    stage.start_slowly(4)
    request = stage.wanted(deadlines={"ready": 10, "request": 5})
    slow = stage.begin(request, lifetime_s=LIFETIME_S)
    stage.await_that(lambda: stage.record().current)

    stage.begin(asking(request.release), lifetime_s=LIFETIME_S).ended()

    ended = slow.ended()[0]
    assert ended is not None
    assert (f"run-of-{slow.process.pid}", Outcome.PROMOTED) == (ended.run, ended.outcome)


def test_a_hundred_requests_for_one_commit_make_one_release(stage: Stage) -> None:
    """Each of them is told of the same end."""
    before, replicas, request = stage.record(), stage.cluster.made(), stage.wanted()

    runs = [stage.begin(asking(request.release), asks=ASKS) for _ in range(PROCESSES)]
    ended = [one for run in runs for one in run.ended()]

    names = {one.release.name for one in ended if one}
    assert PROCESSES * ASKS == len(ended)
    assert {f"chat-r{before.next_number}"} == names
    assert before.next_number + 1 == stage.record().next_number
    assert replicas + 1 == stage.cluster.made()
