"""One service on Kubernetes that lives through all tests of a module, and what may go wrong around it."""

import logging
from collections.abc import Iterator
from functools import partial

import pytest

from tasks.settings import StoreSettings
from tests.fakes.hubs import running_hub
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand
from tests.faults.releases.conftest import Theatre
from tests.faults.releases.conftest import stage as stage  # noqa: PLC0414 - a fixture
from tests.faults.releases.kube_cluster import KubeCluster, kube_cluster, token_in
from tests.faults.releases.stage import Stage
from tests.kube.control_plane import ControlPlane
from tests.kube.fault_kinds import Faulty


@pytest.fixture(scope="module")
def theatre(kube: ControlPlane, s3: StoreSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Run a Hub; clusters are of Kubernetes."""
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        theatre = Theatre(s3, hub, partial(kube_cluster, kube))
        with theatre.clusters:
            yield theatre


@pytest.fixture
def cluster(stage: Stage) -> KubeCluster:
    """Return the cluster of the stage."""
    assert isinstance(stage.cluster, KubeCluster)
    return stage.cluster


@pytest.fixture
def double(cluster: KubeCluster) -> KubeRay:
    """Return the double of KubeRay's operator."""
    return cluster.double


@pytest.fixture
def hand(kube: ControlPlane, double: KubeRay) -> Hand:
    """Return the hand of somebody else, who may do anything in the namespace."""
    return Hand(kube, double.namespace)


@pytest.fixture
def faults(cluster: KubeCluster, faulty_kube: Faulty) -> Iterator[Faulty]:
    """Lead runs that begin now to the API server through a proxy, without faults yet."""
    direct, known = cluster.kubeconfig, cluster.secrets
    cluster.kubeconfig = faulty_kube.kubeconfig(cluster.user, cluster.double.namespace)
    cluster.secrets = (*known, token_in(cluster.kubeconfig))
    yield faulty_kube
    cluster.kubeconfig = direct


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Keep the log of what fails short: a double whose API server is away says so again and again."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
