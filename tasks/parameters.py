"""The parameters of flows, as the forms of the Prefect UI and its server know them: titles, ranges, patterns, help.

What a parameter means for one flow is in that flow's docstring, which the form shows as its help.  Prefect's server
checks the same before a run is made.  An empty text counts as none, because a form sends one for what was cleared.
"""

from typing import Annotated

from pydantic import Field
from pydantic.types import JsonValue

MODEL = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
RELEASE = r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?-r[1-9][0-9]*"
SENTENCE = 1000
"""The longest reason, in characters: it is shown in tables, messages and reports."""


def _shown(title: str, *examples: JsonValue) -> dict[str, JsonValue]:
    """Return what a form shows of a field; Prefect puts a parameter's bare name where a plain title would go."""
    return {"title": title, **({"examples": list(examples)} if examples else {})}


Service = Annotated[
    str, Field(pattern="^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", json_schema_extra=_shown("Service", "chat"))
]
Release = Annotated[str, Field(pattern=f"^{RELEASE}$", json_schema_extra=_shown("Release", "chat-r3"))]
EarlierRelease = Annotated[
    Annotated[str, Field(pattern=f"^({RELEASE})?$")] | None,
    Field(json_schema_extra=_shown("Earlier release", "chat-r3")),
]
Model = Annotated[str, Field(pattern=f"^{MODEL}$", max_length=96, json_schema_extra=_shown("Model", "org/name"))]
OtherModel = Annotated[
    Annotated[str, Field(pattern=f"^({MODEL})?$", max_length=96)] | None,
    Field(json_schema_extra=_shown("Other model", "org/name")),
]
Ref = Annotated[
    str, Field(min_length=1, max_length=255, json_schema_extra=_shown("Branch, tag or commit", "main", "v1.0"))
]
OtherRef = Annotated[
    Annotated[str, Field(max_length=255)] | None,
    Field(json_schema_extra=_shown("Other branch, tag or commit", "main", "v1.0")),
]
Hub = Annotated[
    Annotated[str, Field(pattern=r"^(https?://[^\s@]+)?$")] | None,
    Field(json_schema_extra=_shown("Other Hub", "https://huggingface.co")),
]
Commit = Annotated[str, Field(pattern="^[0-9a-f]{40}$", json_schema_extra=_shown("Commit"))]
Licences = Annotated[
    tuple[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9.+_-]*$", max_length=96)], ...],
    Field(json_schema_extra=_shown("Accepted licences", ["apache-2.0", "mit"])),
]
Reason = Annotated[str, Field(max_length=SENTENCE, json_schema_extra=_shown("Reason", "the new answers are better"))]
Actor = Annotated[str, Field(max_length=255, json_schema_extra=_shown("Your name", "ada"))]
Repair = Annotated[bool, Field(json_schema_extra=_shown("Repair what is stored"))]
Deep = Annotated[bool, Field(json_schema_extra=_shown("Read every byte"))]
Delete = Annotated[bool, Field(json_schema_extra=_shown("Mark and delete"))]
GraceDays = Annotated[float, Field(ge=0, le=365, json_schema_extra=_shown("Grace in days", 7))]
