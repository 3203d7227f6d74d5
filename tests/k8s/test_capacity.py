"""Whether there is room: yes, no with the name of what is lacking, or not known."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from k8s.capacity import Group, Quota, Surroundings, capacity, quota_needs
from k8s.demands import Demand, amounts, claims, demands, secrets
from k8s.scheduling import Node, Pool

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "effect": "NoSchedule"}
GPU_TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


def free(cpu: str = "8", memory: str = "32Gi", gpus: int = 0) -> dict[str, Decimal]:
    """Return what a node has free."""
    return amounts({"cpu": cpu, "memory": memory, "pods": "20"} | ({GPU: str(gpus)} if gpus else {}))


def node(name: str, labels: dict[str, str] | None = None, taints: Any = (), **has: Any) -> Node:
    """Return a node."""
    return Node(name, labels or {}, taints, free(**has))


def asks(name: str = "workers", count: int = 1, selector: Any = None, **what: Any) -> Demand:
    """Return pods that ask for ``what``, and tolerate the taint of GPU nodes."""
    given = free(**what) | {"pods": Decimal(1)}
    return Demand(name, count, given, given, selector or {}, (GPU_TOLERATION,))


HEAD = replace(asks("the head", cpu="2", memory="12Gi"), tolerations=())
WORKERS = asks(count=2, cpu="4", memory="28Gi", gpus=4)
CPU_NODE = node("cpu-1")
GPU_NODES = [node(f"gpu-{number}", taints=[GPU_TAINT], gpus=4) for number in (1, 2)]


def pool(**changes: Any) -> Pool:
    """Return a NodePool whose nodes WORKERS may lie on, without limits."""
    return Pool(**{"name": "gpus", "labels": {}, "requirements": (), "taints": (GPU_TAINT,), "left": {}} | changes)


def test_there_is_room_where_each_pod_finds_a_node() -> None:
    """The head keeps off the GPU nodes, whose taint it does not tolerate."""
    found = capacity([HEAD, WORKERS], Surroundings([CPU_NODE, *GPU_NODES]))

    assert found.enough is True
    assert found.sentence == "Every pod (3) finds room on nodes that are there."


def test_a_pod_that_needs_no_gpu_leaves_the_gpus_to_those_that_do() -> None:
    """The greediest are placed first, and each where least is left over."""
    tolerant = replace(asks("the head", cpu="6", memory="20Gi"), tolerations=(GPU_TOLERATION,))

    assert capacity([tolerant, WORKERS], Surroundings([CPU_NODE, *GPU_NODES])).enough


@pytest.mark.parametrize(
    ("asked", "there", "said"),
    [
        (
            [WORKERS],
            Surroundings([CPU_NODE, GPU_NODES[0]]),
            "1 of 2 pods of workers find no node: each needs 4 CPUs, 28.0 GiB memory, 4 nvidia.com/gpu.",
        ),
        (
            [asks(gpus=8)],
            Surroundings(GPU_NODES),
            "The pod of workers finds no node: 8 nvidia.com/gpu are needed on one, at most 4 nvidia.com/gpu are "
            "free.",
        ),
        (
            [replace(asks(gpus=1), tolerations=())],
            Surroundings(GPU_NODES),
            "The pod of workers finds no node: those that fit are tainted nvidia.com/gpu.",
        ),
        (
            [asks(selector={"zone": "b"})],
            Surroundings([node("a", {"zone": "a"})]),
            "The pod of workers finds no node: none is labelled zone=b.",
        ),
        ([HEAD], Surroundings([]), "The pod of the head finds no node: there is none."),
        (
            [replace(asks(count=2, cpu="1"), apart=True)],
            Surroundings([node("only")]),
            "1 of 2 pods of workers find no node: each needs 1 CPU, 32.0 GiB memory.",
        ),
        (
            [HEAD],
            Surroundings([CPU_NODE], quotas=[Quota("team", amounts({"requests.memory": "10Gi"}))]),
            "The ResourceQuota team leaves 10.0 GiB requests.memory; 12.0 GiB requests.memory are needed.",
        ),
        (
            [HEAD],
            Surroundings([CPU_NODE], missing=["the Secret hf", "the PersistentVolumeClaim models"]),
            "The namespace lacks the Secret hf and the PersistentVolumeClaim models.",
        ),
        (
            [WORKERS],
            Surroundings([CPU_NODE], pools=[pool(left=amounts({GPU: "4"}))]),
            "2 of 2 pods of workers find no node: 4 nvidia.com/gpu are needed on one, at most 0 nvidia.com/gpu are "
            "free; the NodePool gpus may get 4 nvidia.com/gpu more.",
        ),
        (
            [asks(selector={"team": "a"}, gpus=4)],
            Surroundings([CPU_NODE], pools=[pool()]),
            "The pod of workers finds no node: none is labelled team=a; no NodePool is for such pods.",
        ),
        (
            [WORKERS],
            Surroundings([CPU_NODE], groups=[Group("gpu", 2, 2)]),
            "2 of 2 pods of workers find no node: 4 nvidia.com/gpu are needed on one, at most 0 nvidia.com/gpu are "
            "free; every node group of the cluster autoscaler is at its maximum.",
        ),
    ],
)
def test_what_is_lacking_is_named(asked: list[Demand], there: Surroundings, said: str) -> None:
    """One sentence, from which a person knows what to add."""
    found = capacity(asked, there)

    assert found.enough is False
    assert said == found.sentence


@pytest.mark.parametrize(
    "one",
    [
        pool(),
        pool(left=amounts({GPU: "8", "cpu": "100"})),
        pool(labels={"team": "a"}),
        pool(requirements=[{"key": "team", "operator": "In", "values": ["a", "b"]}]),
        pool(requirements=[{"key": "team", "operator": "Exists"}]),
    ],
)
def test_karpenter_may_get_nodes_within_its_limits(one: Pool) -> None:
    """Labels that the pool gives or allows are selected, and so are those that the cloud gives."""
    selector = {"node.kubernetes.io/instance-type": "g6e.12xlarge"} | (
        {"team": "a"} if one.labels or one.requirements else {}
    )
    found = capacity([HEAD, replace(WORKERS, selector=selector)], Surroundings([CPU_NODE], pools=[one]))

    assert found.enough is True
    assert found.sentence == "2 of 3 pods need new nodes, which the NodePool gpus may get."


@pytest.mark.parametrize(
    "requirement",
    [
        {"key": "team", "operator": "NotIn", "values": ["a"]},
        {"key": "team", "operator": "In", "values": ["b"]},
        {"key": "team", "operator": "DoesNotExist"},
    ],
)
def test_a_pool_that_forbids_the_label_gets_no_nodes_for_it(requirement: dict[str, Any]) -> None:
    """Karpenter would leave such pods waiting."""
    asked = asks(selector={"team": "a"}, gpus=1)

    assert capacity([asked], Surroundings([], pools=[pool(requirements=[requirement])])).enough is False


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (Surroundings(None), "What nodes have free cannot be read."),
        (
            Surroundings([], pools=None),
            "The pod of the head finds no node: there is none; Karpenter's NodePools cannot be read.",
        ),
        (
            Surroundings([], groups=[Group("cpu", 1, 3), Group("gpu", 2, 2)]),
            "The pod of the head finds no node: there is none; the cluster autoscaler may still enlarge cpu.",
        ),
        (
            Surroundings([CPU_NODE], quotas=None),
            "Every pod (1) finds room on nodes that are there; the namespace's quotas cannot be read.",
        ),
        (
            Surroundings([CPU_NODE], doubtful=["the PersistentVolumeClaim models is Pending"]),
            "Every pod (1) finds room on nodes that are there; the PersistentVolumeClaim models is Pending.",
        ),
    ],
)
def test_what_could_not_be_read_is_never_a_yes(there: Surroundings, said: str) -> None:
    """Nor is it a no."""
    found = capacity([HEAD], there)

    assert found.enough is None
    assert said == found.sentence


def test_what_nobody_may_ask_is_said_beside_the_answer() -> None:
    """A Secret that the Role does not name changes nothing about the room on nodes."""
    found = capacity([HEAD], Surroundings([CPU_NODE], unasked=["whether the Secret hf exists may not be asked"]))

    assert found.enough is True
    assert found.sentence.endswith("; whether the Secret hf exists may not be asked.")


def test_a_quota_counts_requests_limits_pods_and_objects() -> None:
    """By the names that a ResourceQuota has for them."""
    needs = quota_needs([HEAD, WORKERS])

    assert (Decimal(10), Decimal(10), Decimal(8)) == (needs["cpu"], needs["requests.cpu"], needs[f"requests.{GPU}"])
    assert (Decimal(3), Decimal(3), Decimal(1)) == (
        needs["pods"],
        needs["count/pods"],
        needs["count/rayservices.ray.io"],
    )
    assert Decimal((12 + 56) * 2**30) == needs["limits.memory"]


def container(cpu: str, memory: str = "1Gi", **more: Any) -> dict[str, Any]:
    """Return a container that requests CPU and is limited in memory."""
    return {"resources": {"requests": {"cpu": cpu}, "limits": {"memory": memory}}, **more}


def ray_service(**config: Any) -> dict[str, Any]:
    """Return a RayService with a head, two workers, and everything it could name."""
    head = {
        "containers": [
            container(
                "2", envFrom=[{"secretRef": {"name": "store"}}, {"secretRef": {"name": "may-be", "optional": True}}]
            )
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [{"persistentVolumeClaim": {"claimName": "models"}}, {"secret": {"secretName": "ca"}}],
    }
    worker = {
        "containers": [container("4", env=[{"valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}])],
        "initContainers": [container("6", "512Mi"), container("1", restartPolicy="Always")],
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]
            }
        },
    }
    return {
        "spec": {
            "rayClusterConfig": {
                "headGroupSpec": {"template": {"spec": head}},
                "workerGroupSpecs": [{"groupName": "workers", "replicas": 2, "template": {"spec": worker}}],
                **config,
            }
        }
    }


def test_a_pod_asks_for_its_containers_or_its_greediest_beginning() -> None:
    """Limits count where nothing is requested, and sidecars beside the containers."""
    head, workers = demands(ray_service())

    assert {"cpu": Decimal(2), "memory": Decimal(2**30), "pods": Decimal(1)} == head.requests
    assert {"cpu": Decimal(6), "memory": Decimal(2 * 2**30), "pods": Decimal(1)} == workers.requests
    assert ("the group workers", 2, True) == (workers.name, workers.count, workers.apart)


def test_the_autoscaler_of_kuberay_counts() -> None:
    """It runs in the head's pod, with its own requests or those it is given."""
    scaling, *_ = demands(ray_service(enableInTreeAutoscaling=True))
    given, *_ = demands(
        ray_service(enableInTreeAutoscaling=True, autoscalerOptions={"resources": {"requests": {"cpu": "100m"}}})
    )

    assert (Decimal("2.5"), Decimal("2.1")) == (scaling.requests["cpu"], given.requests["cpu"])


def test_claims_and_secrets_are_found_wherever_they_are_named() -> None:
    """What is optional is not needed."""
    named = ray_service(authOptions={"mode": "token", "secretName": "ray-token"})

    assert claims(named) == ("models",)
    assert secrets(named) == ("ca", "hf", "ray-token", "registry", "store")
