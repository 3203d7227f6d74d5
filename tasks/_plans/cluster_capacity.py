"""What a Kubernetes cluster has for a candidate, as ``plan`` shows it; the judgement is ``k8s.capacity``'s.

Only what the account may read counts, and a cluster that does not answer leaves "not known": that is no error here.
"""

from kubernetes.utils.quantity import parse_quantity

from k8s.access import Access
from k8s.api import Api
from k8s.capacity_reading import Survey, judged, survey
from k8s.errors import ApiError
from k8s.rayservice import ray_service
from k8s.scheduling import may_run
from k8s.workload import Workload
from tasks._plans.capacity import Capacity, InCluster
from tasks._release.room import Way, way
from tasks.records import Release
from tasks.settings import KubernetesSettings
from tasks.spec import ServiceSpec

GPU_MEMORY = "nvidia.com/gpu.memory"
"""Label with the MiB of each of a node's GPUs: https://github.com/NVIDIA/k8s-device-plugin, feature discovery."""
MIB = 2**20


def read_cluster_capacity(settings: KubernetesSettings, workload: Workload, live: str | None) -> Capacity:
    """Return whether the cluster has room for the release beside the others, and without ``live``."""
    wanted = Capacity(
        cpus_needed=workload.cpus * workload.replicas,
        gpus_needed=workload.gpus * workload.replicas,
    )
    try:
        api = Api(Access(settings.namespace, settings.kubeconfig, settings.context))
        try:
            seen = survey(api, ray_service(workload))
        finally:
            api.close()
    except ApiError as error:
        return wanted.model_copy(update={"cluster": InCluster(enough=None, sentence=f"Not known: {error}")})
    beside, alone = judged(seen), judged(seen, without=live)
    found = InCluster(
        enough=beside.enough,
        sentence=beside.sentence,
        enough_alone=alone.enough,
        sentence_alone=alone.sentence,
        memory=_memory(workload, seen),
    )
    return wanted.model_copy(update={"cluster": found})


def shortage(spec: ServiceSpec, capacity: Capacity, live: Release | None) -> tuple[str, str]:
    """Return why a release is refused for want of room, and what a person must know where it is not."""
    found = capacity.cluster
    if found is None or spec.kubernetes is None:
        return "", ""
    match way(spec.kubernetes.when_short, found.enough, found.enough_alone, live):
        case Way.BESIDE:
            return "", ""
        case Way.WAIT:
            return "", (
                f"There is no room for the candidate; without more it ends at `deadlines.ready`. {found.sentence}"
            )
        case Way.RECREATE if live:
            return "", _outage(spec, found, live)
        case Way.REFUSE_EVEN_ALONE if live:
            return f"There is no room for the candidate, not even without {live.name}. {found.sentence_alone}", ""
    return f"There is no room for the candidate. {found.sentence}", ""


def _outage(spec: ServiceSpec, found: InCluster, live: Release) -> str:
    return (
        f"OUTAGE: there is no room beside {live.name}, so it is removed first, and every request to {live.service} "
        f"fails from then until the candidate answers, for up to {spec.deadlines.ready:g} s. If the candidate fails, "
        f"{live.name} has to be loaded anew as well. {found.sentence}"
    )


def _memory(workload: Workload, seen: Survey) -> int | None:
    """Return the bytes of the smallest GPU that the workers may get, or of all the replicas' pods without GPUs."""
    if not workload.gpus:
        return int(parse_quantity(workload.kubernetes.worker.memory)) * workload.replicas
    worker = seen.asked[-1]
    labels = [node["metadata"].get("labels") or {} for node in seen.nodes or ()]
    sizes = [one[GPU_MEMORY] for one in labels if GPU_MEMORY in one and may_run(worker, one, ())]
    return min((int(size) * MIB for size in sizes if size.isdecimal()), default=None)
