"""What the double of a cluster cannot show: real pods, probes, addresses, connections and grace periods."""

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.cluster.whole import BUSYBOX, Cluster

pytestmark = pytest.mark.slow

PORT = 8000
TALKS = f"nc -ll -p {PORT} -e /bin/sh -c 'echo $NAME; exec cat'"
"""Says its name to whoever connects, and then what it is told."""


class Space:
    """The pods and Services of one test."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._admin = cluster, cluster.plane.admin
        self._place = f"/api/v1/namespaces/{namespace}"
        self._namespace = namespace

    def pod(self, name: str, script: str, *, grace_s: int = 1, **container: Any) -> None:
        """Make a pod whose container runs a script of the shell."""
        whole = {
            "name": "one",
            "image": BUSYBOX,
            "command": ["/bin/sh", "-c", script],
            "env": [{"name": "NAME", "value": name}],
            **container,
        }
        pod = {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [whole], "terminationGracePeriodSeconds": grace_s, "restartPolicy": "Never"},
        }
        self._admin.post(f"{self._place}/pods", json=pod).raise_for_status()

    def service(self, name: str, to: str) -> str:
        """Make a Service that leads to a pod and return its address in the cluster."""
        service = {"metadata": {"name": name}, "spec": {"selector": {"app": to}, "ports": [{"port": PORT}]}}
        made = self._admin.post(f"{self._place}/services", json=service).raise_for_status().json()
        return str(made["spec"]["clusterIP"])

    def lead(self, service: str, to: str) -> None:
        """Let a Service lead to another pod."""
        self._admin.patch(
            f"{self._place}/services/{service}",
            json={"spec": {"selector": {"app": to}}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def status(self, pod: str) -> dict[str, Any]:
        """Return a pod's status, empty when it has gone."""
        reply = self._admin.get(f"{self._place}/pods/{pod}")
        return dict(reply.json()["status"]) if reply.is_success else {}

    def is_ready(self, pod: str) -> bool:
        """Say whether a pod takes requests."""
        conditions = self.status(pod).get("conditions", [])
        return ("Ready", "True") in {(one["type"], one["status"]) for one in conditions}

    def endpoints(self, service: str) -> int:
        """Return how many ready endpoints a Service has."""
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        found = self._admin.get(slices, params={"labelSelector": f"kubernetes.io/service-name={service}"}).json()
        endpoints = [one for piece in found["items"] for one in piece["endpoints"] or []]
        return sum(bool(one["conditions"]["ready"]) for one in endpoints)

    def log(self, pod: str) -> str:
        """Return what a pod said."""
        return self._admin.get(f"{self._place}/pods/{pod}/log").raise_for_status().text

    def delete(self, pod: str) -> float:
        """Delete a pod and return how long it takes to go, in seconds."""
        began = time.monotonic()
        self._admin.delete(f"{self._place}/pods/{pod}").raise_for_status()
        self.await_that(lambda: not self.status(pod), f"{pod} does not go")
        return time.monotonic() - began

    def await_that(self, come: Callable[[], object], otherwise: str) -> None:
        """Wait until something has come."""
        self._cluster.await_that(lambda: bool(come()), otherwise)


@pytest.fixture
def within(cluster: Cluster, space: str) -> Space:
    """Return the namespace of this test."""
    return Space(cluster, space)


def test_a_service_is_reached_by_address_and_by_name(within: Space, space: str) -> None:
    """From this machine by its address, from a pod by its name."""
    probe = {"httpGet": {"path": "/said", "port": PORT}, "periodSeconds": 1}
    within.pod("web", f"echo hello > /tmp/said; httpd -f -p {PORT} -h /tmp", readinessProbe=probe)
    address = within.service("site", "web")
    within.await_that(lambda: within.endpoints("site"), "the Service has no endpoint")
    within.pod(
        "asks", f"until nslookup site.{space}.svc.cluster.local; do sleep 1; done; wget -q -O- {address}:{PORT}/said"
    )
    within.await_that(lambda: within.status("asks")["phase"] == "Succeeded", "the name is not found")

    within.await_that(lambda: _get(f"http://{address}:{PORT}/said") == "hello\n", "the address leads nowhere")
    assert f"Address: {address}\n" in within.log("asks")
    assert within.log("asks").endswith("hello\n")


def test_a_pod_whose_probe_fails_takes_no_new_requests(within: Space) -> None:
    """The kubelet asks, and the endpoint goes."""
    probe = {"httpGet": {"path": "/well", "port": PORT}, "periodSeconds": 1, "failureThreshold": 1}
    script = f"touch /tmp/well; httpd -p {PORT} -h /tmp; sleep 4; rm /tmp/well; sleep 600"
    within.pod("web", script, readinessProbe=probe)
    within.service("site", "web")

    within.await_that(lambda: within.endpoints("site") == 1, "it never takes requests")
    within.await_that(lambda: within.endpoints("site") == 0, "it still takes requests")
    assert within.status("web")["phase"] == "Running"


def test_a_switch_moves_new_connections_and_leaves_old_ones(within: Space) -> None:
    """This is what a shift is made of: kube-proxy leads who comes, and the table of connections who is there."""
    for name in ("old", "new"):
        within.pod(name, TALKS)
        within.await_that(lambda name=name: within.is_ready(name), f"{name} does not start")
    address = within.service("site", "old")
    within.await_that(lambda: _name(address) == "old", "the address leads nowhere")
    with _connected(address) as kept:
        within.lead("site", "new")
        within.await_that(lambda: _name(address) == "new", "the switch moves nobody")
        kept.sendall(b"still there\n")
        assert kept.recv(100) == b"still there\n"
        within.delete("old")
        kept.sendall(b"and now\n")
        assert _ends(kept)


def test_a_pod_has_its_grace_and_no_more(within: Space) -> None:
    """One that ends by itself is waited for; one that does not is killed."""
    within.pod("ends", "trap 'sleep 3; exit 0' TERM; echo up; while :; do sleep 0.1; done", grace_s=60)
    within.pod("stays", "trap '' TERM; echo up; while :; do sleep 0.1; done", grace_s=6)
    for name in ("ends", "stays"):
        within.await_that(lambda name=name: within.is_ready(name), f"{name} does not start")
        within.await_that(lambda name=name: "up" in within.log(name), f"{name} does not run")

    assert 3 <= within.delete("ends") < 40
    assert 6 <= within.delete("stays") < 40


def test_a_pod_that_finds_no_room_says_so(within: Space) -> None:
    """The scheduler's own words are there."""
    within.pod("big", "sleep 1", resources={"requests": {"memory": "4Ti"}})
    within.await_that(lambda: within.status("big").get("conditions"), "nobody looks at it")

    (condition,) = within.status("big")["conditions"]
    assert ("PodScheduled", "Unschedulable") == (condition["type"], condition["reason"])
    assert "Insufficient memory" in condition["message"]


def _get(url: str) -> str:
    try:
        return httpx.get(url, timeout=5, trust_env=False).text
    except httpx.TransportError:
        return ""


def _connected(address: str) -> socket.socket:
    """Return a connection that has heard a name."""
    connection = socket.create_connection((address, PORT), timeout=10)
    connection.recv(100)
    return connection


def _name(address: str) -> str:
    """Return who answers a new connection; nothing when nobody does."""
    try:
        with socket.create_connection((address, PORT), timeout=5) as connection:
            return connection.recv(100).decode().strip()
    except OSError:
        return ""


def _ends(connection: socket.socket) -> bool:
    """Say whether a connection has ended."""
    try:
        return not connection.recv(100)
    except OSError:
        return True
