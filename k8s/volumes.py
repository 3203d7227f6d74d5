"""The folders of a pod: shared memory, Ray's logs, the weights, and what the spec adds.

Weights come to the same place whichever way they take: the payload is told of one folder, its cache, and makes it
hold what it serves, every byte hashed.  Where that folder is decides the rest: a claim that pods share (EFS), a
folder of the node that outlives the pod, or the pod's own.
"""

from pathlib import PurePosixPath
from typing import Any

from k8s.kinds import Object
from k8s.spec_pods import Mount
from k8s.workload import Workload

CACHE = "/cache"
"""The payload image's folder for weights, which its user may write to."""
SHARED_MEMORY, LOGS = "shared-mem", "ray-logs"
"""KubeRay's own names, so that its autoscaler's container finds the logs."""

Pair = tuple[Object, Object]
"""A volume and where it is mounted."""


def cache_folder(workload: Workload) -> str:
    """Return where the payload keeps verified weights: on the claim, unless that is the store they come from."""
    weights = workload.kubernetes.weights
    return weights.path if weights.claim and not _is_store(workload) else CACHE


def volumes_and_mounts(workload: Workload, *, worker: bool) -> tuple[list[Object], list[Object]]:
    """Return the volumes of a pod and its container's mounts; a head sees shared folders, and caches nothing."""
    pairs = [_shared_memory(workload), _own(LOGS, "/tmp/ray")]  # noqa: S108 - where Ray writes, in a pod of its own
    if workload.kubernetes.weights.claim:
        pairs.append(_claim(workload))
    if worker and cache_folder(workload) == CACHE:
        pairs.append(_cache(workload))
    pairs += [_added(number, mount) for number, mount in enumerate(workload.kubernetes.mounts)]
    return [volume for volume, _ in pairs], [mount for _, mount in pairs]


def _is_store(workload: Workload) -> bool:
    """Say whether the claim holds the store itself."""
    path = workload.kubernetes.weights.path
    return workload.folder is not None and PurePosixPath(workload.folder).is_relative_to(path)


def _shared_memory(workload: Workload) -> Pair:
    most = workload.kubernetes.shared_memory
    return _own(SHARED_MEMORY, "/dev/shm", medium="Memory", **({"sizeLimit": most} if most else {}))  # noqa: S108


def _claim(workload: Workload) -> Pair:
    weights = workload.kubernetes.weights
    volume = {"name": "weights", "persistentVolumeClaim": {"claimName": weights.claim}}
    mount: Object = {"name": "weights", "mountPath": weights.path}
    return volume, {**mount, "readOnly": True} if _is_store(workload) else mount


def _cache(workload: Workload) -> Pair:
    weights = workload.kubernetes.weights
    if weights.host_path is None:
        return _own("cache", CACHE, **({"sizeLimit": weights.size} if weights.size else {}))
    volume = {"name": "cache", "hostPath": {"path": weights.host_path, "type": "Directory"}}
    return volume, {"name": "cache", "mountPath": CACHE}


def _own(name: str, path: str, **limits: str) -> Pair:
    return {"name": name, "emptyDir": limits}, {"name": name, "mountPath": path}


def _added(number: int, mount: Mount) -> Pair:
    name = f"mount-{number}"
    source: dict[str, Any] = {}
    if mount.claim:
        source["persistentVolumeClaim"] = {"claimName": mount.claim}
    elif mount.secret:
        source["secret"] = {"secretName": mount.secret}
    elif mount.config_map:
        source["configMap"] = {"name": mount.config_map}
    else:
        source["hostPath"] = {"path": mount.host_path, "type": "Directory"}
    placed: Object = {"name": name, "mountPath": mount.path}
    return {"name": name, **source}, {**placed, "readOnly": True} if mount.read_only else placed
