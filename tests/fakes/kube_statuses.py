"""What the parts of a cluster write about a RayService, its RayCluster and its pods, word for word.

Everything here but what says otherwise was recorded from KubeRay 1.7.0 with Ray 2.60.0 on Kubernetes 1.34.4: fields,
reasons, messages, and their order in time.  All functions are pure; times are RFC 3339.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

INITIALIZING = ("Initializing", "RayService is initializing")
NO_PENDING = ("NoPendingCluster", "Active Ray cluster exists and no pending Ray cluster")
ENDPOINTS = ("NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
NO_ENDPOINTS = ("ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
"""Not recorded: from the operator's source."""
SUSPENDED = ("SuspendComplete", "RayService is suspended")
"""Not recorded: the reason is from the operator's source, the message is not."""

FAILED_APPLICATION = "Failed to update the deployments ['{deployment}']."
FAILED_DEPLOYMENT = (
    "The deployment failed to start 7 times in a row. This may be due to a problem with its constructor or initial"
    " health check failing. See controller logs for details. Error:\n"
    "\x1b[36mray::ServeReplica:{application}:{deployment}.initialize_and_get_metadata()\x1b[39m (pid=444,"
    " ip=10.244.0.41, actor_id=9e6fcac27d6495f5e98e055001000000)\n"
    '  File "/app/venv/lib/python3.11/site-packages/ray/serve/_private/replica.py", line 1928, in initialize\n'
    "    raise RuntimeError(traceback.format_exc()) from None\n"
    "RuntimeError: Traceback (most recent call last):\n"
    '  File "/app/app/toyapp.py", line 17, in __init__\n'
    '    raise RuntimeError("model load failed on purpose")\n'
    "RuntimeError: model load failed on purpose"
)
UNSCHEDULABLE = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available:"
    " 1 Preemption is not helpful for scheduling."
)
PULL_FAILED = (
    'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: Head'
    ' "https://lab.local/v2/nope/manifests/9": dial tcp: lookup lab.local: no such host'
)
PULL_BACK_OFF = f'Back-off pulling image "{{image}}": ErrImagePull: {PULL_FAILED}'
CRASH_BACK_OFF = "back-off {seconds}s restarting failed container={container} pod={pod}_{namespace}({uid})"
NO_CLUSTER: Object = {"desiredCPU": "0", "desiredGPU": "0", "desiredMemory": "0", "desiredTPU": "0", "head": {}}
PORTS = {"client": "10001", "dashboard": "8265", "gcs-server": "6379", "metrics": "8080", "serve": "8000"}


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, is_true: bool, reason: str, message: str, **more: Any) -> Object:
    """Return one condition; it has changed just now."""
    status = "True" if is_true else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now(), **more}


def merged(before: Iterable[Object], after: Iterable[Object]) -> list[Object]:
    """Return the conditions ``after``; those whose status is as ``before`` keep the time of their last change."""
    known = {one["type"]: one for one in before}
    return [
        one | {"lastTransitionTime": known[one["type"]]["lastTransitionTime"]}
        if one["type"] in known and known[one["type"]]["status"] == one["status"]
        else one
        for one in after
    ]


def service_status(
    generation: int,
    pending: Object | None,
    active: Object | None,
    endpoints: int,
    before: Object,
    suspended: bool = False,
) -> Object:
    """Return the status of a RayService.

    ``pending`` and ``active`` are the parts about one cluster each (see ``about_cluster``), ``endpoints`` counts the
    ready ones of the serve Service, and ``before`` is the status that this one follows.
    """
    was_ready = any(
        one["type"] == "Ready" and one["reason"] != "Initializing" for one in before.get("conditions", [])
    )
    if suspended:
        ready = (False, *SUSPENDED)
    elif active and endpoints:
        ready = (True, *ENDPOINTS)
    else:
        ready = (False, *(NO_ENDPOINTS if was_ready else INITIALIZING))
    upgrade = NO_PENDING if active and not pending else INITIALIZING
    conditions = [
        condition("Ready", *ready, observedGeneration=generation),
        condition("UpgradeInProgress", False, *upgrade, observedGeneration=generation),
        *([condition("Suspended", True, *SUSPENDED, observedGeneration=generation)] if suspended else []),
    ]
    return {
        "activeServiceStatus": active or {"rayClusterStatus": NO_CLUSTER},
        "pendingServiceStatus": pending or {"rayClusterStatus": NO_CLUSTER},
        "conditions": merged(before.get("conditions", []), conditions),
        "lastUpdateTime": now(),
        "observedGeneration": generation,
        "numServeEndpoints": endpoints or None,
        "serviceStatus": "Running" if ready[0] else None,
    }


