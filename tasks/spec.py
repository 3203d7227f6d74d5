"""The service spec: one YAML file per service, checked before anything is touched.

A spec says what a service serves and how its releases are judged; ``tasks._spec_file`` reads it.  Durations are
seconds, sizes are bytes unless the name says otherwise.
"""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from k8s.spec import Kubernetes
from tasks._spec_checks import Checks, Seconds, Share, is_json
from tasks._spec_notify import Receivers
from tasks._spec_schedules import Schedules
from tasks.records import Value


def _is_no_release(name: str) -> str:
    if re.search(r"-r\d+$", name):
        raise ValueError("a service may not be called as a release is")
    return name


def _is_open_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
        raise ValueError("an http(s) URL without a user or password is needed: a spec is kept in the open")
    return url


ServiceName = Annotated[
    str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"), AfterValidator(_is_no_release)
]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=96)]
Licence = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+_-]*$", max_length=96)]


class Policy(StrEnum):
    """What happens with a new commit of the followed ref."""

    AUTO = "auto"
    APPROVE = "approve"
    MANUAL = "manual"


class TargetKind(StrEnum):
    """Where releases run."""

    RAY = "ray"
    KUBERAY = "kuberay"


Count = Annotated[int, Field(ge=1)]
Delay = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Autoscaling(Value):
    """Between how many replicas Serve moves with the load, by Serve's own names."""

    min_replicas: Count = Field(1, description="replicas a release starts with, and never has less")
    max_replicas: Count = Field(description="replicas it never has more than")
    target_ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="requests that a replica shall have; none: half of the engine's max_num_seqs"
    )
    upscale_delay_s: Delay = Field(30, description="seconds that the load is higher before replicas are added")
    downscale_delay_s: Delay = Field(600, description="seconds that it is lower before replicas are taken away")

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self


class Resources(Value):
    """What one replica of the engine is given, and how many there are."""

    replicas: Annotated[int, Field(ge=1)] = Field(1, description="engine replicas of a release")
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1, description="logical CPUs of a replica, as Ray counts them"
    )
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0, description="GPUs of a replica, for all its shards together; 0 runs the CPU build"
    )
    autoscaling: Autoscaling | None = Field(None, description="replicas that follow the load; none: `replicas`")

    @model_validator(mode="after")
    def _one_number_of_replicas(self) -> Self:
        if self.autoscaling is not None and self.replicas != 1:
            raise ValueError("`replicas` and `autoscaling` exclude each other: set `min_replicas`")
        return self

    @property
    def at_first(self) -> int:
        """Return the number of replicas that a release starts with."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas


class Deadlines(Value):
    """The longest each wait may take before the release is given up."""

    ready: Seconds = Field(900, description="from the start of a candidate to its first answer")
    request: Seconds = Field(120, description="one request, the longest generation included")
    checks: Seconds = Field(1800, description="all questions of one kind of check")


class Limits(Value):
    """What a commit may be; anything else is refused before the first large byte."""

    total_bytes: Annotated[int, Field(gt=0)] = Field(2 * 10**12, description="size of all files together")
    files: Annotated[int, Field(gt=0)] = Field(10_000, description="number of files")
    licences: tuple[Licence, ...] = Field(
        (), description="licences that may be served, as the Hub writes them, e.g. apache-2.0; none allows any"
    )


class SignatureDemand(Value):
    """Only files that the holder of a key signed are served; see ``tasks._weights.signatures``."""

    public_key: str = Field(description="PEM file of the public key, beside the spec")


class Shift(Value):
    """How live traffic moves to a new release; a target that knows no shares moves all of it at once."""

    steps: tuple[Annotated[int, Field(gt=0, le=100)], ...] = Field((100,), description="percent, rising to 100")
    pause: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(30, description="seconds between two steps")

    @field_validator("steps")
    @classmethod
    def _rises_to_all(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if list(steps) != sorted(set(steps)) or not steps or steps[-1] != 100:  # noqa: PLR2004 - percent
            raise ValueError("the steps must rise, and end at 100")
        return steps


class Bake(Value):
    """The time after promotion in which a failing check moves traffic back."""

    seconds: Seconds = Field(20, description="how long the new release is watched")
    interval: Seconds = Field(2, description="pause between two looks")
    prometheus: Annotated[str, AfterValidator(_is_open_url)] = Field(
        "", description="base URL of a Prometheus that knows the live traffic; none: not asked"
    )
    error_query: str = Field("", description="PromQL whose value is the error rate of the live release")
    max_error_rate: Share = Field(0.01, description="error rate, by Prometheus or the probe, that moves traffic back")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if bool(self.prometheus) != bool(self.error_query):
            raise ValueError("`prometheus` and `error_query` need each other")
        return self


class Probe(Value):
    """Slipway's own clients of the live address while a release happens; what they saw is the receipt."""

    enabled: bool = Field(True, description="without it there is no receipt, and no proof")
    rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = Field(
        1.0, description="plain requests started each second, whatever became of those before"
    )
    streams: Annotated[int, Field(ge=0)] = Field(2, description="streams held open all the time")
    stream_tokens: Annotated[int, Field(gt=0)] = Field(64, description="tokens of each stream")
    slow: Seconds = Field(10, description="a first token, a plain answer or a gap that takes longer counts as slow")


