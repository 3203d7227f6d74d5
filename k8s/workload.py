"""What is to run for one release, as everything below the target sees it; rendering and capacity start here.

A replica is one pod for each stage of its pipeline, with all GPUs of the stage: what tensor parallelism exchanges for
every token stays on one node.
"""

import math
from pathlib import PurePosixPath
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k8s.names import name_fault
from k8s.spec import Kubernetes

Count = Annotated[int, Field(ge=1)]


class Workload(BaseModel):
    """One release: its arguments, its size, and the section ``kubernetes`` of its spec.

    ``arguments`` are those of ``serve.app:build``.  ``longest_s`` is the longest generation and ``bake_s`` the time
    after promotion in which the release is watched, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str
    release: str
    commit: str
    arguments: dict[str, Any]
    longest_s: Annotated[float, Field(gt=0)]
    bake_s: Annotated[float, Field(gt=0)] = 20.0
    replicas: Count = 1
    """Replicas at the start, and the fewest."""
    most_replicas: Annotated[int, Field(ge=0)] = 0
    """The most replicas that Serve may scale to; 0: as many as at the start."""
    cpus: Annotated[float, Field(gt=0)] = 1
    """Logical CPUs of a replica, as Ray counts them."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of a replica, over all of its pods."""
    pipeline: Count = 1
    """Pods of a replica: stages that the layers are dealt out to."""
    kubernetes: Kubernetes
    namespace: str

    @model_validator(mode="after")
    def _can_be_placed(self) -> Self:
        if said := name_fault(self.release):
            raise ValueError(f"the name {self.release} {said}")
        if self.gpus != int(self.gpus):
            raise ValueError(f"{self.gpus:g} GPUs: a pod is given whole ones, so set `resources.gpus` to one of them")
        if self.gpus % self.pipeline:
            raise ValueError(
                f"{self.gpus:g} GPUs cannot be dealt out evenly to {self.pipeline} stages: set `resources.gpus`"
            )
        if self.most_replicas and self.most_replicas < self.replicas:
            raise ValueError(f"at most {self.most_replicas} replicas, but {self.replicas} at the start")
        return self

    @model_validator(mode="after")
    def _weights_are_within_reach(self) -> Self:
        if self.folder is None:
            return self
        section = self.kubernetes
        reached = [mount.path for mount in section.mounts] + ([section.weights.path] if section.weights.claim else [])
        if not any(PurePosixPath(self.folder).is_relative_to(path) for path in reached):
            raise ValueError(
                f"the weights lie in {self.folder}, which no pod sees: set `kubernetes.weights.claim` to the claim "
                "that holds the store, and its `path` to where the store is mounted here"
            )
        return self

    @property
    def folder(self) -> str | None:
        """Return the folder of the weights when the store is one, None for a bucket."""
        url = urlsplit(str(self.arguments.get("weights", "")))
        return unquote(url.path) if url.scheme == "file" else None

    @property
    def scales(self) -> bool:
        """Say whether Serve may change the number of replicas."""
        return self.most_replicas > self.replicas

    @property
    def workers(self) -> int:
        """Return how many worker pods there are at the start."""
        return self.replicas * self.pipeline

    @property
    def most_workers(self) -> int:
        """Return how many worker pods there are at the most."""
        return max(self.replicas, self.most_replicas) * self.pipeline

    @property
    def pod_gpus(self) -> int:
        """Return the GPUs of one worker pod."""
        return int(self.gpus) // self.pipeline

    @property
    def pod_cpus(self) -> int:
        """Return the logical CPUs of one worker pod, whole because ``ray start`` takes no others."""
        return math.ceil(self.cpus)

    @property
    def endpoints(self) -> int:
        """Return how many pods take requests once all is up: the head, and one for each replica.

        Serve runs a proxy on the head and on every node with a replica of its own; the other stages of a pipeline
        have none, and never become ready.
        """
        return 1 + self.replicas
