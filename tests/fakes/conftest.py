"""What tests of the doubles of a cluster share."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.engine import Engine
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand
from tests.kube.control_plane import ControlPlane


@pytest.fixture
def hand(kube: ControlPlane, namespace: str) -> Hand:
    """A hand that does what a target would do."""
    return Hand(kube, namespace)


@pytest.fixture
def cluster(kube: ControlPlane, namespace: str) -> Iterator[KubeRay]:
    """A cluster whose engines take a while for each word."""

    def engine(args: dict[str, Any]) -> Engine:
        return Engine(release=args["release"], commit=args["commit"], delay_s=0.01)

    with KubeRay(kube, namespace, engine=engine) as cluster:
        yield cluster