def about_cluster(name: str, status: Object | None, applications: Object | None) -> Object:
    """Return what a RayService says about one of its clusters."""
    told: Object = {"rayClusterName": name, "rayClusterStatus": status or NO_CLUSTER}
    return told | ({"applicationStatuses": applications} if applications else {})


def tells_the_same(one: Object, other: Object) -> bool:
    """Say whether the operator would not write ``other`` over ``one``: clusters' own statuses and times do not count.

    That is why nothing of an image that cannot be pulled shows in the RayService.
    """
    return _compared(one) == _compared(other)


def _compared(status: Object) -> Object:
    parts = {part: dict(status.get(part) or {}) for part in ("activeServiceStatus", "pendingServiceStatus")}
    for part in parts.values():
        part.pop("rayClusterStatus", None)
    conditions = [{**one, "lastTransitionTime": ""} for one in status.get("conditions", [])]
    rest = {key: status.get(key) for key in ("observedGeneration", "numServeEndpoints", "serviceStatus")}
    return {**parts, **rest, "conditions": conditions}


def application_status(name: str, status: str, deployment: str) -> Object:
    """Return what Serve tells of an application in ``status``, by the application's name."""
    healthy = {"RUNNING": "HEALTHY", "DEPLOYING": "UPDATING"}.get(status, status)
    inner: Object = {"status": healthy}
    told: Object = {"status": status, "serveDeploymentStatuses": {deployment: inner}}
    if status == "DEPLOY_FAILED":
        inner["message"] = FAILED_DEPLOYMENT.format(application=name, deployment=deployment)
        told["message"] = FAILED_APPLICATION.format(deployment=deployment)
    return {name: told}


def cluster_status(cluster: Object, pods: list[Object], failure: tuple[str, str] | None) -> Object:
    """Return the status of a RayCluster that has those ``pods``.

    ``failure`` is the reason and message of a pod that could not be made; that was not recorded, and is told as the
    operator's source says.
    """
    before = cluster.get("status") or {}
    workers = [pod for pod in pods if is_worker(pod)]
    head = next((pod for pod in pods if not is_worker(pod)), None)
    wanted = sum(group.get("replicas", 0) for group in cluster["spec"].get("workerGroupSpecs") or [])
    groups = cluster["spec"].get("workerGroupSpecs") or []
    all_ready = not failure and len(pods) == wanted + 1 and all(is_ready(pod) for pod in pods)
    return {
        "conditions": merged(before.get("conditions", []), _cluster_conditions(before, head, all_ready, failure)),
        "desiredWorkerReplicas": wanted,
        "minWorkerReplicas": sum(group.get("minReplicas", 0) for group in groups),
        "maxWorkerReplicas": sum(group.get("maxReplicas", group.get("replicas", 0)) for group in groups),
        "availableWorkerReplicas": sum(pod.get("status", {}).get("phase") == "Running" for pod in workers) or None,
        "readyWorkerReplicas": sum(is_ready(pod) for pod in workers) or None,
        **_desired(cluster),
        "endpoints": PORTS,
        "head": _head(cluster, head),
        "lastUpdateTime": now(),
        "observedGeneration": cluster["metadata"]["generation"],
        **({"state": "ready", "stateTransitionTimes": {"ready": now()}} if all_ready else {}),
        **({key: before[key] for key in ("state", "stateTransitionTimes") if key in before}),
    }


