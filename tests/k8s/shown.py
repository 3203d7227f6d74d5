"""A release as an API server shows it: the rendered RayService with statuses that the real operator wrote.

``recorded`` holds statuses of KubeRay 1.7.0 on Kubernetes 1.34.4, as they were but for what no test reads.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from k8s import names
from k8s.kinds import Object
from k8s.parts import SERVED_SINCE, SERVICE_OF_SLICE, Objects
from k8s.rayservice import ray_service
from k8s.surroundings import release_service, stable_service
from tests.k8s.matrix import workload

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
RECORDED = Path(__file__).with_name("recorded")
NAME = "chat-r9"
LABELS = {names.SERVICE: "chat", names.RELEASE: NAME}
HEAD, WORKER = f"{NAME}-head", f"{NAME}-engine-worker"


def recorded(name: str) -> Any:
    """Return what was recorded under that name."""
    return json.loads((RECORDED / f"{name}.json").read_text())


def a_release(
    status: Object | None, spec: str = "cpu", *, generation: int = 2, marks: dict[str, str] | None = None
) -> Object:
    """Return the RayService of release 9 of a spec of the matrix, a minute old; ``marks`` are further annotations."""
    made = ray_service(workload(spec, number=9))
    made["metadata"] |= {
        "generation": generation,
        "uid": "uid-of-the-rayservice",
        "creationTimestamp": (NOW - timedelta(minutes=1)).isoformat(),
        "annotations": {**made["metadata"]["annotations"], **(marks or {})},
    }
    return {**made, **({"status": status} if status else {})}


def used() -> dict[str, str]:
    """Return the annotation of a release that clients were led to."""
    return {SERVED_SINCE: (NOW - timedelta(seconds=50)).isoformat()}


def a_pod(name: str, status: Object | None = None) -> Object:
    """Return a pod of the release."""
    kind = "head" if "-head" in name else "worker"
    return {"metadata": {"name": name, "labels": {**LABELS, "ray.io/node-type": kind}}, "status": status or {}}


def a_cluster(status: Object) -> Object:
    """Return the RayCluster of the release."""
    return {"metadata": {"name": f"{NAME}-x7k2p", "labels": LABELS}, "status": status}


def a_slice(ready: dict[str, bool]) -> Object:
    """Return the EndpointSlice of the release's own Service: which pod is ready."""
    endpoints = [
        {"conditions": {"ready": well, "terminating": False}, "targetRef": {"kind": "Pod", "name": name}}
        for name, well in ready.items()
    ]
    labels = {names.SERVICE: "chat", SERVICE_OF_SLICE: NAME}
    return {"metadata": {"name": f"{NAME}-abcde", "labels": labels}, "endpoints": endpoints}


def a_stable(live: str | None = None) -> Object:
    """Return the stable Service, which leads to ``live``."""
    service = stable_service(workload("cpu"))
    service["spec"]["selector"] = names.traffic_selector("chat", live)
    return service


def shown(
    service: Object | None,
    *,
    ready: tuple[str, ...] = (),
    pods: tuple[Object, ...] = (a_pod(HEAD), a_pod(WORKER)),
    clusters: tuple[Object, ...] = (),
    live: str | None = None,
) -> Objects:
    """Return a namespace with the release, its own Service and the stable one."""
    return Objects(
        ray_services=(service,) if service else (),
        ray_clusters=clusters,
        pods=pods,
        services=(a_stable(live), release_service(workload("cpu", number=9))),
        slices=(a_slice({pod["metadata"]["name"]: pod["metadata"]["name"] in ready for pod in pods}),),
    )
