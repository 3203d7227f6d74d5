"""What a rendered release asks of a cluster: amounts, nodes, claims and Secrets.

All is read from the RayService that will be applied, so nothing else is counted, and nothing is forgotten.

A pod asks for the sum of its containers, or for its greediest init container where that is more:
https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers.  KubeRay 1.7
adds a container to the head where it scales workers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from k8s.kinds import Object

Amounts = Mapping[str, Decimal]

SCALER = {"cpu": "500m", "memory": "512Mi"}
"""Requests and limits of KubeRay's autoscaler container, unless ``autoscalerOptions`` says otherwise."""

HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Demand:
    """``count`` pods that each ask for ``requests``, on nodes that they select and whose taints they tolerate.

    ``apart`` says that no two of them may lie on one node.
    """

    name: str
    count: int
    requests: Amounts
    limits: Amounts
    selector: Mapping[str, str]
    tolerations: tuple[Object, ...] = ()
    apart: bool = False


def demands(ray_service: Object) -> tuple[Demand, ...]:
    """Return what the head and the first workers of a rendered RayService ask for."""
    config = ray_service["spec"]["rayClusterConfig"]
    head = config["headGroupSpec"]["template"]["spec"]
    scaling = {**head, "containers": [*head["containers"], *_scaler(config)]}
    return (
        pod_demand(scaling, "the head"),
        *(
            pod_demand(group["template"]["spec"], f"the group {group['groupName']}", int(group.get("replicas") or 0))
            for group in config.get("workerGroupSpecs") or ()
        ),
    )


def pod_demand(pod: Object, name: str = "pod", count: int = 1) -> Demand:
    """Return what ``count`` pods with this spec ask for."""
    return Demand(
        name=name,
        count=count,
        requests=requests_of(pod),
        limits=_total(pod, "limits"),
        selector=pod.get("nodeSelector") or {},
        tolerations=tuple(pod.get("tolerations") or ()),
        apart=_keeps_apart(pod),
    )


def claims(ray_service: Object) -> tuple[str, ...]:
    """Return the PersistentVolumeClaims that a rendered RayService names."""
    return _sorted(found["claimName"] for found in _inside(ray_service["spec"]) if "claimName" in found)


def secrets(ray_service: Object) -> tuple[str, ...]:
    """Return the Secrets that a rendered RayService cannot do without."""
    parts = list(_inside(ray_service["spec"]))
    references = [part[key] for part in parts for key in ("secretKeyRef", "secretRef", "secret") if key in part]
    pulling = [one for part in parts for one in part.get("imagePullSecrets") or ()]
    needed = [one for one in (*references, *pulling) if not one.get("optional")]
    token = (ray_service["spec"]["rayClusterConfig"].get("authOptions") or {}).get("secretName")
    return _sorted([*(one.get("secretName") or one.get("name") for one in needed), token])


def amounts(named: Mapping[str, Any] | None) -> dict[str, Decimal]:
    """Return quantities as numbers: CPUs, bytes, devices."""
    return {name: parse_quantity(quantity) for name, quantity in (named or {}).items()}


def requests_of(pod: Object) -> dict[str, Decimal]:
    """Return what the pod with this spec asks of its node; what has a limit alone requests that."""
    return _total(pod, "requests") | {"pods": Decimal(1)}


def plus(*many: Amounts) -> dict[str, Decimal]:
    """Return the sum of amounts."""
    names = {name for one in many for name in one}
    return {name: sum((one.get(name, Decimal(0)) for one in many), Decimal(0)) for name in names}


def times(count: int, one: Amounts) -> dict[str, Decimal]:
    """Return ``count`` times the amounts."""
    return {name: count * amount for name, amount in one.items()}


def minus(one: Amounts, other: Amounts) -> dict[str, Decimal]:
    """Return what is left of ``one``; what only ``other`` has is not looked at."""
    return {name: amount - other.get(name, Decimal(0)) for name, amount in one.items()}


def _sorted(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in names if name}))


def _inside(value: object) -> Iterator[Object]:
    """Yield every mapping inside ``value``, itself included."""
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        yield from _inside(one)


def _scaler(config: Object) -> tuple[Object, ...]:
    if not config.get("enableInTreeAutoscaling"):
        return ()
    told = (config.get("autoscalerOptions") or {}).get("resources")
    return ({"resources": told or {"requests": SCALER, "limits": SCALER}},)


def _total(pod: Object, what: str) -> dict[str, Decimal]:
    starting = pod.get("initContainers") or ()
    staying = [one for one in starting if one.get("restartPolicy") == "Always"]
    running = plus(*(_of(one, what) for one in (*pod["containers"], *staying)))
    passing = [_of(one, what) for one in starting if one not in staying]
    names = {name for one in (running, *passing) for name in one}
    most = {name: max(one.get(name, Decimal(0)) for one in (running, *passing)) for name in names}
    return plus(most, amounts(pod.get("overhead")))


def _of(container: Object, what: str) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    limits = amounts(resources.get("limits"))
    return limits if what == "limits" else limits | amounts(resources.get("requests"))


def _keeps_apart(pod: Object) -> bool:
    away = ((pod.get("affinity") or {}).get("podAntiAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return any(term.get("topologyKey") == HOSTNAME for term in away or ())
