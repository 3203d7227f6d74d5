"""What a cluster says of its room: what is free once its pods, quotas and limits are counted."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from k8s.access import Access
from k8s.api import Api
from k8s.capacity import Group
from k8s.capacity_reading import Survey, judged, surroundings, survey
from k8s.demands import pod_demand
from k8s.rayservice import ray_service
from tests.k8s.matrix import workload
from tests.kube.control_plane import ADMIN, ControlPlane

GPU = "nvidia.com/gpu"
RELEASE = "slipway.dev/release"


def a_pod(
    name: str = "old", node: str = "gpu-1", release: str = "chat-r1", namespace: str = "llm", **requests: str
) -> dict[str, Any]:
    """Return a pod on a node that requests and is limited to the same."""
    asked = {key.replace("gpus", GPU): amount for key, amount in requests.items()}
    container = {"name": "main", "image": "any", "resources": {"requests": asked, "limits": asked}}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {RELEASE: release}},
        "spec": {"nodeName": node, "containers": [container]},
    }


def a_node(name: str = "gpu-1", **allocatable: str) -> dict[str, Any]:
    """Return a node."""
    given = {key.replace("gpus", GPU): amount for key, amount in allocatable.items()}
    return {
        "metadata": {"name": name, "labels": {"zone": "a"}},
        "spec": {},
        "status": {"allocatable": given | {"pods": "9"}},
    }


def a_pool(**limits: str) -> dict[str, Any]:
    """Return a NodePool of Karpenter's, whose nodes have 8 GPUs already."""
    template = {"metadata": {"labels": {"team": "a"}}, "spec": {"taints": [{"key": GPU, "effect": "NoSchedule"}]}}
    given = {key.replace("gpus", GPU): amount for key, amount in limits.items()}
    return {
        "metadata": {"name": "gpus"},
        "spec": {"template": template, "limits": given},
        "status": {"resources": {GPU: "8"}},
    }


def a_quota(**spec: Any) -> dict[str, Any]:
    """Return a quota of which 3 of 4 GPUs are used."""
    hard, used = {f"requests.{GPU}": "4"}, {f"requests.{GPU}": "3"}
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used}}


def seen(**changes: Any) -> Survey:
    """Return a survey of an empty cluster."""
    asked = (pod_demand(a_pod(cpu="4", gpus="4")["spec"]),)
    nothing: dict[str, Any] = {"nodes": (), "pods": (), "pools": (), "autoscaler": {}, "quotas": ()}
    return Survey(**{"namespace": "llm", "asked": asked, "claims": {}, "secrets": {}, **nothing} | changes)


def test_what_pods_hold_is_not_free() -> None:
    """Unless they are of the release that would go first."""
    here = seen(nodes=(a_node(cpu="8", gpus="4"),), pods=(a_pod(cpu="2", gpus="4"), a_pod(node="other", cpu="1")))
    (beside,), (alone,) = surroundings(here).nodes or (), surroundings(here, "chat-r1").nodes or ()

    assert {"cpu": Decimal(6), GPU: Decimal(0), "pods": Decimal(8)} == beside.free
    assert {"cpu": Decimal(8), GPU: Decimal(4), "pods": Decimal(9)} == alone.free
    assert (False, True) == (judged(here).enough, judged(here, "chat-r1").enough)


def test_a_pod_on_its_way_out_leaves_its_node() -> None:
    """Its grace lasts minutes, in which the next release may start and wait for the place."""
    leaving = a_pod(cpu="2", gpus="4")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-22T01:09:00Z"
    here = seen(nodes=(a_node(cpu="8", gpus="4"),), pods=(leaving,))

    assert judged(here).enough is True


def test_quotas_and_limits_are_freed_too() -> None:
    """By what the pods of the release that would go count for."""
    here = seen(pods=(a_pod(cpu="2", gpus="3"),), pools=(a_pool(gpus="12"),), quotas=(a_quota(),))
    beside, alone = surroundings(here), surroundings(here, "chat-r1")
    assert beside.quotas
    assert alone.quotas
    assert beside.pools
    assert alone.pools

    assert (Decimal(1), Decimal(4)) == tuple(one[0].left[f"requests.{GPU}"] for one in (beside.quotas, alone.quotas))
    assert (Decimal(4), Decimal(7)) == tuple(one[0].left[GPU] for one in (beside.pools, alone.pools))
    assert {"team": "a"} == beside.pools[0].labels


def test_a_release_of_that_name_in_another_namespace_frees_nothing() -> None:
    """Two services of one name are two installations."""
    here = seen(nodes=(a_node(cpu="8", gpus="4"),), pods=(a_pod(cpu="2", gpus="4", namespace="other"),))

    assert judged(here, "chat-r1").enough is False


def test_quotas_are_freed_where_nodes_may_not_be_read() -> None:
    """The pods of the namespace are known without that right."""
    here = seen(nodes=None, pools=None, pods=(a_pod(cpu="2", gpus="3"),), quotas=(a_quota(),))

    assert (False, None) == (judged(here).enough, judged(here, "chat-r1").enough)


