"""The double of KubeRay's controller of RayServices, version 1.7.0, for ``upgradeStrategy: None``.

It goes the way that was recorded: the finalizer, with which the generation becomes 2; a status that says initializing
and names a RayCluster; nothing more until the head is ready; the application deploying, with what became of the
RayCluster; the application running and the cluster promoted, not yet Ready; Ready with the endpoints that are there,
at first often the head alone; and a new count with each that comes.  A changed ``serveConfigV2`` is given to the Ray
cluster that runs, a changed ``rayClusterConfig`` is ignored.  What goes wrong with pods never shows.  Deletion takes
the RayCluster first, then the finalizer.

Not recorded: which defaults the operator writes into the spec with its finalizer (here empty ``scaleStrategy`` and
``resources``), a RayService that is suspended, and one without endpoints again after it was Ready.  Not played: other
upgrade strategies, timeouts, specs that KubeRay refuses.
"""

import time
from copy import deepcopy

from tests.fakes.kube_client import POD, RAY_CLUSTER, RAY_SERVICE, SERVICE, ApiServer, Cache
from tests.fakes.kube_pods import cluster_of_any
from tests.fakes.kube_statuses import Object, about_cluster, is_worker, service_status, tells_the_same
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_clusters import create, head_service, owner, suffix
from tests.fakes.kuberay_orders import Orders
from tests.fakes.ray_pods import Ray

FINALIZER = "ray.io/rayservice-finalizer"
PERIOD_S, SETTLED_PERIOD_S = 0.03, 0.25
"""The operator looks every 2 s at what no event tells it; here until a release is Ready, and after."""


