"""What the API server shows of one release, read once so that nobody else digs in objects.

A release is its RayService, the RayCluster and pods that KubeRay makes of it, and the EndpointSlices that its pods
may be in.  Statuses are KubeRay 1.7's: https://github.com/ray-project/kuberay, ``ray-operator/apis/ray/v1``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import yaml

from k8s import names
from k8s.kinds import Object

SERVED_SINCE = "slipway.dev/served-since"
"""Annotation of a RayService: when the live address was led to it, in ISO 8601.  It never goes away."""
SERVICE_OF_SLICE = "kubernetes.io/service-name"
LONGEST_S = 120.0
"""The longest generation of a release that does not say."""


@dataclass(frozen=True)
class Objects:
    """What a namespace shows, of all services; ``routes`` is empty where the Gateway API is not installed."""

    ray_services: tuple[Object, ...] = ()
    ray_clusters: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    services: tuple[Object, ...] = ()
    slices: tuple[Object, ...] = ()
    routes: tuple[Object, ...] = ()


@dataclass(frozen=True)
class Parts:
    """The objects of one release; without ``ray_service`` only its own Service is left."""

    name: str
    ray_service: Object | None = None
    ray_clusters: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    slices: tuple[Object, ...] = ()

    @property
    def spec(self) -> Object:
        """Return the RayService's spec."""
        return (self.ray_service or {}).get("spec") or {}

    @property
    def status(self) -> Object:
        """Return the RayService's status, empty before the operator's first."""
        return (self.ray_service or {}).get("status") or {}

    @property
    def annotations(self) -> dict[str, str]:
        """Return the RayService's annotations."""
        return self._metadata.get("annotations") or {}

    @property
    def deleting(self) -> bool:
        """Say whether the RayService is on its way out."""
        return "deletionTimestamp" in self._metadata

    @property
    def observed(self) -> bool:
        """Say whether the status is about the spec as it is now; before that it may praise an older one."""
        return bool(self.status.get("observedGeneration", -1) >= self.generation)

    @property
    def generation(self) -> int:
        """Return the number of the RayService's present spec."""
        return int(self._metadata.get("generation", 0))

    @property
    def _metadata(self) -> Object:
        return (self.ray_service or {}).get("metadata") or {}

    @property
    def cluster(self) -> Object:
        """Return the part of the status that speaks of the RayCluster: the active one's, or the pending one's."""
        active = self.status.get("activeServiceStatus") or {}
        return active if active.get("rayClusterName") else self.status.get("pendingServiceStatus") or {}

    @property
    def applications(self) -> dict[str, Object]:
        """Return the status of each Serve application by name."""
        return self.cluster.get("applicationStatuses") or {}

    @property
    def served_since(self) -> datetime | None:
        """Return when the live address was led to the release; it was complete then."""
        return moment(self.annotations.get(SERVED_SINCE))

    @property
    def draining_since(self) -> datetime | None:
        """Return when the release was told to drain."""
        return moment(self.annotations.get(names.DRAINING_SINCE))

    @property
    def longest_s(self) -> float:
        """Return the longest generation, in seconds."""
        told = arguments(self.spec).get("longest_request_s")
        return float(told) if isinstance(told, int | float) else LONGEST_S

    @property
    def changed_at(self) -> datetime | None:
        """Return when Slipway last changed the RayService in a way that the operator must see."""
        created = moment(self._metadata.get("creationTimestamp"))
        known = [at for at in (created, self.served_since, self.draining_since) if at is not None]
        return max(known, default=None)

    @property
    def answering(self) -> frozenset[str]:
        """Return the pods of the release that are ready endpoints, of its own Service or of the live address."""
        return ready_pods(self.slices) & {pod["metadata"]["name"] for pod in self.pods}

    @property
    def lacking(self) -> tuple[int, int]:
        """Return how many pods must be ready endpoints, and how many of them are.

        These are the head, which always has a proxy of Serve's, and one worker for each replica: the other stages of
        a pipeline have no proxy and never become ready.  With autoscaling the fewest replicas count.
        """
        heads = 0 if self.spec.get("excludeHeadPodFromServeSvc") else 1
        replicas = _workers(self.spec.get("rayClusterConfig") or {}) // _stages(self.spec)
        kinds = [_node_type(pod) for pod in self.pods if pod["metadata"]["name"] in self.answering]
        there = min(kinds.count("head"), heads) + min(kinds.count("worker"), replicas)
        return heads + replicas, there


