"""Whether a release finds its room: what its pods ask for against what a cluster has, or may yet get.

Pure, and cautious in one direction.  "No" is said only when something is known to be lacking, with its name; what
could not be read makes "not known", never a yes.  A yes is no promise: others may be quicker, and what Karpenter may
provision its cloud may not have.  A cluster autoscaler's groups do not say what their nodes have, so room that would
have to come from them is "not known".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from k8s.demands import Amounts, Demand, minus, plus, times
from k8s.scheduling import Node, Pool, could_run, homeless_after, unlabelled, untolerated

BYTES = frozenset({"memory", "ephemeral-storage"})


@dataclass(frozen=True)
class Group:
    """A node group of the cluster autoscaler."""

    name: str
    nodes: int
    most: int


@dataclass(frozen=True)
class Quota:
    """A ResourceQuota, and what it leaves by its own names, e.g. ``requests.cpu``."""

    name: str
    left: Amounts


@dataclass(frozen=True)
class Surroundings:
    """What was found in a cluster; None for what could not be read.

    ``missing`` are the things that the release names and that are not there.  ``doubtful`` says what makes a yes
    uncertain, ``unasked`` what nobody may look at; each is the end of a sentence.
    """

    nodes: Sequence[Node] | None
    pools: Sequence[Pool] | None = ()
    groups: Sequence[Group] = ()
    quotas: Sequence[Quota] | None = ()
    missing: Sequence[str] = ()
    doubtful: Sequence[str] = ()
    unasked: Sequence[str] = ()


@dataclass(frozen=True)
class Capacity:
    """Whether there is room (None: not known), and one sentence about it."""

    enough: bool | None
    sentence: str


def capacity(asked: Sequence[Demand], there: Surroundings) -> Capacity:
    """Return whether ``asked`` finds room: what is named must exist, quotas must allow it, nodes must hold it."""
    if there.missing:
        return Capacity(False, f"The namespace lacks {_listed(there.missing)}.")
    for quota in there.quotas or ():
        if lack := _quota_lack(asked, quota):
            return Capacity(False, lack)
    room = _room(asked, there)
    doubts = (*there.doubtful, *(["the namespace's quotas cannot be read"] if there.quotas is None else ()))
    said = "".join(f"; {one}" for one in (*(doubts if room.enough else ()), *there.unasked))
    return Capacity(None if room.enough and doubts else room.enough, f"{room.sentence.removesuffix('.')}{said}.")


def quota_needs(asked: Iterable[Demand]) -> dict[str, Decimal]:
    """Return what the pods count for, by the names that a ResourceQuota uses.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/
    """
    asked = list(asked)
    requests = plus(*(times(one.count, one.requests) for one in asked))
    limits = plus(*(times(one.count, one.limits) for one in asked))
    pods = requests.pop("pods", Decimal(0))
    return {
        **requests,
        **{f"requests.{name}": amount for name, amount in requests.items()},
        **{f"limits.{name}": amount for name, amount in limits.items()},
        **dict.fromkeys(("pods", "count/pods"), pods),
        "count/rayservices.ray.io": Decimal(1),
    }


def shown(name: str, amount: Decimal) -> str:
    """Return an amount for a person: ``2 CPUs``, ``28.0 GiB memory``, ``4 nvidia.com/gpu``."""
    amount = max(amount, Decimal(0))
    if name.rpartition(".")[2] in BYTES:
        return f"{amount / 2**30:.1f} GiB {name}"
    return f"{float(amount):g} {name if name != 'cpu' else 'CPU' if amount == 1 else 'CPUs'}"


def _quota_lack(asked: Sequence[Demand], quota: Quota) -> str:
    needs = quota_needs(asked)
    for name, left in quota.left.items():
        if needs.get(name, Decimal(0)) > max(left, Decimal(0)):
            return (
                f"The ResourceQuota {quota.name} leaves {shown(name, left)}; {shown(name, needs[name])} are needed."
            )
    return ""


def _room(asked: Sequence[Demand], there: Surroundings) -> Capacity:
    pods = sum(one.count for one in asked)
    if there.nodes is None:
        return Capacity(None, "What nodes have free cannot be read.")
    homeless = homeless_after(asked, there.nodes)
    if not homeless:
        return Capacity(True, f"Every pod ({pods}) finds room on nodes that are there.")
    lacking = "; ".join(_why(one, count, there.nodes) for one, count in homeless)
    if there.pools is None:
        return Capacity(None, f"{lacking}; Karpenter's NodePools cannot be read.")
    pool, lacks = _provisioned(homeless, there.pools)
    if not lacks:
        return Capacity(
            True, f"{sum(count for _, count in homeless)} of {pods} pods need new nodes, which {pool} may get."
        )
    return _by_groups("; ".join(filter(None, (lacking, *lacks))), there.groups)


def _by_groups(lacking: str, groups: Sequence[Group]) -> Capacity:
    growing = [group.name for group in groups if group.nodes < group.most]
    if growing:
        return Capacity(None, f"{lacking}; the cluster autoscaler may still enlarge {_listed(growing)}.")
    if groups:
        return Capacity(False, f"{lacking}; every node group of the cluster autoscaler is at its maximum.")
    return Capacity(False, f"{lacking}.")


def _provisioned(homeless: Sequence[tuple[Demand, int]], pools: Sequence[Pool]) -> tuple[str, list[str]]:
    """Return the pools that may get nodes for these pods, and what each pod that none may help would need."""
    left = {pool.name: pool.left for pool in pools}
    helping, lacks = [], []
    for demand, count in homeless:
        fitting = [pool for pool in pools if could_run(demand, pool)]
        need = times(count, demand.requests)
        pool = next((one for one in fitting if not _short(left[one.name], need)), None)
        if pool is not None:
            left[pool.name] = minus(left[pool.name], need)
            helping.append(pool.name)
        elif fitting:
            name = _short(left[fitting[0].name], need)
            lacks.append(f"the NodePool {fitting[0].name} may get {shown(name, left[fitting[0].name][name])} more")
        else:
            lacks.append("no NodePool is for such pods" if pools else "")
    return f"the NodePool {_listed(sorted(set(helping)))}" if helping else "", lacks


def _short(left: Amounts, need: Amounts) -> str:
    """Return the resource that the limits do not leave enough of; without a limit there is enough."""
    return next((name for name, amount in need.items() if name in left and amount > left[name]), "")


def _why(demand: Demand, count: int, nodes: Sequence[Node]) -> str:
    """Return what the cluster lacks for these pods: a label, a toleration, or the resource that is shortest."""
    who = f"{count} of {demand.count} pods of {demand.name} find no node"
    if demand.count == 1:
        who = f"The pod of {demand.name} finds no node"
    labelled = [node for node in nodes if not unlabelled(demand, node.labels)]
    if not labelled:
        selector = ", ".join(f"{key}={value}" for key, value in demand.selector.items())
        return f"{who}: none is labelled {selector}" if nodes else f"{who}: there is none"
    open_ = [node for node in labelled if not untolerated(demand, node.taints)]
    if not open_:
        return (
            f"{who}: those that fit are tainted {_listed(sorted({untolerated(demand, n.taints) for n in labelled}))}"
        )
    for name, amount in sorted(demand.requests.items(), key=lambda one: "/" not in one[0]):
        most = max(node.free.get(name, Decimal(0)) for node in open_)
        if amount > most:
            return f"{who}: {shown(name, amount)} are needed on one, at most {shown(name, most)} are free"
    return (
        f"{who}: each needs {', '.join(shown(name, one) for name, one in demand.requests.items() if name != 'pods')}"
    )


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