class Operator:
    """Plays for all RayServices of a cache."""

    def __init__(
        self,
        server: ApiServer,
        ray_services: Cache,
        clusters: Cache,
        pods: Cache,
        services: Cache,
        slices: Cache,
        orders: Orders,
    ) -> None:
        self._server, self._orders = server, orders
        self._ray_services, self._clusters, self._pods = ray_services, clusters, pods
        self._services, self._slices = services, slices
        self._submitted: dict[str, str] = {}
        self._seen: dict[str, float] = {}
        self.worker = Worker(self._reconcile, orders.failures)
        ray_services.heard.append(self._changed)
        clusters.heard.append(self._cluster_changed)

    def _changed(self, before: Object | None, after: Object | None) -> None:
        if after is not None and (before is None or _version(before) != _version(after)):
            self.worker.poke(after["metadata"]["name"])

    def _cluster_changed(self, before: Object | None, after: Object | None) -> None:
        cluster = after or before
        assert cluster is not None
        name = cluster["metadata"].get("labels", {}).get("ray.io/originated-from-cr-name")
        if name:
            self.worker.poke(name)

    async def _reconcile(self, name: str) -> None:
        service = self._ray_services.objects.get(name)
        if service is None:
            return
        self._seen.setdefault(service["metadata"]["uid"], time.monotonic())
        if "deletionTimestamp" in service["metadata"]:
            await self._let_go(service)
            return
        if FINALIZER not in service["metadata"].get("finalizers", []):
            service = await self._take(service)
        if service["spec"].get("suspend"):
            await self._suspend(service)
            return
        status = service.get("status") or {}
        active, pending = (_named(status, part) for part in ("activeServiceStatus", "pendingServiceStatus"))
        if not active and not pending:
            await self._write(service, about_cluster(f"{name}-{suffix()}", None, None), None, 0)
            self.worker.poke(name)
            return
        await self._follow(service, active, pending)
        settled = (service.get("status") or {}).get("serviceStatus") == "Running"
        self.worker.poke(name, SETTLED_PERIOD_S if settled else PERIOD_S)

    async def _take(self, service: Object) -> Object:
        """Add the finalizer, by an update of the whole object that also writes defaults into its spec."""
        meta = service["metadata"]
        spec = deepcopy(service["spec"])
        config = spec.get("rayClusterConfig") or {}
        groups = config.get("workerGroupSpecs") or []
        for group in groups:
            group.setdefault("scaleStrategy", {})
        for group in [config["headGroupSpec"], *groups] if "headGroupSpec" in config else groups:
            for container in group["template"]["spec"]["containers"]:
                container.setdefault("resources", {})
        finalizers = [*meta.get("finalizers", []), FINALIZER]
        change = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers}, "spec": spec}
        taken = await self._server.merge(RAY_SERVICE, meta["name"], change)
        self._ray_services.put(taken)
        return taken

    async def _let_go(self, service: Object) -> None:
        name = service["metadata"]["name"]
        for cluster in self._clusters_of(name):
            await self._server.delete(RAY_CLUSTER, cluster["metadata"]["name"], cluster["metadata"]["uid"])
        if self._clusters_of(name):
            self.worker.poke(name, PERIOD_S)
            return
        kept = [one for one in service["metadata"].get("finalizers", []) if one != FINALIZER]
        if len(kept) < len(service["metadata"].get("finalizers", [])):
            version = service["metadata"]["resourceVersion"]
            change = {"metadata": {"resourceVersion": version, "finalizers": kept}}
            await self._server.merge(RAY_SERVICE, name, change)

    def _clusters_of(self, name: str) -> list[Object]:
        return [
            one
            for one in self._clusters.objects.values()
            if one["metadata"].get("labels", {}).get("ray.io/originated-from-cr-name") == name
        ]

    async def _suspend(self, service: Object) -> None:
        name = service["metadata"]["name"]
        for cluster in self._clusters_of(name):
            await self._server.delete(RAY_CLUSTER, cluster["metadata"]["name"], cluster["metadata"]["uid"])
        for ending in ("head", "serve"):
            await self._server.delete(SERVICE, f"{name}-{ending}-svc")
        await self._write(service, None, None, 0, suspended=True)

    async def _follow(self, service: Object, active: str, pending: str) -> None:
        """Look at the RayCluster of a RayService, and tell what is new."""
        name = active or pending
        cluster = self._clusters.objects.get(name)
        if cluster is None:
            cluster = await create(self._server, RAY_CLUSTER, _cluster(service, name))
            self._clusters.put(cluster)
            return
        ray = self._orders.ray(name)
        applications: Object = {}
        if _head_is_ready(cluster):
            self._submit(ray, name, service["spec"].get("serveConfigV2", ""))
            applications = ray.statuses()
            await self._label_head(service, name, ray)
        told = about_cluster(name, cluster.get("status"), applications)
        if active or (ray.is_running() and applications):
            endpoints = self._endpoints(service["metadata"]["name"])  # none yet where the Services are made now
            await self._serve(service, name)
            await self._write(service, None, told, endpoints)
        else:
            await self._write(service, told, None, 0)

    def _submit(self, ray: Ray, cluster: str, config: str) -> None:
        if self._submitted.get(cluster) != config or not ray.applications:
            self._submitted[cluster] = config
            ray.submit(config)

    async def _label_head(self, service: Object, cluster: str, ray: Ray) -> None:
        """Let the head serve while its proxy is well."""
        serves = ray.is_running() and not service["spec"].get("excludeHeadPodFromServeSvc")
        label = "true" if serves else "false"
        for pod in list(self._pods.objects.values()):
            if cluster_of_any(pod) != cluster or is_worker(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            if pod["metadata"]["labels"].get("ray.io/serve") != label:
                change = {"metadata": {"uid": pod["metadata"]["uid"], "labels": {"ray.io/serve": label}}}
                self._pods.put(await self._server.merge(POD, pod["metadata"]["name"], change))

    async def _serve(self, service: Object, cluster: str) -> None:
        """Make the two Services of a RayService."""
        name, belongs_to = service["metadata"]["name"], owner(service, "RayService")
        for new in (head_service(f"{name}-head-svc", cluster, belongs_to), _serve_service(name, cluster, belongs_to)):
            known = self._services.objects.get(new["metadata"]["name"])
            if known is None:
                self._services.put(await create(self._server, SERVICE, new))

    def _endpoints(self, name: str) -> int:
        """Return how many endpoints of the serve Service are ready."""
        return sum(
            bool(endpoint["conditions"].get("ready"))
            for one in self._slices.objects.values()
            if one["metadata"]["labels"].get("kubernetes.io/service-name") == f"{name}-serve-svc"
            for endpoint in one.get("endpoints") or []
        )

    async def _write(
        self, service: Object, pending: Object | None, active: Object | None, endpoints: int, suspended: bool = False
    ) -> None:
        meta, before = service["metadata"], service.get("status") or {}
        lags = time.monotonic() - self._seen[meta["uid"]] < self._orders.lag_s.get(meta["name"], 0.0)
        generation = meta["generation"] - (1 if lags else 0)
        status = service_status(generation, pending, active, endpoints, before, suspended)
        if tells_the_same(before, status):
            return
        self._ray_services.put(await self._server.put_status(RAY_SERVICE, service, status))


def _version(of: Object) -> tuple[int, bool, tuple[str, ...]]:
    meta = of["metadata"]
    return meta["generation"], "deletionTimestamp" in meta, tuple(meta.get("finalizers", []))


def _named(status: Object, part: str) -> str:
    return str((status.get(part) or {}).get("rayClusterName") or "")


def _head_is_ready(cluster: Object) -> bool:
    conditions = (cluster.get("status") or {}).get("conditions", [])
    return any(one["type"] == "HeadPodReady" and one["status"] == "True" for one in conditions)


def _cluster(service: Object, name: str) -> Object:
    meta = service["metadata"]
    origin = {"ray.io/originated-from-cr-name": meta["name"], "ray.io/originated-from-crd": "RayService"}
    return {
        "metadata": {
            "name": name,
            "labels": {**meta.get("labels", {}), **origin},
            "annotations": {"ray.io/kuberay-version": "v1.7.0"},
            "ownerReferences": [owner(service, "RayService")],
        },
        "spec": service["spec"]["rayClusterConfig"],
    }


def _serve_service(name: str, cluster: str, belongs_to: Object) -> Object:
    selector = {"ray.io/cluster": cluster, "ray.io/serve": "true"}
    ports = [{"name": "serve", "port": 8000, "targetPort": 8000}]
    return {
        "metadata": {"name": f"{name}-serve-svc", "labels": {"ray.io/serve": name}, "ownerReferences": [belongs_to]},
        "spec": {"selector": selector, "ports": ports},
    }