def parts_of(objects: Objects, service: str) -> dict[str, Parts]:
    """Return the parts of every release of the service by its name; all is told by labels alone."""
    named = [obj for obj in (*objects.ray_services, *objects.services) if _is_release(obj, service)]
    wanted = {str(obj["metadata"]["name"]) for obj in named}
    return {name: _parts(objects, service, name) for name in sorted(wanted)}


def _parts(objects: Objects, service: str, name: str) -> Parts:
    def mine(found: Iterable[Object]) -> tuple[Object, ...]:
        return tuple(obj for obj in found if label(obj, names.RELEASE) == name)

    return Parts(
        name=name,
        ray_service=next((obj for obj in mine(objects.ray_services) if obj["metadata"]["name"] == name), None),
        ray_clusters=mine(objects.ray_clusters),
        pods=mine(objects.pods),
        slices=tuple(piece for piece in objects.slices if label(piece, SERVICE_OF_SLICE) in (name, service)),
    )


def ready_pods(slices: Iterable[Object]) -> frozenset[str]:
    """Return the pods behind the ready endpoints of slices.

    No word about readiness counts as ready: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/
    endpoint-slice-v1/
    """
    return frozenset(
        endpoint["targetRef"]["name"]
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True) is not False
        and (endpoint.get("targetRef") or {}).get("kind") == "Pod"
    )


def condition(status: Object | None, kind: str) -> Object:
    """Return the condition of that type, empty when there is none."""
    found = (status or {}).get("conditions") or []
    return next((one for one in found if one.get("type") == kind), {})


def label(obj: Object, key: str) -> str | None:
    """Return a label of the object."""
    value = (obj["metadata"].get("labels") or {}).get(key)
    return None if value is None else str(value)


def moment(text: str | None) -> datetime | None:
    """Return the moment that a timestamp of Kubernetes or of ours names; one that nobody can read names none."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo else None


def serve_config(spec: Object) -> dict[str, Any]:
    """Return what ``serveConfigV2`` says, not to be changed; empty when it cannot be read."""
    return _read(str(spec.get("serveConfigV2") or ""))


@lru_cache(maxsize=64)
def _read(config: str) -> dict[str, Any]:
    try:
        read = yaml.safe_load(config)
    except yaml.YAMLError:
        return {}
    return read if isinstance(read, dict) else {}


def arguments(spec: Object) -> dict[str, Any]:
    """Return the arguments of the payload's application; empty where somebody made nonsense of them."""
    applications = serve_config(spec).get("applications")
    first = applications[0] if isinstance(applications, list) and applications else None
    told = first.get("args") if isinstance(first, dict) else None
    return told if isinstance(told, dict) else {}


def _is_release(obj: Object, service: str) -> bool:
    return label(obj, names.SERVICE) == service and label(obj, names.RELEASE) == obj["metadata"]["name"]


def _node_type(pod: Object) -> str | None:
    return label(pod, "ray.io/node-type")


def _workers(config: Object) -> int:
    key = "minReplicas" if config.get("enableInTreeAutoscaling") else "replicas"
    groups = config.get("workerGroupSpecs") or ()
    return sum(int(group.get(key) or 0) * int(group.get("numOfHosts") or 1) for group in groups)


def _stages(spec: Object) -> int:
    """Return how many pods a replica is; without GPUs it is one, however its layers are cut."""
    told = arguments(spec)
    resources, engine = told.get("resources"), told.get("engine")
    if not isinstance(resources, dict) or not resources.get("gpus") or not isinstance(engine, dict):
        return 1
    stages = engine.get("pipeline_parallel_size")
    return stages if isinstance(stages, int) and stages > 0 else 1
