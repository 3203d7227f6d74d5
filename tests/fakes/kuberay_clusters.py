"""The double of KubeRay's controller of RayClusters: a head Service, a head pod, worker pods, and a status.

Names, labels and statuses are as recorded; a pod that may not be made is told as the operator's source says.
"""

import secrets
from copy import deepcopy
from typing import Any

import httpx

from tests.fakes.kube_client import EVENT, POD, RAY_CLUSTER, SERVICE, ApiServer, Cache, Refused
from tests.fakes.kube_pod_statuses import INIT_CONTAINER
from tests.fakes.kube_pods import cluster_of_any, event
from tests.fakes.kube_statuses import PORTS, Object, cluster_status, is_worker
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_orders import Orders, Trouble, release_of

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes random names of."""
AGAIN_S = 0.2
FORBIDDEN = 'pods "{name}" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0'


class Clusters:
    """Plays for all RayClusters of a cache."""

    def __init__(self, server: ApiServer, clusters: Cache, pods: Cache, services: Cache, orders: Orders) -> None:
        self._server, self._orders = server, orders
        self._clusters, self._pods, self._services = clusters, pods, services
        self.worker = Worker(self._reconcile, orders.failures)
        clusters.heard.append(self._changed)
        pods.heard.append(self._pod_changed)

    def _changed(self, _before: Object | None, after: Object | None) -> None:
        if after is not None:
            self.worker.poke(after["metadata"]["name"])

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        cluster = cluster_of_any(after or before or {"metadata": {}})
        if cluster:
            self.worker.poke(cluster)

    async def _reconcile(self, name: str) -> None:
        cluster = self._clusters.objects.get(name)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            return
        if f"{name}-head-svc" not in self._services.objects:
            service = head_service(f"{name}-head-svc", name, owner(cluster, "RayCluster"))
            self._services.put(await create(self._server, SERVICE, service))
        failure = await self._make_pods(cluster)
        pods = self._pods_of(name)
        status = cluster_status(cluster, pods, failure)
        if _without_times(status) != _without_times(cluster.get("status") or {}):
            self._clusters.put(await self._server.put_status(RAY_CLUSTER, cluster, status))
        if failure:
            self.worker.poke(name, AGAIN_S)

    def _pods_of(self, cluster: str) -> list[Object]:
        pods = [pod for pod in self._pods.objects.values() if cluster_of_any(pod) == cluster]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    async def _make_pods(self, cluster: Object) -> tuple[str, str] | None:
        """Make the pods that are missing; returns reason and message of the first that may not be made."""
        present = self._pods_of(cluster["metadata"]["name"])
        heads = [pod for pod in present if not is_worker(pod)]
        missing, surplus = [] if heads else [head_pod(cluster)], heads[1:]
        for group in cluster["spec"].get("workerGroupSpecs") or []:
            there = [pod for pod in present if pod["metadata"]["labels"].get("ray.io/group") == group["groupName"]]
            missing += [worker_pod(cluster, group) for _ in range(group.get("replicas", 0) - len(there))]
            surplus += there[group.get("replicas", 0) :]
        for pod in surplus:  # made twice, since a reply was lost
            await self._server.delete(POD, pod["metadata"]["name"], pod["metadata"]["uid"])
        for pod in missing:
            try:
                self._pods.put(await self._create(cluster, pod))
            except Refused as refused:
                if refused.status not in (httpx.codes.FORBIDDEN, httpx.codes.UNPROCESSABLE_ENTITY):
                    raise
                return await self._tell_failure(cluster, pod, str(refused))
        return None

    async def _create(self, cluster: Object, pod: Object) -> Object:
        name = pod["metadata"]["name"]
        if self._orders.trouble_of(release_of(cluster["metadata"]["name"])) is Trouble.QUOTA:
            raise Refused(403, "Forbidden", FORBIDDEN.format(name=name))
        return await self._server.create(POD, pod)

    async def _tell_failure(self, cluster: Object, pod: Object, why: str) -> tuple[str, str]:
        meta = pod["metadata"]
        namespace, name = self._server.namespace, cluster["metadata"]["name"]
        if is_worker(pod):
            reason, words = "FailedCreateWorkerPod", f"Failed to create worker Pod for the cluster {namespace}/{name}"
        else:
            reason, words = "FailedCreateHeadPod", f"Failed to create head Pod {namespace}/{meta['name']}"
        known = {one["type"]: one for one in (cluster.get("status") or {}).get("conditions", [])}
        if "ReplicaFailure" not in known:
            told = reason.replace("Failed", "FailedTo")
            new = event(cluster, "RayCluster", "Warning", told, f"{words}, {why}", "raycluster-controller")
            await self._server.create(EVENT, new)
            return reason, f"{reason}\n{why}"
        return reason, known["ReplicaFailure"]["message"]


def head_pod(cluster: Object) -> Object:
    """Return the head pod of a RayCluster."""
    return _pod(
        cluster, cluster["spec"]["headGroupSpec"], "head", "headgroup", f"{cluster['metadata']['name']}-head-"
    )


def worker_pod(cluster: Object, group: Object) -> Object:
    """Return a worker pod of a group; it waits for the head before it begins."""
    name = group["groupName"]
    pod = _pod(cluster, group, "worker", name, f"{cluster['metadata']['name']}-{name}-worker-")
    first = {"name": INIT_CONTAINER, "image": pod["spec"]["containers"][0]["image"]}
    first |= {
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}}
    }
    pod["spec"]["initContainers"] = [*pod["spec"].get("initContainers", []), first]
    return pod


def _pod(cluster: Object, group: Object, node_type: str, group_name: str, prefix: str) -> Object:
    template, name = deepcopy(group["template"]), cluster["metadata"]["name"]
    meta = template.get("metadata") or {}
    labels = {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/identifier": f"{name}-{node_type}",
        "ray.io/is-ray-node": "yes",
        **(meta.get("labels") or {}),
        "ray.io/cluster": name,
        "ray.io/group": group_name,
        "ray.io/node-type": node_type,
        "ray.io/serve": "true" if node_type == "worker" else "false",
    }
    return {
        "metadata": {
            "name": prefix + suffix(),
            "labels": labels,
            "annotations": meta.get("annotations") or {},
            "ownerReferences": [owner(cluster, "RayCluster")],
        },
        "spec": template["spec"],
    }


def head_service(name: str, cluster: str, belongs_to: Object) -> Object:
    """Return the headless Service of a RayCluster's head."""
    selector = {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/cluster": cluster,
        "ray.io/identifier": f"{cluster}-head",
        "ray.io/node-type": "head",
    }
    ports = [{"name": port, "port": int(number), "targetPort": int(number)} for port, number in PORTS.items()]
    return {
        "metadata": {"name": name, "labels": selector, "ownerReferences": [belongs_to]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": ports},
    }


def owner(of: Object, kind: str) -> Object:
    """Return the reference by which ``of`` owns what a controller makes for it."""
    meta = of["metadata"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def suffix() -> str:
    """Return the random end of a name."""
    return "".join(secrets.choice(LETTERS) for _ in range(5))


async def create(server: ApiServer, kind: Any, new: Object) -> Object:
    """Create an object, or patch the one of that name into it."""
    try:
        return await server.create(kind, new)
    except Refused as refused:
        if refused.reason != "AlreadyExists":
            raise
        change = {"metadata": {"ownerReferences": new["metadata"]["ownerReferences"]}, "spec": new["spec"]}
        return await server.merge(kind, new["metadata"]["name"], change)


def _without_times(status: Object) -> Object:
    kept = {key: value for key, value in status.items() if value is not None}
    kept.pop("lastUpdateTime", None)
    kept.pop("stateTransitionTimes", None)
    kept["conditions"] = [{**one, "lastTransitionTime": ""} for one in kept.get("conditions", [])]
    return kept