def _cluster_conditions(
    before: Object, head: Object | None, all_ready: bool, failure: tuple[str, str] | None
) -> list[Object]:
    was_provisioned = any(
        one["type"] == "RayClusterProvisioned" and one["status"] == "True" for one in before.get("conditions", [])
    )
    if all_ready or was_provisioned:
        provisioned = (True, "AllPodRunningAndReadyFirstTime", "All Ray Pods are ready for the first time")
    else:
        provisioned = (False, "RayClusterPodsProvisioning", "RayCluster Pods are being provisioned for first time")
    return [
        condition("HeadPodReady", *head_ready(head)),
        condition("RayClusterProvisioned", *provisioned),
        condition("RayClusterSuspended", False, "RayClusterSuspended", ""),
        condition("RayClusterSuspending", False, "RayClusterSuspending", ""),
        *([condition("ReplicaFailure", True, *failure)] if failure else []),
    ]


def head_ready(head: Object | None) -> tuple[bool, str, str]:
    """Return truth, reason and message of the condition HeadPodReady.  A missing head was not recorded."""
    if head is None:
        return False, "HeadPodNotFound", "Head Pod not found"
    told = pod_condition(head, "Ready")
    if told is None:
        return False, "Unknown", ""
    if told["status"] == "True":
        return True, "HeadPodRunningAndReady", ""
    reason, message = told.get("reason") or "Unknown", told.get("message", "")
    for one in head["status"].get("containerStatuses", []):
        why = one["state"].get("waiting") or one["state"].get("terminated")
        if not one["ready"] and why:
            return False, why["reason"], f"{message}; {one['name']}: {why.get('message', '')}"
    return False, reason, message


def is_worker(pod: Object) -> bool:
    """Say whether a pod of a RayCluster is a worker."""
    return bool(pod["metadata"]["labels"].get("ray.io/node-type") == "worker")


def is_ready(pod: Object) -> bool:
    """Say whether a pod is ready."""
    told = pod_condition(pod, "Ready")
    return told is not None and told["status"] == "True"


def pod_condition(pod: Object, kind: str) -> Object | None:
    """Return a condition of a pod, if it has one of that kind."""
    return next((one for one in pod.get("status", {}).get("conditions", []) if one["type"] == kind), None)


def _head(cluster: Object, head: Object | None) -> Object:
    name = cluster["metadata"]["name"]
    told: Object = {"serviceName": f"{name}-head-svc"}
    if head:
        told["podName"] = head["metadata"]["name"]
        address = head.get("status", {}).get("podIP")
        told |= {"podIP": address, "serviceIP": address} if address else {}
    return told


def _desired(cluster: Object) -> Object:
    """Return what the pods of a cluster request together."""
    spec = cluster["spec"]
    counted = [(1, spec["headGroupSpec"])]
    counted += [(group.get("replicas", 0), group) for group in spec.get("workerGroupSpecs") or []]
    cpu, memory, gpus = 0, 0, 0
    for count, group in counted:
        asked = requested(group["template"]["spec"])
        cpu, memory = cpu + count * asked["cpu"], memory + count * asked["memory"]
        gpus += count * asked["nvidia.com/gpu"] // 1000
    desired_cpu = f"{cpu}m" if cpu % 1000 else str(cpu // 1000)
    return {"desiredCPU": desired_cpu, "desiredGPU": str(gpus), "desiredMemory": _mebi(memory), "desiredTPU": "0"}


def _mebi(milli_bytes: int) -> str:
    mebi = milli_bytes / 1000 / 2**20
    return f"{int(mebi)}Mi" if mebi and mebi == int(mebi) else str(milli_bytes // 1000)


def requested(pod_spec: Object) -> dict[str, int]:
    """Return in thousandths what the containers of a pod request together; a limit alone is a request as well."""
    total = {"cpu": 0, "memory": 0, "nvidia.com/gpu": 0}
    for container in pod_spec["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name in total:
            total[name] += milli(asked.get(name, "0"))
    return total


UNITS = {"m": 0.001, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGT", start=1)}


def milli(quantity: str | float) -> int:
    """Return a quantity as Kubernetes writes it, in thousandths."""
    parsed = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([a-zA-Z]*)", str(quantity))
    assert parsed, quantity
    return round(float(parsed[1]) * UNITS[parsed[2]] * 1000)
