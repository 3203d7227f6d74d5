"""Candidates that never become healthy, or stop being so: the old release serves all along, or again."""

from typing import Any

import pytest

from tasks.records import Outcome, Progress, ServiceRecord, StepName
from tests.fakes.engine import Engine, Fault
from tests.faults.releases.stage import BAD, GOOD, Stage, engine

pytestmark = pytest.mark.slow

IMPATIENT = {"ready": 1, "request": 5}


def assert_unharmed(stage: Stage, before: ServiceRecord, ended: Progress) -> None:
    """Assert that the candidate is gone, a reason is recorded, and what was live still is."""
    assert ended.failure is not None
    assert ended.failure.reason
    assert ended.release.name not in stage.cluster.names()
    assert (before.live, before.previous) == (stage.record().live, stage.record().previous)


def test_a_candidate_that_cannot_start_is_removed(stage: Stage) -> None:
    """Its image or its start failed: the payload's own words are recorded."""
    before = stage.record()
    stage.cluster.engine = lambda _args: None

    ended = stage.carry(stage.wanted())

    assert (Outcome.FAILED, StepName.READY) == (ended.outcome, ended.failure and ended.failure.step)
    assert ended.failure
    assert "RuntimeError: " in ended.failure.reason
    assert_unharmed(stage, before, ended)


def test_a_candidate_that_deploys_for_ever_meets_its_deadline(stage: Stage) -> None:
    """Our deadline ends it, not the cluster's."""
    before = stage.record()
    stage.start_slowly(1000)

    ended = stage.carry(stage.wanted(deadlines=IMPATIENT))

    stage.start_slowly(0)
    assert (Outcome.FAILED, StepName.READY) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended)


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.STATUS_500, Fault.GARBAGE])
def test_a_candidate_that_crashes_at_every_request_is_removed(stage: Stage, fault: Fault) -> None:
    """The cluster calls it healthy, because it starts again and again."""
    before, name = stage.record(), stage.next_name()
    make_faulty(stage, name, fault)

    ended = stage.carry(stage.wanted(deadlines=IMPATIENT))

    assert Outcome.FAILED is ended.outcome
    assert_unharmed(stage, before, ended)


@pytest.mark.parametrize("fault", [Fault.STATUS_500, Fault.GARBAGE, Fault.CUT])
@pytest.mark.parametrize("good_ones", [1, 4])
def test_a_candidate_that_turns_bad_before_the_shift_is_refused(stage: Stage, fault: Fault, good_ones: int) -> None:
    """So many of its requests were answered well; no client ever met it."""
    before, name = stage.record(), stage.next_name()
    make_faulty(stage, name, fault, healthy_requests=good_ones)

    ended = stage.carry(stage.wanted(deadlines=IMPATIENT))

    assert Outcome.REFUSED is ended.outcome
    assert ended.step(StepName.SHIFT) is None
    assert_unharmed(stage, before, ended)


def test_a_release_that_talks_nonsense_once_it_is_live_is_rolled_back(stage: Stage) -> None:
    """Its answers are whole, so that nothing but the bake can tell."""
    before, name = stage.record(), stage.next_name()
    stage.answer(lambda release: BAD if release == name and stage.is_routed(name) else GOOD)

    ended = stage.carry(stage.wanted())

    assert (Outcome.ROLLED_BACK, StepName.BAKE) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended)


@pytest.mark.parametrize("fault", [Fault.STATUS_500, Fault.CUT])
def test_a_release_that_fails_its_clients_is_rolled_back(stage: Stage, fault: Fault) -> None:
    """Nobody lost a request but those who met it, and they did for no longer than the bake found it out."""
    before, name = stage.record(), stage.next_name()
    stage.bad = {name}
    run = stage.begin(stage.wanted(bake={"seconds": 30, "interval": 0.5}))
    stage.await_that(lambda: (current := stage.record().current) and current.step(StepName.BAKE))
    stage.cluster.engine_of(name).fault = fault

    ended = run.ended()[0]

    assert ended is not None
    assert (Outcome.ROLLED_BACK, StepName.BAKE) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended)


def make_faulty(stage: Stage, name: str, fault: Fault, *, healthy_requests: int = 0) -> None:
    """Have the release of that name answer so many requests well, and then with a fault."""

    def make(args: dict[str, Any]) -> Engine:
        made = engine(args, lambda _release: GOOD)
        if args["release"] == name:
            made.fault, made.healthy_requests = fault, healthy_requests
        return made

    stage.cluster.engine = make
