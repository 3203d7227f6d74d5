"""The service spec: one YAML file per service, checked before anything is touched.

A spec says what a service serves and how its releases are judged.  Unknown keys are errors that name the line
and the nearest known key, because a misspelt threshold that is silently ignored lets a bad release through.
Durations are seconds, sizes are bytes unless the name says otherwise.
"""

import difflib
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from tasks.errors import BadInput, NotFound
from tasks.records import Value


def _is_no_release(name: str) -> str:
    if re.search(r"-r\d+$", name):
        raise ValueError("a service may not be called as a release is")
    return name


def _is_json(engine: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(engine, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError("only what JSON can hold may be given to the engine") from error
    return engine


ServiceName = Annotated[
    str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"), AfterValidator(_is_no_release)
]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=96)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Licence = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+_-]*$", max_length=96)]
Share = Annotated[float, Field(ge=0, le=1)]


class TargetKind(StrEnum):
    """Where releases run."""

    RAY = "ray"


class Resources(Value):
    """What one replica of the engine is given."""

    replicas: Annotated[int, Field(ge=1)] = Field(1, description="engine replicas of a release")
    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1, description="logical CPUs of a replica, as Ray counts them"
    )
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0, description="GPUs of a replica; 0 runs the CPU build"
    )


class Deadlines(Value):
    """The longest each wait may take before the release is given up."""

    ready: Seconds = Field(900, description="from the start of a candidate to its first answer")
    request: Seconds = Field(120, description="one request, the longest generation included")


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


class Checks(Value):
    """How a candidate is judged.  Shares are of the prompts in the prompt file."""

    prompts: str = Field("chat.prompts.yaml", description="prompt file, beside the spec")
    max_tokens: Annotated[int, Field(gt=0)] = Field(48, description="longest answer to a prompt, in tokens")
    concurrency: Annotated[int, Field(gt=0)] = Field(2, description="prompts asked at once")
    min_facts: Share = Field(0.7, description="least share of answers that hold their expected fact")
    min_stopped: Share = Field(0.5, description="least share that ended by themselves; fewer is a warning")
    max_repetition: Share = Field(0.5, description="an answer of which more than this repeats itself is broken")
    max_first_token: Seconds = Field(60, description="slowest time to first token")
    max_latency: Seconds = Field(120, description="slowest whole answer")


class Bake(Value):
    """The time after promotion in which a failing check moves traffic back."""

    seconds: Seconds = Field(20, description="how long the new release is watched")
    interval: Seconds = Field(2, description="pause between two looks")


class ServiceSpec(Value):
    """One service: its model, where it runs, and how its releases are judged."""

    service: ServiceName
    model: ModelName
    ref: str = Field("main", min_length=1, description="branch, tag or 40-hex commit to follow")
    target: TargetKind = TargetKind.RAY
    resources: Resources = Resources()
    engine: Annotated[dict[str, Any], AfterValidator(_is_json)] = Field(
        default_factory=dict, description="vLLM engine arguments"
    )
    limits: Limits = Limits()
    signature: SignatureDemand | None = Field(
        None, description="whose signature the weights must bear; none: nobody's"
    )
    checks: Checks = Checks()
    bake: Bake = Bake()
    deadlines: Deadlines = Deadlines()


def load_spec(folder: Path, service: str) -> ServiceSpec:
    """Read ``<folder>/<service>.yaml``.

    Raises ``NotFound`` for a service without a file, naming the known ones, and ``BadInput`` for a file that is
    not YAML or does not fit the schema, naming the line.
    """
    path = folder / f"{service}.yaml"
    if not path.is_file():
        raise NotFound(f"There is no service {service!r} in {folder}.", remedy=_known_services(folder, service))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {type(error).__name__}.", remedy="Save it as UTF-8.") from error
    spec = parse_spec(text, str(path))
    if spec.service != service:
        raise BadInput(
            f"{path} describes the service {spec.service!r}, not {service!r}.",
            remedy="Name the file after the service.",
        )
    return spec


def parse_spec(text: str, name: str) -> ServiceSpec:
    """Check the YAML ``text`` of the file called ``name``; raises ``BadInput`` with every fault and its line."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{name} is not YAML: {_one_line(error)}.", remedy="Mend the syntax there.") from error
    if not isinstance(data, dict):
        raise BadInput(f"{name} holds no mapping.", remedy="Start it with `service:` and `model:`.")
    try:
        return ServiceSpec.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_fault(detail, tree) for detail in error.errors())
        raise BadInput(f"{name}: {faults}.", remedy="`slipway schema` prints what a spec may hold.") from error


def with_source(spec: ServiceSpec, model: str | None, ref: str | None) -> ServiceSpec:
    """Return the spec with another model or ref where one is given; raises ``BadInput`` for one that is none."""
    asked = {name: value for name, value in (("model", model), ("ref", ref)) if value is not None}
    try:
        return ServiceSpec.model_validate(spec.model_dump(mode="json") | asked)
    except ValidationError as error:
        wrong = ", ".join(f"{e['loc'][0]} {e['input']!r}" for e in error.errors())
        raise BadInput(
            f"This cannot be released: {wrong}.",
            remedy="A model is written org/name; a ref is a branch, tag or commit.",
        ) from error


def service_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the services described in ``folder``, sorted."""
    return tuple(sorted(p.stem for p in folder.glob("*.yaml") if not p.name.endswith(".prompts.yaml")))


def _known_services(folder: Path, service: str) -> str:
    known = service_names(folder)
    if not known:
        return f"Write {folder / service}.yaml first."
    near = difflib.get_close_matches(service, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known services: {', '.join(known)}."


def _fault(detail: ErrorDetails, tree: yaml.Node | None) -> str:
    where = [str(part) for part in detail["loc"]]
    path = ".".join(where)
    line = f"line {_line(tree, where)}"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], _known_keys(where[:-1]), n=1)
        return f"{line}: unknown key {path!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if detail["type"] == "missing":
        return f"{line}: {path!r} is missing"
    return f"{line}: {path}: {detail['msg']}, not {detail['input']!r}"


def _known_keys(where: list[str]) -> list[str]:
    model: type[Value] = ServiceSpec
    for part in where:
        inner = model.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, Value)):
            return []
        model = inner
    return list(model.model_fields)


def _line(node: yaml.Node | None, where: list[str]) -> int:
    """Return the line, from 1, of the key that ``where`` leads to, or of the nearest part above it."""
    line = 1
    for part in where:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
