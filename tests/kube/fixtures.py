"""The control plane of a session's tests, as fixtures for all of them."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kube import definitions
from tests.kube.binaries import SOURCES, MissingProgram, is_here
from tests.kube.control_plane import ControlPlane, control_plane
from tests.kube.fault_kinds import Faulty
from tests.kube.faulty import faulty


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a running control plane that knows RayServices; who stops or pauses it starts it again."""
    if not all(map(is_here, SOURCES)):
        pytest.skip("No control plane is here: `make test-k8s` finds kube-apiserver and etcd, or builds them once.")
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
