"""The prompt file of a service: what a candidate is asked, and which fact a right answer holds.

A fault in the file is an error before anything is started, never a prompt that quietly judges nothing: keys are
checked, patterns are compiled, ids and texts are unique, and at least one prompt is ``golden``.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, RootModel, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from tasks.errors import BadInput, NotFound
from tasks.records import Value

PromptId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=64)]


class Prompt(Value):
    """One question.  ``expect`` is a regular expression, ``slice`` the group a person reads it under."""

    id: PromptId
    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    expect: Annotated[str, StringConstraints(min_length=1)] | None = None
    slice: str = ""
    golden: bool = Field(False, description="a good model always holds this fact; asked again in the bake")

    @field_validator("expect")
    @classmethod
    def _is_a_pattern_that_can_fail(cls, expect: str | None) -> str | None:
        if expect is not None:
            try:
                pattern = re.compile(expect)
            except re.error as error:
                raise ValueError(f"{expect!r} is no regular expression: {error}") from error
            if pattern.search(""):
                raise ValueError(f"{expect!r} also fits an empty answer, so it proves nothing")
        return expect

    @model_validator(mode="after")
    def _is_golden_for_a_fact(self) -> Self:
        if self.golden and self.expect is None:
            raise ValueError("a golden prompt needs `expect`")
        return self


class Prompts(RootModel[tuple[Prompt, ...]]):
    """The prompts of a file in their order."""

    model_config = {"frozen": True}

    @model_validator(mode="after")
    def _judges_something(self) -> Self:
        if not any(prompt.golden for prompt in self.root):
            raise ValueError("no prompt is golden, so nothing could be asked in the bake")
        for what, values in (
            ("id", [prompt.id for prompt in self.root]),
            ("prompt", [prompt.prompt for prompt in self.root]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the {what} {twice[0]!r} is there twice")
        return self

    @property
    def all(self) -> tuple[Prompt, ...]:
        """Return every prompt."""
        return self.root

    @property
    def with_facts(self) -> tuple[Prompt, ...]:
        """Return the prompts that expect a fact."""
        return tuple(prompt for prompt in self.root if prompt.expect is not None)

    @property
    def golden(self) -> tuple[Prompt, ...]:
        """Return the prompts that a good model never gets wrong; there is at least one."""
        return tuple(prompt for prompt in self.root if prompt.golden)


def load_prompts(path: Path) -> Prompts:
    """Read the prompt file at ``path``.

    Raises ``NotFound`` where there is none and ``BadInput`` that names every fault by the prompt it is in.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no prompt file {path}.", remedy="Write it, or name another one in `checks.prompts`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {type(error).__name__}.", remedy="Save it as UTF-8.") from error
    return parse_prompts(text, str(path))


def parse_prompts(text: str, name: str) -> Prompts:
    """Check the YAML ``text`` of the file called ``name``; raises ``BadInput`` with every fault."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise BadInput(f"{name} is not YAML: {fault}.", remedy="Mend the syntax there.") from error
    if not isinstance(data, list) or not data:
        raise BadInput(f"{name} holds no list of prompts.", remedy="Start each with `- id:` and `prompt:`.")
    try:
        return Prompts.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_fault(detail, data) for detail in error.errors())
        raise BadInput(f"{name}: {faults}.", remedy=f"A prompt has: {', '.join(Prompt.model_fields)}.") from error


def _fault(detail: ErrorDetails, data: list[Any]) -> str:
    """Return one fault, told by the id of its prompt or else by its place in the list, from 1."""
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    index, *keys = detail["loc"]
    entry = data[int(index)]
    where = f"prompt {int(index) + 1}"
    prompt_id = entry.get("id") if isinstance(entry, dict) else None
    where += f" ({prompt_id})" if prompt_id else ""
    key = ".".join(str(part) for part in keys)
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key {key!r}"
        case "missing":
            return f"{where}: {key!r} is missing"
        case "value_error":
            return f"{where}: {detail['ctx']['error']}"
    return f"{where}: {key or 'entry'}: {detail['msg']}"
