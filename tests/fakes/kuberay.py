"""The double of KubeRay's operator, the kubelet and kube-proxy, against a real API server.

It promises what was recorded of KubeRay 1.7.0 on a real cluster: a RayService goes the same way through the same
statuses, and so do its RayCluster, pods, Services and EndpointSlices; each release's application is a real server
that speaks the OpenAI API, behind an address that takes connections and gives them to pods as a node does.  What was
not recorded is said in the docstring of the module that does it.

    with KubeRay(plane, namespace, engine=lambda args: Engine(release=args["release"], ...)) as cluster:
        cluster.troubles["chat-r2"] = Trouble.IMAGE
        ...
        cluster.releases["chat-r1"].engine.fault = Fault.CUT

It acts as a user of its own with rights of its own, in one namespace.  All parts run in one thread of the test
process; every public method may be called from another.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.fakes import kube_client as client
from tests.fakes.engine import Engine
from tests.fakes.kube_client import ApiServer, Cache, Kind, Refused, read_kubeconfig
from tests.fakes.kube_gateway import Gateway
from tests.fakes.kube_pods import Kubelet
from tests.fakes.kube_proxy import KubeProxy
from tests.fakes.kube_quota import Quotas
from tests.fakes.kube_slices import Owners, Slices
from tests.fakes.kube_statuses import Object
from tests.fakes.kuberay_clusters import Clusters
from tests.fakes.kuberay_operator import FINALIZER, Operator
from tests.fakes.kuberay_orders import Orders, Trouble, cluster_of, release_of
from tests.fakes.ray_pods import RayPod
from tests.kube.control_plane import OPERATOR, ControlPlane

__all__ = ["KubeRay", "ReleaseRun", "Trouble"]

KINDS = (
    client.RAY_SERVICE,
    client.RAY_CLUSTER,
    client.POD,
    client.SERVICE,
    client.SLICE,
    client.QUOTA,
    client.ROUTE,
)
RULES = [
    {"apiGroups": ["ray.io"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["pods", "pods/status", "pods/binding", "services"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["events", "resourcequotas", "resourcequotas/status"], "verbs": ["*"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
    {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["*"], "verbs": ["*"]},
]
CALL_S = 30.0
SETTLE_S = 10.0
RELEASE = "slipway.dev/release"


@dataclass(frozen=True)
class ReleaseRun:
    """One release as it is in the cluster; ``engine`` is there once its application was submitted.

    ``is_deleted`` when its RayService is gone, while pods may still come to their end.
    """

    name: str
    engine: Engine | None
    pods: tuple[str, ...]
    is_deleted: bool


class KubeRay(Orders):
    """The double; takes the fields of ``Orders`` as keywords, and plays from ``with`` on."""

    _kinds = KINDS

    def __init__(self, plane: ControlPlane, namespace: str, *, resync_s: float = 0.5, **orders: Any) -> None:
        super().__init__(network=plane.pods, **orders)
        self.namespace = namespace
        self._plane, self._resync_s = plane, resync_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kuberay", daemon=True)
        self._watching: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        _allow(self._plane, self.namespace)
        self._thread.start()
        try:
            self._call(self._begin())
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything, and delete what was made; raises what went wrong in the double itself."""
        if not self._thread.is_alive():
            return
        try:
            self._call(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_S)
            self._loop.close()
        if self.failures:
            raise ExceptionGroup("The double failed.", [one for one in self.failures if isinstance(one, Exception)])

    @property
    def releases(self) -> dict[str, ReleaseRun]:
        """Return every release that has a RayService, a RayCluster or pods, by name."""
        return dict(self._call(self._releases()))

    def is_draining(self) -> dict[str, bool]:
        """Return of every release that is not deleted whether it parts with kept-alive connections."""
        return {
            name: run.engine is not None and bool(run.engine.draining)
            for name, run in self.releases.items()
            if not run.is_deleted
        }

    def live(self, service: str) -> str | None:
        """Return the release that new connections to a Service are given to; none where that is not one."""
        release: str | None = self._call(self._live(service))
        return release

    def address(self, service: str) -> str:
        """Return the base URL of a Service, at its cluster address."""
        known = self.stored(client.SERVICE, service)
        return f"http://{known['spec']['clusterIP']}:{known['spec']['ports'][0]['port']}"

    @property
    def gateway_url(self) -> str:
        """Return the base URL of the double of a Gateway; see ``kube_gateway``."""
        return self._gateway.url

    def stored(self, kind: Kind, name: str) -> Object:
        """Return an object as the double last saw it; raises ``KeyError`` where it saw none."""
        return dict(self._call(self._stored(kind, name)))

    def stop_operator(self) -> None:
        """Let the operator be down; pods and addresses go on."""
        self._call(self._pause(True))

    def start_operator(self) -> None:
        """Let the operator be up again."""
        self._call(self._pause(False))

    def lose_events(self, kind: Kind, count: int = 1) -> None:
        """Let the double miss the next events of a kind, until it lists anew ``resync_s`` seconds later."""
        self._call(self._lose(kind, count))

    def crash(self, pod: str) -> None:
        """End the container of a pod, with all that it was answering; it is started again."""
        self._call(self._kill(pod))

    @contextmanager
    def bumping(self, kind: Kind, name: str) -> Iterator[None]:
        """Write to an object again and again, so that whoever read it before meets a conflict; not recorded."""
        task = asyncio.run_coroutine_threadsafe(self._bump(kind, name), self._loop)
        try:
            yield
        finally:
            task.cancel()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    async def _begin(self) -> None:
        config = self._plane.kubeconfig(OPERATOR, self.namespace).read_text(encoding="utf-8")
        self._server = ApiServer(read_kubeconfig(config), self.namespace)
        self._caches = caches = {kind: Cache(self._server, kind, self._resync_s) for kind in self._kinds}
        services, pods, slices = caches[client.SERVICE], caches[client.POD], caches[client.SLICE]
        ray_services, clusters = caches[client.RAY_SERVICE], caches[client.RAY_CLUSTER]
        self._clusters = self._make_clusters(clusters, pods, services)
        self._operator = Operator(self._server, ray_services, clusters, pods, services, slices, self)
        await self._begin_nodes()
        self._watching = [asyncio.create_task(cache.run()) for cache in caches.values()]
        await asyncio.gather(*(cache.is_filled.wait() for cache in caches.values()))

    def _make_clusters(self, clusters: Cache, pods: Cache, services: Cache) -> Clusters:
        return Clusters(self._server, clusters, pods, services, self)

    async def _begin_nodes(self) -> None:
        """Let play what is not the operator."""
        caches = self._caches
        services, pods, slices = caches[client.SERVICE], caches[client.POD], caches[client.SLICE]
        self._kubelet = Kubelet(self._server, pods, self)
        self._slices = Slices(self._server, services, pods, slices, self)
        self._owners = Owners(self._server, caches, self)
        self._quotas = Quotas(self._server, caches[client.QUOTA], pods, self)
        self._proxy = KubeProxy(services, slices, self)
        self._gateway = Gateway(self._server, caches[client.ROUTE], self._proxy, self)
        await self._gateway.start()

    async def _end_nodes(self) -> None:
        for part in (self._slices, self._quotas, self._gateway):
            await part.worker.stop()
        await self._kubelet.stop()
        await self._gateway.stop()
        await self._proxy.stop()
        await self._owners.worker.stop()

    async def _end(self) -> None:
        for part in (self._operator, self._clusters):
            await part.worker.stop()
        await self._end_nodes()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        try:
            await asyncio.wait_for(self._clean(), SETTLE_S)
        finally:
            await self._server.close()

    async def _clean(self) -> None:
        """Delete what the parts made; RayServices stay, without the finalizer that nobody would take away."""
        for kind in (client.RAY_CLUSTER, client.POD, client.SLICE):
            for one in (await self._server.list(kind))[0]:
                await self._server.delete(kind, one["metadata"]["name"], grace_s=0)
        for one in (await self._server.list(client.SERVICE))[0]:
            if any(owner["kind"].startswith("Ray") for owner in one["metadata"].get("ownerReferences", [])):
                await self._server.delete(client.SERVICE, one["metadata"]["name"])
        for one in (await self._server.list(client.RAY_SERVICE))[0]:
            kept = [name for name in one["metadata"].get("finalizers", []) if name != FINALIZER]
            try:
                await self._server.merge(
                    client.RAY_SERVICE, one["metadata"]["name"], {"metadata": {"finalizers": kept}}
                )
            except Refused as refused:
                if refused.status != 404:
                    raise

    async def _releases(self) -> dict[str, ReleaseRun]:
        alive = {
            name
            for name, one in self._caches[client.RAY_SERVICE].objects.items()
            if "deletionTimestamp" not in one["metadata"]
        }
        pods: dict[str, list[str]] = {name: [] for name in alive}
        for name, pod in self._caches[client.POD].objects.items():
            if "ray.io/cluster" in pod["metadata"].get("labels", {}):
                pods.setdefault(release_of(cluster_of(pod)), []).append(name)
        engines = {release_of(name): ray.engine() for name, ray in self.rays.items()}
        return {
            name: ReleaseRun(name, engines.get(name), tuple(sorted(names)), name not in alive)
            for name, names in sorted(pods.items())
        }

    async def _live(self, service: str) -> str | None:
        addresses = {address for address, _ in self._proxy.backends(service)}
        pods = [pod for pod in self._caches[client.POD].objects.values() if pod["status"].get("podIP") in addresses]
        releases = {pod["metadata"]["labels"].get(RELEASE) for pod in pods}
        return releases.pop() if len(releases) == 1 else None

    async def _stored(self, kind: Kind, name: str) -> Object:
        return self._caches[kind].objects[name]

    async def _pause(self, is_down: bool) -> None:
        for worker in (self._operator.worker, self._clusters.worker):
            if is_down:
                worker.paused = True
            else:
                worker.resume()

    async def _lose(self, kind: Kind, count: int) -> None:
        self._caches[kind].lose += count

    async def _kill(self, pod: str) -> None:
        machine: RayPod | None = self._kubelet.machine(pod)
        assert machine is not None, f"nothing runs in {pod}"
        await machine.kill()

    async def _bump(self, kind: Kind, name: str) -> None:
        number = 0
        while True:
            number += 1
            await self._server.merge(kind, name, {"metadata": {"annotations": {"fakes/bump": str(number)}}})


def _allow(plane: ControlPlane, namespace: str) -> None:
    """Give the operator's user its rights in a namespace."""
    place = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    role = {"metadata": {"name": OPERATOR}, "rules": RULES}
    binding = {
        "metadata": {"name": OPERATOR},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OPERATOR},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
    }
    for plural, made in (("roles", role), ("rolebindings", binding)):
        reply = plane.admin.post(f"{place}/{plural}", json=made)
        if reply.status_code != 409:
            reply.raise_for_status()
