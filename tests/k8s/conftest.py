"""What tests against a real API server share: a client through the proxy that can break things, and plain objects."""

from collections.abc import Iterator

import pytest

from k8s.access import Access
from k8s.api import Api
from tests.kube.control_plane import ADMIN
from tests.kube.fault_kinds import Faulty


@pytest.fixture
def api(faulty_kube: Faulty, namespace: str) -> Iterator[Api]:
    """Return a client of a namespace of its own that may do everything, with the proxy in its way."""
    client = Api(Access(namespace, faulty_kube.kubeconfig(ADMIN)))
    try:
        yield client
    finally:
        client.close()
