"""What the body of a call says: that refs of a model moved, or nothing that concerns a service.

Two forms are read: the payload of Hugging Face's webhooks, version 3
(https://huggingface.co/docs/hub/webhooks#webhook-payload), and ``{"model": "org/name", "ref": "main"}`` of other
registries and of CI, which may add the ``commit``.  Of the first, ``updatedRefs`` is believed and never
``repo.headSha``, which names the head of the default branch whatever moved.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from tasks.errors import BadInput
from tasks.records import Value

CONTENT = "repo.content"
"""The scope of an event that moved a ref; narrower ones begin with it and a dot, as the documentation says."""

Sha = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
RefName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
RepoName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=256)]


class Moved(Value):
    """A ref, as the caller wrote it, and the commit that it is said to be at; None where that is not said."""

    ref: str
    commit: str | None


class Said(Value):
    """What a call says: ``moved`` refs of ``model``; with none, ``why`` tells what kept them out."""

    model: str
    sender: str
    moved: tuple[Moved, ...] = ()
    why: str = ""


class _Event(BaseModel):
    action: Annotated[str, Field(max_length=64)]
    scope: Annotated[str, Field(max_length=64)]


class _Repo(BaseModel):
    type: Annotated[str, Field(max_length=64)]
    name: RepoName


class _UpdatedRef(BaseModel):
    ref: RefName
    new_sha: Sha | None = Field(alias="newSha")


class _Webhook(BaseModel):
    id: Annotated[str, StringConstraints(pattern=r"^[\w-]{1,64}$")]
    version: Literal[3]


class _HuggingFace(BaseModel):
    event: _Event
    repo: _Repo
    webhook: _Webhook
    updated_refs: Annotated[tuple[_UpdatedRef, ...], Field(max_length=1000)] | None = Field(None, alias="updatedRefs")


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: RepoName
    ref: RefName
    commit: Sha | None = None


def read_payload(body: bytes) -> Said:
    """Return what ``body`` says; raises ``BadInput`` that names what is wrong, and repeats nothing of it."""
    try:
        document = from_json(body)
    except ValueError as error:
        raise BadInput("The body is not JSON.") from error
    if not isinstance(document, dict):
        raise BadInput("The body is no JSON object.")
    try:
        return _from_hugging_face(document) if "event" in document else _from_others(document)
    except ValidationError as error:
        faults = "; ".join(f"{_where(detail['loc'])}: {detail['msg']}" for detail in error.errors()[:5])
        raise BadInput(f"The body does not fit. {faults}.") from error


def _from_others(document: dict[str, Any]) -> Said:
    plain = _Plain.model_validate(document)
    return Said(model=plain.model, sender="plain", moved=(Moved(ref=plain.ref, commit=plain.commit),))


def _from_hugging_face(document: dict[str, Any]) -> Said:
    told = _HuggingFace.model_validate(document)
    scope, refs = told.event.scope, told.updated_refs
    said = Said(model=told.repo.name, sender=f"Hugging Face {told.webhook.id}")
    if told.repo.type != "model":
        return said.model_copy(update={"why": f"{told.repo.name} is no model"})
    if scope != CONTENT and not scope.startswith(f"{CONTENT}."):
        return said.model_copy(update={"why": "an event of this scope moves no ref"})
    if refs is None:
        raise BadInput("The body does not fit. updatedRefs: it is missing, and repo.headSha does not say what moved.")
    moved = tuple(Moved(ref=one.ref, commit=one.new_sha) for one in refs if one.new_sha is not None)
    return said.model_copy(update={"moved": moved, "why": "" if moved else "no ref was moved, only deleted"})


def _where(location: tuple[int | str, ...]) -> str:
    """Return the place of a fault; a key that the caller made up is not repeated."""
    known = {"model", "ref", "commit", "event", "action", "scope", "repo", "type", "name", "webhook", "id", "version"}
    known |= {"updatedRefs", "newSha"}
    return ".".join(str(part) if isinstance(part, int) or part in known else "an unknown key" for part in location)
