"""A whole cluster of Kubernetes on one node: pods, probes, addresses and grace periods are real.

    with whole_cluster(folder) as cluster:
        cluster.plane.admin.post("/api/v1/namespaces/default/pods", json=...)

The control plane is that of the other tests, with what they do without: the controller manager, the scheduler, the
kubelet with containerd and runc, kube-proxy, and CoreDNS.  All of it runs in a node of its own (``node``), and each
component under its own user, with authorisation on.  Addresses of Services and pods can be reached from here.
NetworkPolicies are not enforced.  Images are made on the spot; none can be pulled.
"""

import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template

import httpx

from tests.cluster import machine
from tests.cluster.images import Image, busybox
from tests.cluster.node import GROUP, NODE, PODS, SERVICES, Node, node
from tests.kube.authority import SERVER
from tests.kube.binaries import find
from tests.kube.control_plane import OPERATOR, Command, ControlPlane

CONFIGURATION = Path(__file__).with_name("configuration")
NAME = "node"
"""The node's, as the cluster knows it."""
BUSYBOX = "slipway.test/busybox:1"
"""An image that every node has: a shell, and a web server called httpd."""
KUBELET, PROXY, NAMES = f"system:node:{NAME}", "system:kube-proxy", "coredns"
CONTROLLERS, SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
RIGHTS = {
    NAMES: "view",
    OPERATOR: "cluster-admin",
    SERVER: "system:kubelet-api-admin",
}
"""Users beside those that Kubernetes knows from the start, and the role that each has in the whole cluster."""
DEADLINE_S = 180.0
_POLL_S = 0.2


class NodePlane(ControlPlane):
    """A control plane in a node, where other components do what the tests' own one leaves undone."""

    host = NODE
    groups: Mapping[str, tuple[str, ...]] = {
        **ControlPlane.groups,
        KUBELET: ("system:nodes",),
        **dict.fromkeys((PROXY, NAMES, CONTROLLERS, SCHEDULER), ()),
    }

    def __init__(self, folder: Path, within: Node) -> None:
        self._within = within
        super().__init__(folder)

    def _networks(self) -> tuple[socket.socket, ipaddress.IPv4Network, ipaddress.IPv4Network]:
        return socket.socket(), SERVICES, PODS

    def _run(self, command: Command, name: str) -> "subprocess.Popen[bytes]":
        return self._within.start(command, name)

    def _flags(self) -> Command:
        at = self._folder
        return [
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={at / 'server.crt'}", f"--kubelet-client-key={at / 'server.key'}",
            "--kubelet-preferred-address-types=InternalIP",
        ]  # fmt: skip


class Cluster:
    """The running cluster; ``plane`` is its control plane, with a client of its API server that may do everything."""

    def __init__(self, folder: Path, within: Node) -> None:
        self.folder, self._node = folder, within
        (folder / "plane").mkdir()
        self.plane = NodePlane(folder / "plane", within)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start every component and wait until the node takes pods; its images are there then."""
        self._write_configuration()
        self.run("containerd", [_program("containerd"), "-c", self.folder / "containerd.toml"])
        self.plane.start()
        self._give_rights()
        for name, flags in self._components().items():
            self.run(name, [find(name), *flags])
        self.await_that(lambda: (self._node.run("ctr", "version"), True)[1], "containerd does not answer")
        self.load(busybox(BUSYBOX))
        self.await_that(self._is_ready, "the node is not ready")

    def load(self, image: Image) -> None:
        """Give the node an image."""
        path = self.folder / "image.tar"
        image.write(path)
        self._node.run("ctr", "--namespace=k8s.io", "images", "import", path)
        path.unlink()

    def run(self, name: str, command: Command) -> None:
        """Start a program in the node, where names of the cluster are known; its output is in ``NAME.log``."""
        self._running[name] = self._node.start(command, name)

    def close(self) -> None:
        """Let go of the control plane; the node's end is that of all the rest."""
        self.plane.close()

    def _write_configuration(self) -> None:
        values = {
            "folder": self.folder, "plane": self.folder / "plane", "node": NODE, "cgroup": GROUP,
            "pods": PODS, "plugins": machine.plugins(), "sandbox": BUSYBOX,
            "proxy": self.plane.kubeconfig(PROXY), "names": self.plane.kubeconfig(NAMES),
        }  # fmt: skip
        (self.folder / "network").mkdir()
        for template in CONFIGURATION.iterdir():
            place = self.folder / ("network" if template.suffix == ".conflist" else "") / template.name
            place.write_text(Template(template.read_text()).substitute(values))

    def _components(self) -> dict[str, Command]:
        at = self.folder
        controllers, scheduler = self.plane.kubeconfig(CONTROLLERS), self.plane.kubeconfig(SCHEDULER)
        return {
            "kube-controller-manager": [
                *_as_user(controllers), "--use-service-account-credentials",
                f"--service-account-private-key-file={at / 'plane' / 'accounts.key'}",
                f"--root-ca-file={at / 'plane' / 'ca.crt'}",
            ],
            "kube-scheduler": _as_user(scheduler),
            "kubelet": [
                f"--config={at / 'kubelet.yaml'}", f"--kubeconfig={self.plane.kubeconfig(KUBELET)}",
                f"--hostname-override={NAME}", f"--node-ip={NODE}",
            ],
            "kube-proxy": [f"--config={at / 'kube-proxy.yaml'}", f"--hostname-override={NAME}"],
            "coredns": ["-conf", at / "Corefile"],
        }  # fmt: skip

    def _give_rights(self) -> None:
        place = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        group = "rbac.authorization.k8s.io"
        for user, role in RIGHTS.items():
            binding = {
                "metadata": {"name": f"tests-{user}"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            }
            self.plane.admin.post(place, json=binding).raise_for_status()

    def _is_ready(self) -> bool:
        reply = self.plane.admin.get(f"/api/v1/nodes/{NAME}")
        conditions = reply.json()["status"].get("conditions", []) if reply.is_success else []
        account = self.plane.admin.get("/api/v1/namespaces/default/serviceaccounts/default")
        return account.is_success and ("Ready", "True") in {(one["type"], one["status"]) for one in conditions}

    def await_that(self, come: Callable[[], bool], otherwise: str) -> None:
        """Wait until something has come; a component that has ended meanwhile is an error, as it would never."""
        deadline = time.monotonic() + DEADLINE_S
        while not _has(come):
            for name, process in self._running.items():
                assert process.poll() is None, f"{name} ended: {self._last_words(name)}"
            assert time.monotonic() < deadline, f"{otherwise}: {self._last_words('kubelet')}"
            time.sleep(_POLL_S)

    def _last_words(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]


def _has(come: Callable[[], bool]) -> bool:
    try:
        return come()
    except (httpx.TransportError, subprocess.CalledProcessError):
        return False


def _as_user(kubeconfig: Path) -> Command:
    also = [f"--{about}-kubeconfig={kubeconfig}" for about in ("authentication", "authorization")]
    return [f"--kubeconfig={kubeconfig}", *also, "--leader-elect=false", "--bind-address=127.0.0.1"]


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"this machine has no {name}"
    return path


@contextmanager
def whole_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster until the block is left; ``folder``, which is there and empty, is its disk."""
    with node(folder) as within:
        cluster = Cluster(folder, within)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
