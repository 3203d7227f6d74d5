"""Reads service specs from files: every fault is named with its line, and the nearest known key.

A misspelt threshold that is silently ignored lets a bad release through, so unknown keys are errors.
"""

import difflib
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tasks.errors import BadInput, NotFound
from tasks.spec import ServiceSpec


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
    said = f"{path}: {detail['msg']}" if path else detail["msg"]
    return (
        f"{line}: {said}" if isinstance(detail["input"], dict) else f"{line}: {said}, not {_shown(detail['input'])}"
    )


def _shown(value: object) -> str:
    """Return what was written, but for an address that may hold a password."""
    return "what is there" if isinstance(value, str) and "://" in value and "@" in value else repr(value)


def _known_keys(where: list[str]) -> list[str]:
    model: type[BaseModel] = ServiceSpec
    for part in (one for one in where if not one.isdecimal()):
        annotation = model.model_fields[part].annotation
        inner = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        section = next((one for one in inner if issubclass(one, BaseModel)), None)
        if section is None:
            return []
        model = section
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
