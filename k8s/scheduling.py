"""Where pods could run: what the scheduler and Karpenter would say, as far as labels, taints and amounts decide.

A sketch of https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/, good enough to tell what is
lacking.  Affinities beyond "no two on one node" are not looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from k8s.demands import Amounts, Demand, minus
from k8s.kinds import Object

EVICTS = frozenset({"NoSchedule", "NoExecute"})
WELL_KNOWN = ("kubernetes.io/", "k8s.io/", "karpenter.sh/", "karpenter.k8s.aws/", "eks.amazonaws.com/")
"""Domains of labels that Karpenter's providers put on nodes whether or not a pool names them."""


@dataclass(frozen=True)
class Node:
    """A node, and what its pods leave free."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Object]
    free: Amounts


@dataclass(frozen=True)
class Pool:
    """A Karpenter NodePool: the labels and taints of its nodes, and what its limits leave; no limit is no entry."""

    name: str
    labels: Mapping[str, str]
    requirements: Sequence[Object]
    taints: Sequence[Object]
    left: Amounts


def homeless_after(asked: Sequence[Demand], nodes: Sequence[Node]) -> list[tuple[Demand, int]]:
    """Put pods on nodes, the greediest first, each where least would be left over; return what found none.

    Nodes with devices that a pod does not ask for come last, as they are wanted by others.
    """
    free = {node.name: node.free for node in nodes}
    homeless = []
    for demand in sorted(
        asked, key=lambda one: (sum(_devices(one.requests).values()), one.requests["cpu"]), reverse=True
    ):
        fitting = [node for node in nodes if may_run(demand, node.labels, node.taints)]
        placed = _place(demand, [node.name for node in fitting], free)
        if placed < demand.count:
            homeless.append((demand, demand.count - placed))
    return homeless


def _place(demand: Demand, names: Sequence[str], free: dict[str, Amounts]) -> int:
    """Take room for the pods from ``free`` and return how many found some."""
    open_ = set(names)
    for number in range(demand.count):
        rooms = [name for name in open_ if _holds(free[name], demand.requests)]
        if not rooms:
            return number
        best = min(rooms, key=lambda name: (*_left_over(free[name], demand.requests), name))
        free[best] = minus(free[best], demand.requests)
        if demand.apart:
            open_.remove(best)
    return demand.count


def _left_over(free: Amounts, requests: Amounts) -> tuple[Decimal, Decimal]:
    left = minus(free, requests)
    return sum(_devices(left).values(), Decimal(0)), left.get("cpu", Decimal(0))


def _devices(requests: Amounts) -> Amounts:
    return {name: amount for name, amount in requests.items() if "/" in name}


def _holds(free: Amounts, requests: Amounts) -> bool:
    return all(amount <= free.get(name, Decimal(0)) for name, amount in requests.items())


def may_run(demand: Demand, labels: Mapping[str, str], taints: Sequence[Object]) -> bool:
    """Say whether the pods may lie on a node with these labels and taints."""
    return not unlabelled(demand, labels) and not untolerated(demand, taints)


def could_run(demand: Demand, pool: Pool) -> bool:
    """Say whether the pods may lie on a node that the pool gets; what only its cloud knows speaks for it."""
    return not untolerated(demand, pool.taints) and all(_may_have(pool, *one) for one in demand.selector.items())


def unlabelled(demand: Demand, labels: Mapping[str, str]) -> str:
    """Return the label that the pods select and that is not among these; empty where there is none."""
    return next((f"{key}={value}" for key, value in demand.selector.items() if labels.get(key) != value), "")


def untolerated(demand: Demand, taints: Sequence[Object]) -> str:
    """Return the key of the taint that keeps the pods away; empty where none does."""
    for taint in taints:
        if taint.get("effect") in EVICTS and not any(_tolerates(one, taint) for one in demand.tolerations):
            return str(taint["key"])
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    """Say whether https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/ lets the pod in."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    same = toleration["key"] == taint.get("key")
    exists = toleration.get("operator") == "Exists"
    return same and (exists or (toleration.get("value") or "") == (taint.get("value") or ""))


def _may_have(pool: Pool, key: str, value: str) -> bool:
    """Say whether nodes of the pool may bear the label: https://karpenter.sh/docs/concepts/nodepools/."""
    if key in pool.labels:
        return pool.labels[key] == value
    about = [one for one in pool.requirements if one.get("key") == key]
    if not about:
        return any(domain in key for domain in WELL_KNOWN)
    return all(_allows(one, value) for one in about)


def _allows(requirement: Object, value: str) -> bool:
    values = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "DoesNotExist":
            return False
    return True