class Approval(Value):
    """Waiting for a person; a timeout is a refusal."""

    timeout: Seconds = Field(86_400, description="longest wait for an answer")

    @property
    def span(self) -> timedelta:
        """Return the longest wait."""
        return timedelta(seconds=self.timeout)


class ServiceSpec(Value):
    """One service: its model, where it runs, and how its releases are judged."""

    service: ServiceName
    model: ModelName
    ref: str = Field("main", min_length=1, description="branch, tag or 40-hex commit to follow")
    policy: Policy = Field(
        Policy.AUTO, description="auto releases a new commit, approve asks a person first, manual only reports it"
    )
    target: TargetKind = TargetKind.RAY
    kubernetes: Kubernetes | None = Field(
        None, validate_default=True, description="how releases run on the target kuberay"
    )
    resources: Resources = Resources()
    engine: Annotated[dict[str, Any], AfterValidator(is_json)] = Field(
        default_factory=dict, description="vLLM engine arguments"
    )
    limits: Limits = Limits()
    signature: SignatureDemand | None = Field(
        None, description="whose signature the weights must bear; none: nobody's"
    )
    checks: Checks = Checks()
    shift: Shift = Shift()
    bake: Bake = Bake()
    probe: Probe = Probe()
    approval: Approval = Approval()
    schedules: Schedules = Schedules()
    deadlines: Deadlines = Deadlines()
    notify: Receivers = Field((), description="who is told of releases that end, or wait for a person")

    @model_validator(mode="after")
    def _shards_have_gpus(self) -> Self:
        tensor, pipeline = (self.engine.get(f"{way}_parallel_size", 1) for way in ("tensor", "pipeline"))
        if type(tensor) is not int or type(pipeline) is not int:
            raise ValueError("tensor_parallel_size and pipeline_parallel_size are whole numbers")
        gpus, shards = self.resources.gpus, tensor * pipeline
        if gpus and (gpus < shards or (pipeline > 1 and gpus != shards)):
            raise ValueError(
                f"resources.gpus {gpus:g} does not fit tensor_parallel_size {tensor} times pipeline_parallel_size "
                f"{pipeline}: set it to {shards}"
            )
        return self

    @field_validator("kubernetes")
    @classmethod
    def _belongs_to_the_target(cls, kubernetes: Kubernetes | None, info: ValidationInfo) -> Kubernetes | None:
        target = info.data.get("target")
        if target is TargetKind.KUBERAY and kubernetes is None:
            raise ValueError("the target kuberay needs this section, with an `image` at least")
        if target is TargetKind.RAY and kubernetes is not None:
            raise ValueError("the target ray has no use for this section: set `target: kuberay`, or leave it out")
        return kubernetes
