"""An API server that throttles, loses replies, is down or says nothing in the middle of a release."""

import signal
import time
from collections.abc import Callable

import pytest

from tasks.records import StepName
from tests.faults.kuberay.acts import assert_promoted, await_step, end_of
from tests.faults.releases.stage import Run, Stage
from tests.kube.control_plane import ControlPlane
from tests.kube.fault_kinds import WRITES, Answer, Fault, Faulty, LoseReply, Stall

pytestmark = pytest.mark.slow

SILENT_S = 4.0


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("verbs", [WRITES, ("get", "list")])
def test_a_release_whose_replies_are_lost_is_promoted(
    stage: Stage, faults: Faulty, verbs: tuple[str, ...], skip: int
) -> None:
    """Of every second request; what was written is found again, and nothing is made twice."""
    before, made = stage.record(), stage.cluster.made()
    for turn in range(4):
        faults.add(LoseReply(), *verbs, skip=skip + turn)

    ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)
    assert made + 1 == stage.cluster.made()


@pytest.mark.parametrize("part", ["/rayservices/chat", "/services/chat?"])
def test_a_write_that_is_applied_and_never_answered_is_found_again(stage: Stage, faults: Faulty, part: str) -> None:
    """The connection says nothing until it is given up."""
    before, made = stage.record(), stage.cluster.made()
    faults.add(Stall(applied=True), "patch", part=part)

    ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)
    assert made + 1 == stage.cluster.made()


@pytest.mark.parametrize("fault", [Answer(429, "TooManyRequests", 1), Answer(503, "ServiceUnavailable", 1)])
def test_a_release_that_is_throttled_waits_as_it_is_told(stage: Stage, faults: Faulty, fault: Fault) -> None:
    """No request comes again sooner than the server said."""
    before, made = stage.record(), stage.cluster.made()
    faults.add(fault, *WRITES, times=3)
    faults.add(fault, "get", times=3)
    faults.add(fault, "list", times=3)

    ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)
    assert made + 1 == stage.cluster.made()
    refused = [seen for seen in faults.asked() if seen.fault is fault]
    assert 9 == len(refused)
    assert [] == [seen.place for seen in refused if too_soon(faults, seen.place, seen.at, seen.verb)]


def too_soon(faults: Faulty, place: str, at: float, verb: str) -> bool:
    """Say whether the same was asked within the second that the server had named."""
    return any(at < seen.at < at + 0.95 for seen in faults.asked(verb) if seen.place == place)


def ready(stage: Stage) -> Run:
    """Begin a release and return while its candidate starts."""
    made = stage.cluster.made()
    stage.start_slowly(2.0)
    run = stage.begin(stage.wanted())
    await_step(stage, StepName.READY)
    stage.await_that(lambda: stage.cluster.made() > made)
    return run


def shift(stage: Stage) -> Run:
    """Return with a release that stands still right before it shifts."""
    run = stage.begin(stage.wanted(), stop_at="shift:intent")
    stage.await_that(run.has_stopped)
    return run


def bake(stage: Stage) -> Run:
    """Return while a release bakes."""
    run = stage.begin(stage.wanted(bake={"seconds": 10, "interval": 0.5}))
    await_step(stage, StepName.BAKE)
    return run


@pytest.mark.parametrize("outage", ["killed", "paused"])
@pytest.mark.parametrize("until", [ready, shift, bake])
def test_an_outage_of_the_api_server_costs_nothing_but_time(
    stage: Stage, kube: ControlPlane, until: Callable[[Stage], Run], outage: str
) -> None:
    """Traffic flows without it, and the release goes on where it was."""
    before, made = stage.record(), stage.cluster.made()
    begin, end = (kube.stop, kube.start) if outage == "killed" else (kube.pause, kube.resume)
    run = until(stage)

    begin()
    try:
        run.send(signal.SIGCONT)
        time.sleep(SILENT_S)
    finally:
        end()

    assert_promoted(stage, before, end_of(run))
    assert made + 1 == stage.cluster.made()
