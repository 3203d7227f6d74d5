"""Who is told of what becomes of a service's releases: a part of the service spec.

A receiver is one of Prefect's notification blocks, named by its slug.  Addresses, keys and passwords stay in
Prefect's block storage; a spec, which is kept in the open, holds nothing but the name.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from tasks.records import Value

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+(-[a-z0-9]+)*$", max_length=512)]


class Event(StrEnum):
    """What there is to tell of a release; one that gave way to a newer request is no news."""

    WAITING = "waiting"
    PROMOTED = "promoted"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Receiver(Value):
    """One block and what it is told of."""

    block: Slug = Field(description="Prefect's notification block, as type/name, e.g. slack-webhook/ops")
    events: Annotated[tuple[Event, ...], Field(min_length=1)] = Field(
        tuple(Event), description="what it is told of; none: everything"
    )


def _named(given: object) -> object:
    return {"block": given} if isinstance(given, str) else given


Receivers = tuple[Annotated[Receiver, BeforeValidator(_named, json_schema_input_type=Slug | Receiver)], ...]
"""Receivers as a spec has them: a bare slug is told of everything."""
