"""Releases whose pods, probes, addresses and ends are real, with clients all the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.records import Kind, Outcome, Request
from tasks.settings import StoreSettings
from tests.cluster.double import RelayedKubeRay
from tests.cluster.whole import Cluster
from tests.fakes.hubs import running_hub
from tests.fakes.kube_client import RAY_SERVICE
from tests.faults.releases import stage as stages
from tests.faults.releases.clusters import Cluster as Target
from tests.faults.releases.conftest import Theatre
from tests.faults.releases.conftest import stage as stage  # noqa: PLC0414 - a fixture
from tests.faults.releases.kube_cluster import KubeCluster
from tests.faults.releases.stage import Stage
from tests.kube import definitions
from tests.kube.control_plane import ControlPlane

pytestmark = pytest.mark.slow

PATIENCE_S = 300.0
SMALL = {"cpu": "50m", "memory": "64Mi", "limit_cpu": False}


@pytest.fixture(scope="module")
def theatre(cluster: Cluster, s3: StoreSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Run a Hub; releases go to the whole cluster, where a start takes its time."""
    cluster.plane.install(definitions.kuberay())
    with pytest.MonkeyPatch.context() as patch, running_hub(tmp_path_factory.mktemp("hub")) as hub:
        patch.setattr(stages, "DEADLINE_S", PATIENCE_S)
        patch.setattr(stages, "START_S", PATIENCE_S / 5)
        theatre = Theatre(s3, hub, lambda: relayed(cluster.plane))
        with theatre.clusters:
            yield theatre


@contextmanager
def relayed(plane: ControlPlane) -> Iterator[Target]:
    """Run the double of the operator in a namespace of its own."""
    with RelayedKubeRay(plane, plane.create_namespace()) as double:
        target = KubeCluster(plane, double)
        target.grace_s = PATIENCE_S / 5
        target.spec["kubernetes"] |= {"head": SMALL, "worker": SMALL}
        yield target


def test_a_release_takes_the_traffic_and_the_oldest_goes(stage: Stage) -> None:
    """Nobody loses a request, on new connections or kept ones, plain or streamed."""
    before = stage.record()
    assert before.live is not None

    ended = stage.carry(stage.wanted())

    assert Outcome.PROMOTED is ended.outcome
    assert {before.live.name, ended.release.name} == stage.cluster.names()


def test_traffic_goes_back_to_the_release_before(stage: Stage) -> None:
    """It is warm; what goes is the switch alone."""
    before = stage.record()
    assert before.previous is not None
    wanted = stages.asking(before.previous, Kind.ROLL_BACK)

    ended = stage.carry(wanted)

    assert Outcome.PROMOTED is ended.outcome
    assert before.previous.name == stage.live()


def test_a_candidate_that_cannot_start_harms_nobody(stage: Stage) -> None:
    """Its pods go again, and what was live still is."""
    before = stage.record()
    stage.cluster.engine = lambda _args: None

    ended = stage.carry(stage.wanted())

    assert Outcome.FAILED is ended.outcome
    assert ended.release.name not in stage.cluster.names()
    assert (before.live, before.previous) == (stage.record().live, stage.record().previous)


def test_a_run_that_is_killed_between_switch_and_removal_is_finished(stage: Stage) -> None:
    """The next run sees what the dead one led where."""
    wanted: Request = stage.wanted()
    assert stages.KILLED == stage.begin(wanted, crash_at="shift:effect").exit()

    ended = stage.carry(wanted)

    assert Outcome.PROMOTED is ended.outcome
    assert ended.release.name == stage.live()


def test_a_head_that_answers_no_probe_harms_nobody(stage: Stage) -> None:
    """It takes no requests then, and KubeRay, which asks it about the application, shows none."""
    live = stage.record().live
    assert live is not None
    assert isinstance(stage.cluster, KubeCluster)
    double = stage.cluster.double
    assert isinstance(double, RelayedKubeRay)
    double.ill.add(live.name)
    stage.await_that(lambda: one_endpoint_and_no_application(double.stored(RAY_SERVICE, live.name)["status"]))

    ended = stage.carry(stage.wanted())

    double.ill.clear()
    assert Outcome.PROMOTED is ended.outcome


def one_endpoint_and_no_application(status: dict[str, Any]) -> bool:
    """Say whether KubeRay shows so much of a release."""
    return status.get("numServeEndpoints") == 1 and not status["activeServiceStatus"].get("applicationStatuses")
