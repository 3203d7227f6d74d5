"""The cluster of Kubernetes that releases are tested on: the double of KubeRay against a real API server.

Slipway releases there under the account of ``k8s/rbac.yaml``, so that what the tests do is what that account may do.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.engine import Engine
from tests.fakes.kuberay import KubeRay
from tests.faults.releases.clusters import Cluster, MakeEngine
from tests.kube.account import controller
from tests.kube.control_plane import ControlPlane

IMAGE = "registry.example/payload@sha256:" + "0" * 64
WRITES = frozenset({"create", "update", "patch", "delete"})


class KubeCluster:
    """The double in one namespace.  Runs that begin now use ``kubeconfig``, which is ``user``'s."""

    grace_s = 20.0

    def __init__(self, plane: ControlPlane, double: KubeRay) -> None:
        self.spec: dict[str, Any] = {"target": "kuberay", "kubernetes": {"image": IMAGE}}
        self._plane, self.double, self._made = plane, double, set[str]()
        self.user = controller(plane, double.namespace)
        self.kubeconfig = plane.kubeconfig(self.user, double.namespace)
        self._since = plane.audit.position()
        self.secrets = (token_in(self.kubeconfig),)

    @property
    def engine(self) -> MakeEngine:
        """Return what makes the engines of releases."""
        return self.double.engine

    @engine.setter
    def engine(self, make: MakeEngine) -> None:
        self.double.engine = make

    @property
    def address(self) -> str:
        """See ``Cluster``."""
        return self.double.address("chat")

    def environment(self) -> dict[str, str]:
        """See ``Cluster``."""
        return {
            "SLIPWAY_KUBERNETES__NAMESPACE": self.double.namespace,
            "SLIPWAY_KUBERNETES__KUBECONFIG": str(self.kubeconfig),
            "SLIPWAY_KUBERNETES__SERVICE_URL": "http://{cluster_ip}:8000",
        }

    def engine_of(self, release: str) -> Engine:
        """See ``Cluster``."""
        engine = self.double.releases[release].engine
        assert engine is not None, f"{release} has no engine yet"
        return engine

    def names(self) -> set[str]:
        """See ``Cluster``."""
        return {name for name, run in self.double.releases.items() if not run.is_deleted}

    def is_routed(self, release: str) -> bool:
        """Say whether the stable Service selects it; asked by engines too, in the thread that the double runs in."""
        service = self._plane.admin.get(f"/api/v1/namespaces/{self.double.namespace}/services/chat").json()
        return bool(service.get("spec", {}).get("selector", {}).get("slipway.dev/release") == release)

    def is_draining(self) -> dict[str, bool]:
        """See ``Cluster``."""
        return self.double.is_draining()

    def made(self) -> int:
        """See ``Cluster``."""
        return len(self.double.rays)

    def changes(self) -> int:
        """See ``Cluster``."""
        asked = self._plane.audit.requests(user=self.user, namespace=self.double.namespace, since=self._since)
        return sum(request.verb in WRITES for request in asked)

    def start_slowly(self, seconds: float) -> None:
        """See ``Cluster``."""
        self.double.start_s = seconds

    def lose(self, release: str) -> None:
        """Delete the RayService, as somebody else would."""
        place = f"/apis/ray.io/v1/namespaces/{self.double.namespace}/rayservices/{release}"
        self._plane.admin.delete(place).raise_for_status()


def token_in(kubeconfig: Path) -> str:
    """Return the token of a kubeconfig's only user."""
    return str(json.loads(kubeconfig.read_text(encoding="utf-8"))["users"][0]["user"]["token"])


@contextmanager
def kube_cluster(plane: ControlPlane) -> Iterator[Cluster]:
    """Run the double in a namespace of its own."""
    with KubeRay(plane, plane.create_namespace()) as double:
        yield KubeCluster(plane, double)
