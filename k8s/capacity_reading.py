"""Asks a cluster what capacity is judged by: nodes, their pods, NodePools, quotas, claims and Secrets.

Every list is paged, and each thing that the account may not read is left out and said.  Nodes and NodePools belong to
the whole cluster; without the ClusterRole in ``k8s/rbac.yaml`` room on nodes is "not known".  Of a Secret only its
being there is looked at, and only of those that the Role names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from k8s import names
from k8s.api import Api
from k8s.capacity import Capacity, Group, Quota, Surroundings, capacity, quota_needs
from k8s.demands import Demand, amounts, claims, demands, minus, plus, pod_demand, requests_of, secrets
from k8s.errors import ApiError, Reason
from k8s.kinds import NODE, NODE_POOL, POD, PVC, RESOURCE_QUOTA, SECRET, Kind, Object
from k8s.scheduling import Node, Pool

ALL_PODS = Kind("v1", "Pod", "pods", namespaced=False)
AUTOSCALER = Kind("v1", "ConfigMap", "namespaces/kube-system/configmaps", namespaced=False)
STATUS = "cluster-autoscaler-status"
"""Where the cluster autoscaler tells of its node groups, as YAML since 1.30: cluster-autoscaler/clusterstate/api."""
RUNNING = "status.phase!=Succeeded,status.phase!=Failed"
COVERED = {"NotTerminating", "NotBestEffort"}
"""Scopes of quotas that cover the pods of a release: they have requests, and no deadline."""


@dataclass(frozen=True)
class Survey:
    """What a cluster shows, as it says it; None for what this account may not read.

    Without ``nodes`` the ``pods`` are those of ``namespace`` alone, where what is asked for is to run.
    """

    namespace: str
    asked: tuple[Demand, ...]
    nodes: tuple[Object, ...] | None
    pods: tuple[Object, ...] | None
    pools: tuple[Object, ...] | None
    autoscaler: Object | None
    quotas: tuple[Object, ...] | None
    claims: dict[str, Object | None]
    secrets: dict[str, bool | None]


def survey(api: Api, ray_service: Object) -> Survey:
    """Look at all that the rendered release needs; raises ``ApiError`` when the server does not answer."""
    nodes = _listed(api, NODE)
    pods = None if nodes is None else _listed(api, ALL_PODS, RUNNING)
    if pods is None:
        nodes, pods = None, _listed(api, POD, RUNNING)
    return Survey(
        namespace=api.namespace,
        asked=demands(ray_service),
        nodes=nodes,
        pods=pods,
        pools=None if nodes is None else _listed(api, NODE_POOL),
        autoscaler=_found(api, AUTOSCALER, STATUS),
        quotas=_listed(api, RESOURCE_QUOTA),
        claims={name: _found(api, PVC, name) for name in claims(ray_service)},
        secrets={name: _exists(_found(api, SECRET, name)) for name in secrets(ray_service)},
    )


def judged(seen: Survey, without: str | None = None) -> Capacity:
    """Return whether the release finds room, or would when the release called ``without`` were gone."""
    return capacity(seen.asked, surroundings(seen, without))


def surroundings(seen: Survey, without: str | None = None) -> Surroundings:
    """Return what was seen as amounts; what the release ``without`` holds counts as free.

    So does the place of a pod that is being deleted: it is gone when its grace is over, and whoever needs it waits
    until then.
    """
    freed = [pod for pod in seen.pods or () if without is not None and _is_of(pod, without, seen.namespace)]
    pods = [pod for pod in seen.pods or () if pod not in freed and "deletionTimestamp" not in pod["metadata"]]
    return Surroundings(
        nodes=None if seen.nodes is None or seen.pods is None else [_node(node, pods) for node in seen.nodes],
        pools=None if seen.pools is None else [_pool(pool, freed) for pool in seen.pools],
        groups=_groups(seen.autoscaler),
        quotas=None if seen.quotas is None else [_quota(one, freed) for one in seen.quotas if _covers(one)],
        missing=[
            *(f"the PersistentVolumeClaim {name}" for name, claim in seen.claims.items() if claim == {}),
            *(f"the Secret {name}" for name, there in seen.secrets.items() if there is False),
        ],
        doubtful=[
            f"the PersistentVolumeClaim {name} is {claim['status']['phase']}"
            for name, claim in seen.claims.items()
            if claim and claim["status"]["phase"] != "Bound"
        ],
        unasked=[
            f"whether the Secret {name} exists may not be asked"
            for name, there in seen.secrets.items()
            if there is None
        ],
    )


def _listed(api: Api, kind: Kind, fields: str = "") -> tuple[Object, ...] | None:
    """Return all objects of the kind, none where the kind is not served; None without a right to them."""
    try:
        return api.list(kind, fields=fields).items
    except ApiError as error:
        if error.reason is Reason.NOT_SERVED:
            return ()
        if error.reason is Reason.FORBIDDEN:
            return None
        raise


def _found(api: Api, kind: Kind, name: str) -> Object | None:
    """Return the object, an empty one where there is none; None without a right to it."""
    try:
        return api.get(kind, name) or {}
    except ApiError as error:
        if error.reason is Reason.FORBIDDEN:
            return None
        raise


def _exists(found: Object | None) -> bool | None:
    return None if found is None else bool(found)


def _is_of(pod: Object, release: str, namespace: str) -> bool:
    """Say whether a pod is of that release; another namespace may have one of the same name."""
    meta = pod["metadata"]
    return bool(meta["namespace"] == namespace and (meta.get("labels") or {}).get(names.RELEASE) == release)


def _node(node: Object, pods: Sequence[Object]) -> Node:
    name = node["metadata"]["name"]
    used = [requests_of(pod["spec"]) for pod in pods if pod["spec"].get("nodeName") == name]
    free = minus(amounts(node["status"].get("allocatable")), plus(*used))
    return Node(name, node["metadata"].get("labels") or {}, node["spec"].get("taints") or (), free)


def _pool(pool: Object, freed: Sequence[Object]) -> Pool:
    template = pool["spec"]["template"]
    used = minus(
        amounts((pool.get("status") or {}).get("resources")), plus(*(requests_of(one["spec"]) for one in freed))
    )
    left = minus(amounts(pool["spec"].get("limits")), used)
    return Pool(
        name=pool["metadata"]["name"],
        labels=(template.get("metadata") or {}).get("labels") or {},
        requirements=template["spec"].get("requirements") or (),
        taints=template["spec"].get("taints") or (),
        left=left,
    )


def _quota(quota: Object, freed: Sequence[Object]) -> Quota:
    status = quota.get("status") or {}
    given_back = quota_needs(pod_demand(pod["spec"]) for pod in freed) if freed else {}
    used = minus(amounts(status.get("used")), given_back)
    return Quota(quota["metadata"]["name"], minus(amounts(status.get("hard") or quota["spec"].get("hard")), used))


def _covers(quota: Object) -> bool:
    """Say whether a quota counts the pods of a release; one with a scope selector may, and is left to the server."""
    return set(quota["spec"].get("scopes") or ()) <= COVERED and not quota["spec"].get("scopeSelector")


def _groups(config_map: Object | None) -> list[Group]:
    """Return the cluster autoscaler's node groups; an older one tells of them in a text that nobody parses here."""
    try:
        told = yaml.safe_load((config_map or {}).get("data", {}).get("status", ""))
    except yaml.YAMLError:
        return []
    groups = told.get("nodeGroups") if isinstance(told, dict) else None
    return [
        Group(one["name"], one["health"]["cloudProviderTarget"], one["health"]["maxSize"]) for one in groups or ()
    ]
