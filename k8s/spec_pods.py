"""What a pod is given, as a service spec says it: its size, the nodes on which it may run, the folders that it sees.

Quantities are written as Kubernetes writes them: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

GPU = "nvidia.com/gpu"
_QUANTITY = re.compile(r"(\d+(\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _quantity(text: str) -> str:
    found = _QUANTITY.fullmatch(text)
    if not found or not float(found[1]):
        raise ValueError("a quantity is written 2, 500m, 28Gi or 12G")
    return text


def _absolute(path: str) -> str:
    if not re.fullmatch(r"/\S*[^\s/]", path) or ".." in path.split("/") or path != str(PurePosixPath(path)):
        raise ValueError("a path is absolute and plain, like /models")
    return path


Quantity = Annotated[str, BeforeValidator(_as_text), AfterValidator(_quantity)]
Path = Annotated[str, AfterValidator(_absolute)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
Texts = dict[str, Annotated[str, BeforeValidator(_as_text)]]


class Section(BaseModel):
    """A part of the spec: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretKey(Section):
    """One value of a Secret of the namespace."""

    secret: Name = Field(description="name of the Secret")
    key: str = Field(min_length=1, description="which of its keys")


class Effect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Section):
    """A taint of nodes on which the pods may run all the same."""

    key: str = Field(min_length=1, description="of the taint")
    value: str | None = Field(None, description="of the taint; none: any")
    effect: Effect | None = Field(None, description="of the taint; none: all of them")


class Pod(Section):
    """What a pod asks of its node, and on which nodes it may run."""

    cpu: Quantity = Field(description="CPU, e.g. 2 or 500m")
    memory: Quantity = Field(description="memory, requested and at most, e.g. 28Gi; /dev/shm counts as well")
    limit_cpu: bool = Field(True, description="whether it may use no more CPU than that; false: what is idle, too")
    node_selector: Texts = Field(default_factory=dict, description="labels that its node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints that its node may have")


class Head(Pod):
    """The head: Ray's control and Serve's controller, no replica and no GPU."""

    cpu: Quantity = Field("2", description="CPU, e.g. 2 or 500m")
    memory: Quantity = Field("8Gi", description="memory, requested and at most")


class Worker(Pod):
    """A worker: one replica, or one stage of its pipeline; its GPUs follow from ``resources.gpus``."""

    cpu: Quantity = Field("4", description="CPU, e.g. 8 or 500m; what Ray counts is `resources.cpus`")
    memory: Quantity = Field("16Gi", description="memory, requested and at most; /dev/shm counts as well")


class Weights(Section):
    """Where a pod keeps the weights: on a claim that pods share (EFS), or on the disk of its node.

    With weights in s3:// a claim holds the verified copy, once for all pods; with weights in a folder of the claim
    itself it is the store, and is mounted for reading alone.  Streamed weights (``engine.load_format:
    runai_streamer``) need room for tokenizers only.
    """

    claim: Name | None = Field(None, description="PersistentVolumeClaim, ReadWriteMany; none: the node's disk")
    path: Path = Field("/models", description="where the claim is mounted")
    size: Quantity | None = Field(None, description="room on the node's disk, requested and at most; none: unnamed")
    host_path: Path | None = Field(
        None,
        description="existing folder of the node, kept between pods, that `user` may write to; none: the pod's own",
    )

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.claim and self.host_path:
            raise ValueError("weights lie on a `claim` or in a `host_path`: name one")
        if self.host_path and self.size:
            raise ValueError("a folder of the node has no `size`: leave it out")
        return self


class Mount(Section):
    """One more folder in every pod, from exactly one place."""

    path: Path = Field(description="where it is mounted")
    claim: Name | None = Field(None, description="PersistentVolumeClaim")
    secret: Name | None = Field(None, description="Secret, a file for each key")
    config_map: Name | None = Field(None, description="ConfigMap, a file for each key")
    host_path: Path | None = Field(None, description="existing folder of the node")
    read_only: bool = Field(True, description="whether pods may only read it")

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if sum(place is not None for place in (self.claim, self.secret, self.config_map, self.host_path)) != 1:
            raise ValueError("a mount has one of `claim`, `secret`, `config_map` and `host_path`")
        return self
