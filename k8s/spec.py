"""The section ``kubernetes`` of a service spec: what the pods of its releases are, and who may reach them.

    target: kuberay
    kubernetes:
      image: registry.example.com/slipway-payload@sha256:...
      worker: {cpu: 8, memory: 28Gi, node_selector: {node.kubernetes.io/instance-type: g6e.2xlarge}}

Quantities are written as Kubernetes writes them (``500m``, ``28Gi``).  Nothing here is a secret: Secrets are named.
"""

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from k8s.spec_pods import (
    GPU,
    Effect,
    Head,
    Mount,
    Name,
    Quantity,
    SecretKey,
    Section,
    Texts,
    Toleration,
    Weights,
    Worker,
)

OURS = frozenset(
    {
        *(
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S",
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S",
            "RAY_SERVE_ENABLE_HA_PROXY",
        ),
        *("SLIPWAY_CACHE", "HF_TOKEN"),
    }
)
"""Variables that follow from the rest of the spec."""
DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def _no_ours(environment: dict[str, str]) -> dict[str, str]:
    if taken := sorted(OURS & environment.keys()):
        raise ValueError(f"{taken[0]} follows from the rest of the spec: leave it out")
    return environment


class ServiceAccount(Section):
    """Who the pods are: with EKS the pod identity that may read the bucket."""

    name: Name | None = Field(None, description="its name; none: the service's")
    create: bool = Field(True, description="whether it is Slipway's; false: it exists")
    annotations: Texts = Field(default_factory=dict, description="e.g. eks.amazonaws.com/role-arn")


class Redis(Section):
    """A Redis that keeps Ray's control state, so that a head that dies comes back with its workers."""

    address: str = Field(pattern=r"^(redis(s)?://)?[^\s/@]+:\d+$", description="host:port; rediss:// for TLS")
    username: str | None = Field(None, description="user, if it has one")
    password: SecretKey | None = Field(None, description="Secret that holds the password")


class ServiceType(StrEnum):
    """How the stable Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class Access(Section):
    """The stable Service: the address that clients call."""

    type: ServiceType = Field(ServiceType.CLUSTER_IP, description="LoadBalancer and NodePort lead in from outside")
    annotations: Texts = Field(default_factory=dict, description="e.g. for a load balancer")
    load_balancer_class: str | None = Field(None, description="e.g. service.k8s.aws/nlb")


class Header(Section):
    """A header that requests may bear."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$", description="name of the header")
    value: str = Field(min_length=1, description="its value, exactly")


class Gateway(Section):
    """A Gateway API route, which shares live traffic by weight; see ``shift.steps``."""

    name: Name | None = Field(None, description="of the Gateway; none: in the mesh, where the Service is the parent")
    namespace: Name | None = Field(None, description="of the Gateway; none: the release's")
    listener: str | None = Field(None, description="name of its listener; none: each that fits")
    hostnames: tuple[str, ...] = Field((), description="hosts to route; none: all of the listener's")
    candidate_header: Header | None = Field(
        None, description="requests with it go to the candidate while traffic is shared; none: weights alone"
    )


class Network(Section):
    """Who may reach the pods.  Ray's own ports are open to the same service's pods alone, whatever is said here."""

    policy: bool = Field(True, description="whether NetworkPolicies are made")
    clients: tuple[Name, ...] = Field(
        (), description="namespaces that may call the service, Slipway's too; none: all"
    )
    operator: Name = Field("kuberay-operator", description="namespace of KubeRay's operator")
    monitoring: Name = Field("monitoring", description="namespace that may read metrics")


class Spread(StrEnum):
    """Whether pods of a release share a node."""

    PREFER = "prefer"
    REQUIRE = "require"


class WhenShort(StrEnum):
    """What happens with a release that finds no room beside the live one."""

    REFUSE = "refuse"
    WAIT = "wait"
    RECREATE = "recreate"


def _toleration_of_gpus() -> tuple[Toleration, ...]:
    return (Toleration(key=GPU, effect=Effect.NO_SCHEDULE),)


class Kubernetes(Section):
    """How releases of a service run on Kubernetes."""

    allow_tag: bool = Field(False, description="take an image by tag, which may mean other bytes tomorrow")
    image: str = Field(description="payload image by digest: registry/name@sha256:...")
    ray_version: str = Field("2.60.0", pattern=r"^\d+\.\d+\.\d+$", description="version of Ray in the image")
    pull_secrets: tuple[Name, ...] = Field((), description="Secrets of the image's registry")
    head: Head = Head()
    worker: Worker = Worker()
    gpu_tolerations: tuple[Toleration, ...] = Field(
        default_factory=_toleration_of_gpus, description="of pods with GPUs, beside the worker's own"
    )
    weights: Weights = Weights()
    shared_memory: Quantity | None = Field(None, description="most of /dev/shm; none: as the pod's memory")
    environment: Annotated[Texts, AfterValidator(_no_ours)] = Field(
        default_factory=dict, description="more variables of the payload, no secrets"
    )
    secrets: tuple[Name, ...] = Field(
        (), description="Secrets whose keys all become variables, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    hub_token: SecretKey | None = Field(
        None, description="becomes HF_TOKEN; Slipway's payload asks no Hub, only another image may need it"
    )
    mounts: tuple[Mount, ...] = Field((), description="more folders in every pod")
    user: Annotated[int, Field(ge=0)] = Field(1000, description="user and group of the pods; the image's is 1000")
    service_account: ServiceAccount = ServiceAccount()
    ray_token: Name | None = Field(
        None, description="Secret with Ray's token in the key auth_token; none: KubeRay makes one for each release"
    )
    redis: Redis | None = Field(None, description="keeps Ray's control state; none: a head that dies starts anew")
    haproxy: bool = Field(True, description="Serve's HAProxy, which sends streams past Python; false: Python's proxy")
    access: Access = Access()
    gateway: Gateway | None = Field(None, description="a Gateway that shares traffic; none: the Service moves it all")
    network: Network = Network()
    spread: Spread = Field(Spread.PREFER, description="whether workers of a release must lie on different nodes")
    when_short: WhenShort = Field(
        WhenShort.REFUSE,
        description="without room for a candidate beside the live release: refuse it, wait for room until "
        "deadlines.ready, or recreate: remove the live release first, an outage until the candidate answers",
    )
    evictable: Annotated[int, Field(ge=0)] = Field(
        0, description="pods of a release that a drained node may evict at once; 0: it waits for the next release"
    )

    @field_validator("image")
    @classmethod
    def _is_pinned(cls, image: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"\S+", image) or not (info.data.get("allow_tag") or DIGEST.fullmatch(image)):
            raise ValueError(
                "an image without a digest may be another one tomorrow: write name@sha256:..., which the registry "
                "shows, or set `allow_tag: true`"
            )
        return image

    @model_validator(mode="after")
    def _clients_are_inside(self) -> Self:
        if self.network.clients and self.access.type is not ServiceType.CLUSTER_IP:
            raise ValueError(
                f"`network.clients` names namespaces, and requests through a {self.access.type.value} come from "
                "outside: leave one of them out"
            )
        return self
