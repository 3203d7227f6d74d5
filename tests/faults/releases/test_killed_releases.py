"""SIGKILL at every boundary of a release, one run after the other: the last one comes to the same end."""

import signal
import time
from collections.abc import Iterable

import pytest

from tasks._release.boundaries import AROUND, BOUNDARIES, MOMENTS
from tasks._release.machine import PLANS
from tasks.records import Kind, Outcome, Progress, Request, StepName
from tests.faults.releases.stage import BAD, GOOD, KILLED, TOLD_TO_GO, Stage, asking, shape

pytestmark = pytest.mark.slow

IN_A_GOOD_RELEASE = {"around": AROUND} | {
    step.value: tuple(f"{step.value}:{moment}" for moment in MOMENTS) for step in PLANS[Kind.RELEASE]
}
"""The boundaries at which runs of one release die in turn; whatever else there is, a rolled back one crosses."""

IN_THE_UNDOING = tuple(name for name in BOUNDARIES if name not in {*sum(IN_A_GOOD_RELEASE.values(), ())})
BEGINNING, ENDING = ("asked", "leased", "opened"), ("ledger", "closed")


def all_of(kind: Kind) -> tuple[str, ...]:
    """Return every boundary that a release of that kind crosses, in their order, when it goes well."""
    steps = (f"{step.value}:{moment}" for step in PLANS[kind] for moment in MOMENTS)
    return (*BEGINNING, *steps, *ENDING)


def killed_at_each(stage: Stage, request: Request, boundaries: Iterable[str]) -> Progress:
    """Have the run that carries ``request`` die and begin again, until it lives; return how it ended."""
    for boundary in boundaries:
        run = stage.begin(request, crash_at=boundary)
        assert KILLED == run.exit(), f"{boundary}\n{run.said()}"
    return stage.carry(request)


@pytest.mark.parametrize("step", IN_A_GOOD_RELEASE)
def test_a_release_whose_runs_are_killed_at_a_step_ends_as_any_other(stage: Stage, step: str) -> None:
    """However often it dies there, there is one candidate, one number and one entry in the ledger."""
    before, replicas = stage.record(), stage.cluster.made()
    request = stage.wanted()

    ended = killed_at_each(stage, request, IN_A_GOOD_RELEASE[step])

    after = stage.record()
    assert shape(before.past[-1]) == shape(ended)
    assert request.release.commit == stage.commit()
    assert replicas + 1 == stage.cluster.made()
    assert (before.next_number + 1, before.ledger.sequence + 1) == (after.next_number, after.ledger.sequence)


def test_a_run_after_one_that_died_at_the_very_end_has_nothing_to_do(stage: Stage) -> None:
    """The release is live and in the ledger, so that the same request brings no second one."""
    request = stage.wanted()
    assert KILLED == stage.begin(request, crash_at="closed").exit()
    before, puts = stage.record(), stage.cluster.changes()

    assert [None] == stage.begin(asking(request.release)).ended()

    assert before == stage.record()
    assert puts == stage.cluster.changes()


def test_a_roll_back_whose_runs_are_killed_everywhere_gets_there(stage: Stage) -> None:
    """It failed its bake: traffic is back, the candidate is gone, and only now is the end written."""
    before, name = stage.record(), stage.next_name()
    stage.answer(lambda release: BAD if release == name and stage.is_routed(name) else GOOD)

    ended = killed_at_each(stage, stage.wanted(), ("bake:outcome", *IN_THE_UNDOING, *ENDING))

    assert (Outcome.ROLLED_BACK, StepName.BAKE) == (ended.outcome, ended.failure and ended.failure.step)
    assert before.live == stage.record().live
    assert before.previous == stage.record().previous
    assert all(ended.done(StepName(name.partition(":")[0])) for name in IN_THE_UNDOING)


def test_a_refusal_whose_runs_are_killed_everywhere_gets_there(stage: Stage) -> None:
    """No client ever met the candidate, and traffic was never touched."""
    before, name = stage.record(), stage.next_name()
    stage.answer(lambda release: BAD if release == name else GOOD)
    undoing = [f"remove:{moment}" for moment in MOMENTS]

    ended = killed_at_each(stage, stage.wanted(), ("quality:effect", "quality:outcome", *undoing, *ENDING))

    assert (Outcome.REFUSED, StepName.QUALITY) == (ended.outcome, ended.failure and ended.failure.step)
    assert ended.step(StepName.SHIFT) is None
    assert ended.done(StepName.REMOVE)
    assert before.live == stage.record().live


@pytest.mark.parametrize("kind", [Kind.ROLL_BACK, Kind.PROMOTE])
def test_a_way_back_whose_runs_are_killed_everywhere_gets_there(stage: Stage, kind: Kind) -> None:
    """What somebody asked for by name is live in the end, what it replaced is kept warm, and nothing is started."""
    before, made = stage.record(), stage.cluster.made()
    assert before.previous

    ended = killed_at_each(stage, asking(before.previous, kind), all_of(kind))

    assert (kind, Outcome.PROMOTED) == (ended.kind, ended.outcome)
    assert (before.previous, before.live) == (stage.record().live, stage.record().previous)
    assert (before.ledger.sequence + 1, made) == (stage.record().ledger.sequence, stage.cluster.made())


def test_a_restore_of_an_empty_cluster_whose_runs_are_killed_everywhere_gets_there(stage: Stage) -> None:
    """The last good release is started once; clients met nobody meanwhile, and lose nothing from then on."""
    before, made = stage.record(), stage.cluster.made()
    assert before.live
    assert before.previous
    stage.bad = {"", before.live.name, before.previous.name}
    for lost in (before.live, before.previous):
        stage.cluster.lose(lost.name)

    boundaries = all_of(Kind.RESTORE)
    shifted = boundaries.index(f"{StepName.SHIFT.value}:outcome") + 1
    request = asking(before.live, Kind.RESTORE)
    for boundary in boundaries[:shifted]:
        assert KILLED == stage.begin(request, crash_at=boundary).exit(), boundary
    since = time.monotonic()
    ended = killed_at_each(stage, request, boundaries[shifted:])

    assert (Kind.RESTORE, Outcome.PROMOTED) == (ended.kind, ended.outcome)
    assert (before.live, before.previous) == (stage.record().live, stage.record().previous)
    assert (before.live.name, made + 1) == (stage.live(), stage.cluster.made())
    assert Outcome.PROMOTED is stage.carry(stage.wanted()).outcome
    assert stage.traffic
    assert [] == [lost for lost in stage.traffic.lost() if lost.began > since]


@pytest.mark.parametrize("step", [StepName.MIRROR, StepName.READY, StepName.BAKE])
def test_a_run_that_is_told_to_go_goes_at_once_and_lets_go_of_the_lease(stage: Stage, step: StepName) -> None:
    """Nobody waits for the lease to end, and the next run finishes what it left."""
    request = stage.wanted()
    run = stage.begin(request, stop_at=f"{step.value}:effect")
    stage.await_that(run.has_stopped)
    run.send(signal.SIGTERM)
    run.send(signal.SIGCONT)
    assert TOLD_TO_GO == run.exit()
    lease, current = stage.lease(), stage.record().current

    assert not lease.held
    assert current is not None
    assert not current.done(step)
    assert Outcome.PROMOTED is stage.carry(asking(request.release)).outcome


def test_every_boundary_is_one_at_which_some_run_above_dies() -> None:
    """A new step that no release of this module crosses would be tested by nothing."""
    assert set(IN_THE_UNDOING) == {f"{step}:{moment}" for step in ("move_back", "remove") for moment in MOMENTS}
