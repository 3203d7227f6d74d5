"""What a cluster has to give: a Ray cluster is asked here, by its dashboard, for CPUs, GPUs and the memory of one.

Only ``plan`` asks, and only to warn: whether a candidate finds its place shows when it starts.  A dashboard that does
not answer, or answers otherwise, leaves "not known"; that is never an error.  Ray 2.60 shows used and total CPUs in
``/api/cluster_status`` as its autoscaler last wrote them, and each GPU's memory in ``/nodes?view=summary``.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from tasks._plans.memory_fit import Room
from tasks.records import Value
from tasks.settings import RaySettings
from tasks.spec import Resources

TIMEOUT_S = 5.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MIB = 2**20


class InCluster(Value):
    """What a Kubernetes cluster has for a candidate, beside all that runs and without the live release alone.

    ``memory`` is that of one GPU in bytes, or of all the replicas' pods together where there is none.
    """

    enough: bool | None
    sentence: str
    enough_alone: bool | None = None
    sentence_alone: str = ""
    memory: int | None = None


class Capacity(Value):
    """What a candidate needs and what is free; None for what is not known.  ``gpu_bytes`` is of the smallest GPU."""

    cpus_needed: float = 0.0
    gpus_needed: float = 0.0
    cpus_free: float | None = None
    gpus_free: float | None = None
    gpu_bytes: int | None = None
    cluster: InCluster | None = None

    @property
    def enough(self) -> bool | None:
        """Return whether the candidate finds its place beside what runs now."""
        if self.cluster is not None:
            return self.cluster.enough
        pairs = ((self.cpus_needed, self.cpus_free), (self.gpus_needed, self.gpus_free))
        if any(free is not None and needed > free for needed, free in pairs):
            return False
        return None if self.cpus_free is None or (self.gpus_needed and self.gpus_free is None) else True

    @property
    def sentence(self) -> str:
        """Return it for a person."""
        if self.cluster is not None:
            return self.cluster.sentence
        free = "not known" if self.cpus_free is None else f"{self.cpus_free:g} CPUs"
        if self.gpus_needed:
            free += ", GPUs not known" if self.gpus_free is None else f", {self.gpus_free:g} GPUs"
        gpus = f", {self.gpus_needed:g} GPUs" if self.gpus_needed else ""
        return f"{self.cpus_needed:g} CPUs{gpus} needed beside what runs; free now: {free}"


def read_capacity(settings: RaySettings, resources: Resources) -> Capacity:
    """Ask the dashboard; two requests at most, five seconds each."""
    wanted = Capacity(
        cpus_needed=resources.cpus * resources.at_first, gpus_needed=resources.gpus * resources.at_first
    )
    if not settings.dashboard:
        return wanted
    token = settings.token.get_secret_value() if settings.token else ""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=settings.dashboard, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        usage = _usage(_asked(client, "/api/cluster_status"))
        sizes = _gpu_sizes(_asked(client, "/nodes?view=summary")) if resources.gpus else []
    return wanted.model_copy(
        update={
            "cpus_free": _free(usage, "CPU"),
            "gpus_free": _free(usage, "GPU"),
            "gpu_bytes": min(sizes, default=None),
        }
    )


def room_of(settings: RaySettings, capacity: Capacity) -> Room:
    """Return the memory that a replica runs in: a GPU's, its pods', or this machine's where the cluster is on it."""
    if capacity.cluster is not None:
        return Room(total=capacity.cluster.memory)
    if capacity.gpus_needed:
        return Room(total=capacity.gpu_bytes)
    if urlsplit(settings.dashboard).hostname not in LOOPBACK:
        return Room()
    memory = psutil.virtual_memory()
    return Room(total=memory.total, free=memory.available)


def _asked(client: httpx.Client, path: str) -> object:
    try:
        response = client.get(path)
        return response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def _usage(answer: object) -> Mapping[str, Any]:
    usage = _at(answer, "data", "clusterStatus", "loadMetricsReport", "usage")
    return usage if isinstance(usage, Mapping) else {}


def _free(usage: Mapping[str, Any], resource: str) -> float | None:
    match usage.get(resource):
        case [int() | float() as used, int() | float() as total]:
            return max(0.0, float(total - used))
    return None


def _gpu_sizes(answer: object) -> list[int]:
    nodes = _at(answer, "data", "summary")
    gpus = [gpu for node in nodes if isinstance(node, Mapping) for gpu in node.get("gpus") or ()] if isinstance(
        nodes, list
    ) else []  # fmt: skip
    sizes = [gpu.get("memoryTotal") for gpu in gpus if isinstance(gpu, Mapping)]
    return [int(size) * MIB for size in sizes if isinstance(size, int | float) and size > 0]


def _at(tree: object, *path: str) -> object:
    for name in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(name)
    return tree