def test_a_full_quota_of_releases_is_full() -> None:
    """Unless one of them goes first."""
    hard = {"count/rayservices.ray.io": "1"}
    quota = {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": hard}}
    here = seen(nodes=(a_node(cpu="8", gpus="4"),), pods=(a_pod(node="other", cpu="1"),), quotas=(quota,))

    assert (False, True) == (judged(here).enough, judged(here, "chat-r1").enough)


@pytest.mark.parametrize(
    ("spec", "covers"),
    [
        ({}, True),
        ({"scopes": ["NotTerminating"]}, True),
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["Terminating"]}, False),
        ({"scopeSelector": {"matchExpressions": []}}, False),
    ],
)
def test_a_quota_of_other_pods_does_not_count(spec: dict[str, Any], covers: bool) -> None:
    """Pods of a release have requests and no deadline."""
    assert covers is bool(surroundings(seen(quotas=(a_quota(**spec),))).quotas)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        (
            "nodeGroups:\n- name: gpu\n  health: {cloudProviderTarget: 2, minSize: 0, maxSize: 4}\n",
            [Group("gpu", 2, 4)],
        ),
        ("Cluster-autoscaler status at 2020:\nCluster-wide:\n  Health: Healthy (ready=1)\n", []),
        ("", []),
    ],
)
def test_the_cluster_autoscaler_tells_of_its_groups(text: str, groups: list[Group]) -> None:
    """Old ones tell of them in a text that is passed over."""
    assert groups == surroundings(seen(autoscaler={"data": {"status": text}})).groups


def test_what_is_named_is_there_missing_or_unknown() -> None:
    """A claim that is not bound yet makes a yes uncertain, and a Secret may be none of our business."""
    there = surroundings(
        seen(
            claims={"models": {"status": {"phase": "Pending"}}, "gone": {}, "bound": {"status": {"phase": "Bound"}}},
            secrets={"hf": False, "other": None, "there": True},
        )
    )

    assert ["the PersistentVolumeClaim gone", "the Secret hf"] == there.missing
    assert ["the PersistentVolumeClaim models is Pending"] == there.doubtful
    assert ["whether the Secret other exists may not be asked"] == there.unasked


@pytest.fixture
def admin(kube: ControlPlane, namespace: str) -> Iterator[Api]:
    """Return a client that may read all."""
    client = Api(Access(namespace, kube.kubeconfig(ADMIN)))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def put(kube: ControlPlane) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Return how an object is made with its status; all are removed after the test."""
    made: list[str] = []

    def make(place: str, obj: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        created = kube.admin.post(place, json=obj).raise_for_status().json()
        made.append(f"{place}/{name}")
        if "status" in obj:
            written = {**created, "status": {**created.get("status", {}), **obj["status"]}}
            kube.admin.put(f"{place}/{name}/status", json=written).raise_for_status()

    try:
        yield make
    finally:
        for place in made:
            kube.admin.delete(f"{place}?gracePeriodSeconds=0")


@pytest.mark.slow
@pytest.mark.usefixtures("extensions")
def test_a_real_api_server_is_read_whole(
    kube: ControlPlane, namespace: str, admin: Api, put: Callable[[str, dict[str, Any]], None]
) -> None:
    """Nodes with taints, pods on them, a NodePool, a quota, the autoscaler, a claim and a Secret."""
    asked = ray_service(workload("gated", namespace=namespace))
    kind = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool"}
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
    pool = a_pool(gpus="16")
    pool["spec"]["template"]["spec"] |= {"nodeClassRef": reference, "requirements": []}
    status = {"data": {"status": "nodeGroups:\n- name: cpu\n  health: {cloudProviderTarget: 1, maxSize: 3}\n"}}
    put("/api/v1/nodes", a_node(cpu="16", memory="64Gi", gpus="4"))
    put(f"/api/v1/namespaces/{namespace}/pods", a_pod(namespace=namespace, cpu="2", memory="1Gi", gpus="1"))
    put("/apis/karpenter.sh/v1/nodepools", {**kind, **pool})
    put(f"/api/v1/namespaces/{namespace}/resourcequotas", a_quota())
    put("/api/v1/namespaces/kube-system/configmaps", {"metadata": {"name": "cluster-autoscaler-status"}, **status})
    put(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "hf-token"}})
    since = kube.audit.position()

    found = survey(admin, asked)
    there = surroundings(found)

    assert {"hf-token": True, "registry": False} == found.secrets
    assert there.missing == ["the Secret registry"]
    assert there.pools
    assert there.quotas
    node = next(one for one in there.nodes or () if one.name == "gpu-1")
    assert (Decimal(14), Decimal(3)) == (node.free["cpu"], node.free[GPU])
    assert (Decimal(8), Decimal(1)) == (there.pools[0].left[GPU], there.quotas[0].left[f"requests.{GPU}"])
    assert there.groups == [Group("cpu", 1, 3)]
    assert "The namespace lacks the Secret registry." == judged(found).sentence
    assert not [one.uri for one in kube.audit.requests(user=ADMIN, since=since) if one.unbounded]
