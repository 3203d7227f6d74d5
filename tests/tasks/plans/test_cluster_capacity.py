"""What a plan says of room on a Kubernetes cluster, and what it makes of too little."""

from typing import Any

import pytest

from tasks._plans.capacity import Capacity, InCluster, room_of
from tasks._plans.cluster_capacity import read_cluster_capacity, shortage
from tasks._release.workloads import workload_of
from tasks.records import Release
from tasks.settings import KubernetesSettings, RaySettings
from tasks.spec import ServiceSpec
from tests.kube.control_plane import ADMIN, ControlPlane

IMAGE = f"registry.example.com/payload@sha256:{'0' * 64}"
COMMIT = "0" * 40
GPU = "nvidia.com/gpu"
LACK = "The pod of the head finds no node: there is none."


def a_spec(when_short: str = "refuse", **more: Any) -> dict[str, Any]:
    """Return a spec for Kubernetes."""
    section = {"kubernetes": {"image": IMAGE, "when_short": when_short}}
    return {"service": "chat", "model": "org/name", "target": "kuberay"} | section | more


def release(number: int, **spec: Any) -> Release:
    """Return a release of that spec."""
    return Release(
        service="chat", number=number, model="org/name", commit=COMMIT, hub="http://hub", spec=a_spec(**spec)
    )


def found(enough: bool | None, alone: bool | None = None) -> Capacity:
    """Return what a cluster has."""
    there = InCluster(enough=enough, sentence=LACK, enough_alone=alone, sentence_alone="Not even then.")
    return Capacity(cluster=there)


def test_a_cluster_speaks_for_itself() -> None:
    """Its verdict and its sentence are the plan's, and memory is that of a GPU there."""
    there = InCluster(enough=None, sentence=LACK, memory=80 * 2**30)
    capacity = Capacity(cpus_needed=4, cpus_free=1, cluster=there)

    assert (None, LACK) == (capacity.enough, capacity.sentence)
    assert room_of(RaySettings(), capacity).total == 80 * 2**30


@pytest.mark.parametrize(
    ("when_short", "live", "alone", "refused", "warned"),
    [
        ("refuse", True, True, f"There is no room for the candidate. {LACK}", ""),
        ("wait", True, True, "", "without more it ends at `deadlines.ready`"),
        ("recreate", True, True, "", "OUTAGE: there is no room beside chat-r1, so it is removed first"),
        ("recreate", True, None, "", "OUTAGE"),
        ("recreate", True, False, "There is no room for the candidate, not even without chat-r1. Not even then.", ""),
        ("recreate", False, True, f"There is no room for the candidate. {LACK}", ""),
    ],
)
def test_too_little_room_is_what_the_spec_makes_of_it(
    when_short: str, live: bool, alone: bool | None, refused: str, warned: str
) -> None:
    """Refused with the reason, or an outage that is said aloud, never a release that hangs."""
    spec = ServiceSpec.model_validate(a_spec(when_short))
    refusal, warning = shortage(spec, found(enough=False, alone=alone), release(1) if live else None)

    assert refused == refusal
    assert warned in warning
    assert bool(warned) == bool(warning)


@pytest.mark.parametrize("enough", [True, None])
def test_enough_and_not_known_change_nothing(enough: bool | None) -> None:
    """Only what is known to be lacking refuses a release."""
    assert ("", "") == shortage(ServiceSpec.model_validate(a_spec()), found(enough), release(1))


def test_an_outage_is_told_with_its_length() -> None:
    """And that the way back takes as long, because nothing is kept warm."""
    spec = ServiceSpec.model_validate(a_spec("recreate", deadlines={"ready": 600}))
    _, warning = shortage(spec, found(enough=False, alone=True), release(1))

    assert "every request to chat fails from then until the candidate answers, for up to 600 s" in warning
    assert "chat-r1 has to be loaded anew" in warning


def test_a_cluster_that_cannot_be_asked_leaves_room_unknown() -> None:
    """A plan is made without it; the release itself would find out."""
    settings = KubernetesSettings(namespace="llm", kubeconfig="/nowhere/kubeconfig")
    workload = workload_of(release(2), f"s3://bucket/{COMMIT}", "llm")
    there = read_cluster_capacity(settings, workload, None)

    assert there.enough is None
    assert there.sentence.startswith("Not known: ")


@pytest.mark.slow
def test_the_room_of_a_real_cluster_is_counted(kube: ControlPlane, namespace: str) -> None:
    """The live release's pod holds the one GPU, whose memory the node's label tells."""
    team = {"team": namespace}
    memory = {"resources": {"gpus": 1}, "engine": {"max_num_seqs": 8}}
    kubernetes = {"image": IMAGE, "worker": {"node_selector": team}, "head": {"node_selector": team}}
    allocatable = {"cpu": "16", "memory": "64Gi", "pods": "9", GPU: "1"}
    labels = team | {"nvidia.com/gpu.memory": "46068"}
    live_pod = {
        "metadata": {"name": "live", "labels": {"slipway.dev/release": "chat-r1"}},
        "spec": {
            "nodeName": namespace,
            "containers": [
                {"name": "main", "image": "any", "resources": {"requests": {GPU: "1"}, "limits": {GPU: "1"}}}
            ],
        },
    }
    node = kube.admin.post("/api/v1/nodes", json={"metadata": {"name": namespace, "labels": labels}})
    try:
        ready = {**node.raise_for_status().json(), "spec": {}}  # a new node is tainted until it is ready
        ready = kube.admin.put(f"/api/v1/nodes/{namespace}", json=ready).raise_for_status().json()
        status = {**ready, "status": {"allocatable": allocatable}}
        kube.admin.put(f"/api/v1/nodes/{namespace}/status", json=status).raise_for_status()
        kube.admin.post(f"/api/v1/namespaces/{namespace}/pods", json=live_pod).raise_for_status()
        settings = KubernetesSettings(namespace=namespace, kubeconfig=kube.kubeconfig(ADMIN))
        workload = workload_of(release(2, **memory, kubernetes=kubernetes), f"s3://bucket/{COMMIT}", namespace)
        there = read_cluster_capacity(settings, workload, "chat-r1").cluster
    finally:
        kube.admin.delete(f"/api/v1/nodes/{namespace}")

    assert there is not None
    assert (False, True) == (there.enough, there.enough_alone)
    assert "1 nvidia.com/gpu are needed on one, at most 0 nvidia.com/gpu are free" in there.sentence
    assert there.memory == 46068 * 2**20
