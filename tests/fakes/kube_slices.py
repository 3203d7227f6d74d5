"""The double of the endpoint slice controller and of the garbage collector.

Every Service with a selector gets one EndpointSlice of the pods that it selects, as Kubernetes makes them: a pod that
is not ready or is told to go is in it, and not ready.  Objects whose owner is gone are deleted.

The API server refuses slices with addresses of the loopback, where the double's pods are; so a slice says 10.a.b.c of
the pod at 127.a.b.c, and names the pod.  A pod's own status says 127.a.b.c.
"""

from typing import Any

from tests.fakes.kube_client import POD, RAY_CLUSTER, SERVICE, SLICE, ApiServer, Cache, Kind
from tests.fakes.kube_statuses import Object, is_ready
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_clusters import suffix
from tests.fakes.kuberay_orders import Orders

SERVICE_NAME = "kubernetes.io/service-name"
MANAGER = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}


class Slices:
    """Plays the endpoint slice controller."""

    def __init__(self, server: ApiServer, services: Cache, pods: Cache, slices: Cache, orders: Orders) -> None:
        self._server, self._orders = server, orders
        self._services, self._pods, self._slices = services, pods, slices
        self.worker = Worker(self._reconcile, orders.failures)
        services.heard.append(self._service_changed)
        pods.heard.append(self._pod_changed)

    def _service_changed(self, before: Object | None, after: Object | None) -> None:
        if after is not None and (before is None or before["spec"] != after["spec"]):
            self.worker.poke(after["metadata"]["name"], self._orders.slice_s)

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is not None and _shown(before) == _shown(after):
            return
        for name, service in self._services.objects.items():
            if any(pod is not None and selects(service, pod) for pod in (before, after)):
                self.worker.poke(name, self._orders.slice_s)

    async def _reconcile(self, name: str) -> None:
        service = self._services.objects.get(name)
        if service is None or not service["spec"].get("selector"):
            return
        pods = [pod for pod in self._pods.objects.values() if selects(service, pod)]
        published = bool(service["spec"].get("publishNotReadyAddresses"))
        endpoints = [endpoint(pod, published) for pod in pods if pod.get("status", {}).get("podIP")]
        wanted = {
            "endpoints": sorted(endpoints, key=lambda one: str(one["addresses"])),
            "ports": _ports(service, pods),
        }
        known, *surplus = [one for one in self._slices.objects.values() if _is_of(one, service)] or [None]
        for one in surplus:  # made twice, since a reply was lost
            await self._server.delete(SLICE, one["metadata"]["name"], one["metadata"]["uid"])
        if known is None:
            self._slices.put(await self._server.create(SLICE, _slice(service) | wanted))
        elif any((known.get(part) or []) != value for part, value in wanted.items()):
            meta = known["metadata"]
            change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, **wanted}
            self._slices.put(await self._server.merge(SLICE, meta["name"], change))


def selects(service: Object, pod: Object) -> bool:
    """Say whether a Service selects a pod."""
    selector = service["spec"].get("selector") or {}
    return bool(selector) and selector.items() <= pod["metadata"].get("labels", {}).items()


def endpoint(pod: Object, published: bool) -> Object:
    """Return what a slice says of a pod; ``published`` are the addresses of pods that are not ready as well."""
    meta, is_going = pod["metadata"], "deletionTimestamp" in pod["metadata"]
    serves = is_ready(pod)
    return {
        "addresses": [outward(pod["status"]["podIP"])],
        "conditions": {"ready": published or (serves and not is_going), "serving": serves, "terminating": is_going},
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
    }


def outward(address: str) -> str:
    """Return the address that a slice says of the pod at ``address``."""
    return "10." + address.partition(".")[2]


def inward(address: str) -> str:
    """Return where the pod listens that a slice says is at ``address``."""
    return "127." + address.partition(".")[2]


def _shown(pod: Object) -> Object:
    status = pod.get("status", {})
    shown = {"labels": pod["metadata"].get("labels"), "going": "deletionTimestamp" in pod["metadata"]}
    return shown | {"address": status.get("podIP"), "ready": is_ready(pod)}


def _slice(service: Object) -> Object:
    meta = service["metadata"]
    reference = {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
    return {
        "metadata": {
            "name": f"{meta['name']}-{suffix()}",
            "labels": {**meta.get("labels", {}), SERVICE_NAME: meta["name"], **MANAGER},
            "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": "IPv4",
    }


def _is_of(one: Object, service: Object) -> bool:
    return any(owner["uid"] == service["metadata"]["uid"] for owner in one["metadata"].get("ownerReferences", []))


def _ports(service: Object, pods: list[Object]) -> list[Object]:
    named = {
        port["name"]: port["containerPort"]
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if "name" in port
    }
    told = []
    for port in service["spec"].get("ports") or []:
        target: Any = port.get("targetPort", port["port"])
        number = named.get(target) if isinstance(target, str) else target
        if number is not None:
            told.append({"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")})
    return told


class Owners:
    """Plays the garbage collector for the double's own kinds: what an owner leaves is deleted at once."""

    def __init__(self, server: ApiServer, caches: dict[Kind, Cache], orders: Orders) -> None:
        self._server, self._caches = server, caches
        self._gone: set[str] = set()
        self.worker = Worker(self._collect, orders.failures)
        for cache in caches.values():
            cache.heard.append(self._changed)

    def _changed(self, before: Object | None, after: Object | None) -> None:
        if after is None and before is not None:
            self._gone.add(before["metadata"]["uid"])
            self.worker.poke(before["metadata"]["uid"])
        elif after is not None and before is None:
            for reference in after["metadata"].get("ownerReferences", []):
                if reference["uid"] in self._gone:
                    self.worker.poke(reference["uid"])

    async def _collect(self, uid: str) -> None:
        for kind in (RAY_CLUSTER, POD, SERVICE, SLICE):
            for owned in list(self._caches[kind].objects.values()):
                meta = owned["metadata"]
                is_owned = any(one["uid"] == uid for one in meta.get("ownerReferences", []))
                if is_owned and "deletionTimestamp" not in meta:
                    await self._server.delete(kind, meta["name"], meta["uid"])
