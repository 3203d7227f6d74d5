"""The control plane of a session's tests, as fixtures for all of them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kube import definitions
from tests.kube.binaries import MissingProgram
from tests.kube.control_plane import ControlPlane, control_plane
from tests.kube.fault_kinds import Faulty
from tests.kube.faulty import faulty

WANTED = "SLIPWAY_TEST_KUBE"
"""The variable that asks for the tests that need an API server; they take longer than all others together."""


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a running control plane that knows RayServices; who stops or pauses it starts it again."""
    if not os.environ.get(WANTED):
        pytest.skip(f"Needs a Kubernetes API server: `make test-k8s` finds or builds one, and sets {WANTED}.")
    with ExitStack() as stack:
        try:
            plane = stack.enter_context(control_plane(tmp_path_factory.mktemp("kube")))
        except MissingProgram as missing:
            pytest.skip(str(missing))
        plane.install(definitions.kuberay())
        yield plane


@pytest.fixture(scope="session")
def extensions(kube: ControlPlane) -> None:
    """Let the control plane know Gateway API, Karpenter and the Prometheus operator too."""
    try:
        kube.install(definitions.from_modules())
    except MissingProgram as missing:
        pytest.skip(str(missing))


@pytest.fixture
def namespace(kube: ControlPlane) -> str:
    """Return a namespace of this test alone."""
    return kube.create_namespace()


@pytest.fixture
def faulty_kube(kube: ControlPlane) -> Iterator[Faulty]:
    """Return a proxy of the control plane's API server, without faults yet."""
    with faulty(kube) as proxy:
        yield proxy
