"""The double of KubeRay's operator on a whole cluster: its pods are real, and the answers come from the test process.

    with RelayedKubeRay(plane, namespace, engine=...) as double:

What plays is the operator alone.  The scheduler, the kubelet and its probes, the controllers of slices and garbage,
kube-proxy and the table of connections are real.  The container of a pod passes on what comes to its ports, over the
node's cable, to a server here that stands for it (``tests.fakes.ray_pods``), so that a test still reaches its engine.
It ends as Ray does: at SIGTERM it goes on for as long as it is told to drain, and with it end all connections.

Not played: that a pod that drains has no replica any more, and HAProxy.
"""

import asyncio
import socket
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.cluster.node import HOST, PODS
from tests.cluster.whole import BUSYBOX
from tests.fakes import kube_client as client
from tests.fakes.kube_client import ApiServer, Cache
from tests.fakes.kube_statuses import Object, is_worker
from tests.fakes.kuberay import KINDS, KubeRay
from tests.fakes.kuberay_clusters import Clusters
from tests.fakes.kuberay_orders import Orders, release_of
from tests.fakes.pod_server import begin, started
from tests.fakes.ray_pods import METRICS_PORT, RAY_DRAIN_S, SERVE_PORT, Ray, RayPod

AGENT_PORT, HEAD_IS_WELL = 52365, "/api/healthz"
PORTS = (SERVE_PORT, METRICS_PORT, AGENT_PORT)
RELAY = f"""\
for pair in $RELAYED; do nc -ll -p ${{pair%:*}} -e nc {HOST} ${{pair#*:}} & done
trap 'sleep $RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S; exit 0' TERM
while :; do sleep 1; done
"""


class RelayedPod(RayPod):
    """What stands for a pod: a server here, which the pod's ports lead to; ``relayed`` are its ports by the pod's."""

    def __init__(self, ray: Ray, is_worker: bool, is_ill: Callable[[], bool]) -> None:
        super().__init__(ray, PODS, is_worker)
        self.relayed: dict[int, int] = {}
        self._is_ill = is_ill

    async def start(self, ip: str = "") -> str:
        """Begin to serve, at the end of the cable that is here."""
        bound = [socket.create_server((HOST, 0)) for _ in PORTS]
        self.ip = ip or HOST
        self.relayed = {port: one.getsockname()[1] for port, one in zip(PORTS, bound, strict=True)}
        self._server, self._serving = begin(self._answer, bound)
        await started(self._server, self._serving)
        self.is_up = True
        self.ray.pods.append(self)
        return self.ip

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        port = next(pods for pods, here in self.relayed.items() if here == scope["server"][1])
        if port == AGENT_PORT:
            status = 503 if scope["path"] == HEAD_IS_WELL and self._is_ill() else 200
            await PlainTextResponse("", status)(scope, receive, send)
        else:
            await super()._answer({**scope, "server": (self.ip, port)}, receive, send)


class RelayedClusters(Clusters):
    """Plays for RayClusters whose pods are relays."""

    def __init__(self, server: ApiServer, clusters: Cache, pods: Cache, services: Cache, orders: Orders) -> None:
        super().__init__(server, clusters, pods, services, orders)
        self.ill: set[str] = set()
        self._behind: dict[str, RelayedPod] = {}
        self._ending: set[asyncio.Task[None]] = set()
        pods.heard.append(self._gone)

    def machine(self, pod: str) -> RayPod | None:
        """Return what stands for the pod of that name."""
        return self._behind.get(pod)

    async def stop(self) -> None:
        """End all of them."""
        for machine in list(self._behind.values()):
            await machine.kill()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _create(self, cluster: Object, pod: Object) -> Object:
        name, of = pod["metadata"]["name"], cluster["metadata"]["name"]
        machine = RelayedPod(self._orders.ray(of), is_worker(pod), lambda: release_of(of) in self.ill)
        self._behind[name] = machine
        await machine.start()
        try:
            return await super()._create(cluster, relay(pod, machine.relayed))
        except BaseException:
            await self._behind.pop(name).kill()
            raise

    def _gone(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None and (machine := self._behind.pop(before["metadata"]["name"], None)):
            task = asyncio.create_task(machine.kill())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class RelayedKubeRay(KubeRay):
    """The double of the operator alone; the heads of releases in ``ill`` fail their probe, as on a busy node."""

    _kinds = tuple(kind for kind in KINDS if kind not in (client.ROUTE, client.QUOTA))

    def _make_clusters(self, clusters: Cache, pods: Cache, services: Cache) -> Clusters:
        made = self._relayed = RelayedClusters(self._server, clusters, pods, services, self)
        self.ill = made.ill
        return made

    async def _begin_nodes(self) -> None:
        self._kubelet: Any = self._relayed

    async def _end_nodes(self) -> None:
        await self._relayed.stop()


def relay(pod: Object, relayed: dict[int, int]) -> Object:
    """Return the pod with a relay for a container, and without waiting for Ray's own store."""
    pod = deepcopy(pod)
    for container in pod["spec"].get("initContainers", []):
        container |= {"image": BUSYBOX, "command": ["/bin/echo"]}
    container = pod["spec"]["containers"][0]
    pairs = " ".join(f"{there}:{here}" for there, here in relayed.items())
    drain = {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(int(RAY_DRAIN_S))}
    named = [one for one in container.get("env", []) if one["name"] != "RELAYED"]
    told = named if any(one["name"] == drain["name"] for one in named) else [*named, drain]
    environment = [*told, {"name": "RELAYED", "value": pairs}]
    container |= {"image": BUSYBOX, "command": ["/bin/sh", "-c", RELAY], "env": environment}
    return pod
