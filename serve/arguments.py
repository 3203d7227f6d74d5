"""What the controller says about a release, checked before anything is loaded.

A release that cannot work is refused in the seconds of Serve's build step, with one sentence, not after minutes
of loading.  So the names of vLLM's arguments are read from its source text: importing it takes seconds, and the
text is exactly the version that will run.
"""

import ast
import difflib
import importlib.util
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

# Where vLLM 0.29 declares its arguments, relative to the package.
DECLARATIONS = {
    "engine/arg_utils.py": ("EngineArgs", "AsyncEngineArgs"),
    "entrypoints/launchers/cli_args.py": ("BaseFrontendArgs", "FrontendArgs"),
}
# What Slipway decides itself: everything is served from the verified copy of one commit.
RESERVED = frozenset(
    {
        "model",
        "model_tag",
        "served_model_name",
        "tokenizer",
        "revision",
        "code_revision",
        "tokenizer_revision",
        "model_weights",
        "hf_config_path",
        "hf_token",
        "download_dir",
        "host",
        "port",
        "root_path",
    }
)
STREAMED = "runai_streamer"
STREAMERS = ("runai_model_streamer", "runai_model_streamer_s3")
LOAD_FORMATS = ("auto", "safetensors", STREAMED)
COUNTS = ("max_num_seqs", "tensor_parallel_size", "pipeline_parallel_size")
MAX_NUM_SEQS = 256
"""The most sequences in one batch; vLLM's own default depends on the GPU, and the admission limit needs a number."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Autoscaling(_Frozen):
    """Between how many replicas Serve moves, by Serve's own names; a release starts with ``min_replicas``.

    ``target_ongoing_requests`` is how many requests a replica shall have; none: see ``serve.placement``.
    """

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)]
    target_ongoing_requests: Annotated[float, Field(gt=0, strict=False)] | None = None
    upscale_delay_s: Annotated[float, Field(ge=0, strict=False)] = 30.0
    downscale_delay_s: Annotated[float, Field(ge=0, strict=False)] = 600.0

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self


class Resources(_Frozen):
    """What replicas are given: logical CPUs, and GPUs for all of a replica's shards, as Ray counts them.

    ``max_replicas_per_node`` spreads replicas over nodes; none: as Ray finds room.
    """

    replicas: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[float, Field(gt=0, strict=False)] = 1.0
    gpus: Annotated[float, Field(ge=0, strict=False)] = 0.0
    autoscaling: Autoscaling | None = None
    max_replicas_per_node: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_number_of_replicas(self) -> Self:
        if self.autoscaling is not None and self.replicas != 1:
            raise ValueError("replicas and autoscaling exclude each other: set min_replicas")
        return self


class Arguments(_Frozen):
    """One release: which bytes to serve, under which name, with which engine arguments."""

    service: Annotated[str, Field(min_length=1)]
    release: Annotated[str, Field(min_length=1)]
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    model: Annotated[str, Field(min_length=1)]
    served_model_name: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, StringConstraints(pattern=r"^(s3|file)://.+/[0-9a-f]{40}$")]
    engine: dict[str, Any] = {}
    resources: Resources = Resources()
    longest_request_s: Annotated[float, Field(gt=0, strict=False)] = 120.0

    @model_validator(mode="after")
    def _same_commit(self) -> Self:
        if not self.weights.endswith(f"/{self.commit}"):
            raise ValueError(f"weights {self.weights} are not those of commit {self.commit}")
        if self.streamed and not self.weights.startswith("s3://"):
            raise ValueError(f"load_format {STREAMED!r} reads from s3://, not from {self.weights}")
        return self

    @model_validator(mode="after")
    def _shards_have_gpus(self) -> Self:
        for name in COUNTS:
            count = self.engine.get(name, 1)
            if type(count) is not int or count < 1:
                raise ValueError(f"engine.{name} is a whole number from 1, not {count!r}")
        gpus, shards = self.resources.gpus, self.tensor * self.pipeline
        if gpus and (gpus < shards or (self.pipeline > 1 and gpus != shards)):
            raise ValueError(
                f"resources.gpus {gpus:g} does not fit tensor_parallel_size {self.tensor} times "
                f"pipeline_parallel_size {self.pipeline}: set it to {shards}"
            )
        return self

    @property
    def sequences(self) -> int:
        """Return the most sequences that the engine computes at once."""
        return int(self.engine.get("max_num_seqs", MAX_NUM_SEQS))

    @property
    def tensor(self) -> int:
        """Return over how many GPUs of one node each layer is cut."""
        return int(self.engine.get("tensor_parallel_size", 1))

    @property
    def pipeline(self) -> int:
        """Return over how many stages the layers are dealt out; each may be on another node."""
        return int(self.engine.get("pipeline_parallel_size", 1))

    @property
    def spans_nodes(self) -> bool:
        """Say whether a replica's GPUs may be on several nodes, so that Ray places each by itself."""
        return self.resources.gpus > 0 and self.pipeline > 1

    @property
    def streamed(self) -> bool:
        """Say whether the weights go from the store into the engine past the disk; see ``serve.streaming``."""
        return self.engine.get("load_format") == STREAMED


def read_arguments(raw: dict[str, Any], vllm: Path | None = None) -> Arguments:
    """Check ``raw``; raises ``ValueError`` with one sentence that names everything wrong with it.

    ``vllm`` is the folder of the vLLM package, found when not given.
    """
    try:
        arguments = Arguments.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'release'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"The arguments of this release do not fit: {faults}.") from error
    check_engine(arguments.engine, known_arguments(vllm or _vllm_folder()))
    if arguments.streamed and (missing := [name for name in STREAMERS if importlib.util.find_spec(name) is None]):
        raise ValueError(
            f"load_format {STREAMED!r} needs {' and '.join(missing)}, which this image lacks: add the Python package"
            " runai-model-streamer[s3] to it, or leave load_format out."
        )
    return arguments


def check_engine(engine: dict[str, Any], known: frozenset[str]) -> None:
    """Raise ``ValueError`` for engine arguments that do not exist, are Slipway's own, or run foreign code."""
    for name, value in engine.items():
        if name in RESERVED:
            raise ValueError(f"The engine argument {name!r} is set by Slipway; leave it out.")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"vLLM has no engine argument {name!r}.{hint}")
        if name == "trust_remote_code" and value:
            raise ValueError("trust_remote_code would run code from the repository, which Slipway never does.")
        if name == "load_format" and value not in LOAD_FORMATS:
            raise ValueError(f"load_format {value!r} is refused: weights are read from safetensors files only.")


def known_arguments(vllm: Path) -> frozenset[str]:
    """Return the names of vLLM's engine and front-end arguments, read from its source without importing it.

    Raises ``RuntimeError`` when a class is not where 0.29 declares it: another version needs another look here.
    """
    names: set[str] = set()
    for file, classes in DECLARATIONS.items():
        tree = ast.parse((vllm / file).read_text())
        found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in classes}
        if set(found) != set(classes):
            raise RuntimeError(f"{vllm / file} does not declare {', '.join(classes)}: not the vLLM this is for.")
        for node in found.values():
            names.update(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            )
    return frozenset(names)


def _vllm_folder() -> Path:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise RuntimeError("vLLM is not installed in this environment: install serve/requirements-cpu.lock.")
    return Path(spec.origin).parent
