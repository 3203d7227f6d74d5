"""Writes the first spec of a service, and prompts to judge it by: a beginning that a person goes on with.

What is written is read back by the same rules as any spec before it lies where others find it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from tasks._checks.prompts import parse_prompts
from tasks._spec_file import parse_spec
from tasks.errors import Conflict
from tasks.records import Value
from tasks.spec import Policy, TargetKind

DEFAULT_CPUS = 4


class Wish(Value):
    """What a person said of a service.  ``memory`` is GiB of host memory for a replica's pod."""

    service: str
    model: str
    ref: str = "main"
    policy: Policy = Policy.APPROVE
    target: TargetKind = TargetKind.RAY
    gpus: int = 0
    engine: dict[str, Any] = Field(default_factory=dict)
    image: str = ""
    memory: int = 16


class Written(Value):
    """Where the files lie."""

    spec: str
    prompts: str


def spec_text(wish: Wish) -> str:
    """Return the spec as YAML, with what a reader needs to know beside it; raises ``BadInput`` for a wrong wish."""
    parts = [
        "# How this service is released and judged. `slipway schema` prints all that may stand here.",
        _yaml({"service": wish.service, "model": wish.model, "ref": wish.ref}),
        "# auto releases each new commit of the ref, approve asks a person first, manual only reports it.",
        _yaml({"policy": wish.policy.value, "target": wish.target.value}),
        "",
        _yaml({"resources": {"cpus": DEFAULT_CPUS, "gpus": wish.gpus}}),
        "",
        "# Arguments of vLLM; `slipway size` says what fits.",
        _yaml({"engine": wish.engine}),
        "",
        _yaml({"checks": {"prompts": prompts_name(wish.service)}}),
    ]
    if wish.target is TargetKind.KUBERAY:
        pods = {"image": wish.image, "worker": {"cpu": DEFAULT_CPUS, "memory": f"{wish.memory}Gi"}}
        parts += ["", _yaml({"kubernetes": pods})]
    text = "\n".join(parts) + "\n"
    parse_spec(text, f"{wish.service}.yaml")
    return text


def prompts_text() -> str:
    """Return a few prompts that any chat model answers rightly, to be replaced by the service's own."""
    parse_prompts(_PROMPTS, "the example")
    return _PROMPTS


def prompts_name(service: str) -> str:
    """Return what the prompt file of a service is called."""
    return f"{service}.prompts.yaml"


def write(folder: Path, wish: Wish, *, force: bool) -> Written:
    """Write spec and prompts of a service into ``folder``, each whole or not at all.

    Prompts that are there are a person's work, and stay.  Raises ``BadInput`` for a wish that is no spec, and
    ``Conflict`` for a service that is described already, unless ``force``d.
    """
    text = spec_text(wish)
    spec, prompts = folder / f"{wish.service}.yaml", folder / prompts_name(wish.service)
    if spec.exists() and not force:
        raise Conflict(f"{spec} is there already.", remedy="Edit it, or overwrite it with --force.")
    folder.mkdir(parents=True, exist_ok=True)
    if not prompts.exists():
        _put(prompts, prompts_text())
    _put(spec, text)
    return Written(spec=str(spec), prompts=str(prompts))


def engine_without_gpu(longest: int | None) -> Mapping[str, int | str | bool]:
    """Return vLLM arguments that start on a machine without a GPU, for a model that reads ``longest`` tokens."""
    return {"dtype": "float32", "enforce_eager": True, "max_model_len": min(longest or 1024, 1024)}


def _put(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _yaml(tree: dict[str, Any]) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip("\n")


_PROMPTS = r"""# What a candidate is asked, greedily; replace these by questions that your clients ask.
# `expect` is a regular expression that a right answer holds, `slice` the group it is reported under.
# `golden` prompts are those that a good model never gets wrong: they are asked again of live traffic.
- id: capital-of-japan
  slice: facts
  prompt: What is the capital of Japan?
  expect: \bTokyo\b
  golden: true
- id: capital-of-england
  slice: facts
  prompt: What is the capital of England?
  expect: \bLondon\b
  golden: true
- id: formula-of-water
  slice: facts
  prompt: What is the chemical formula of water?
  expect: \bH(?:2|₂)O\b
- id: sum
  slice: arithmetic
  prompt: What is 17 plus 25? Answer with the number alone.
  expect: \b42\b
- id: hello-in-spanish
  slice: language
  prompt: How do you say hello in Spanish?
  expect: (?i)\bhola\b
- id: hello-world
  slice: code
  prompt: Write a Python program that prints Hello, World!
  expect: (?i)print\(["']Hello,? World!?["']\)
"""
