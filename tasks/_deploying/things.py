"""A work pool, deployment or automation as plain JSON, so that what is wanted and what is there can be compared."""

from enum import StrEnum
from typing import Any

from tasks.records import Value

POOL = "slipway"
"""The work pool that all deployments use."""
QUEUE = "releases"
AT_ONCE = 8
"""The work queue of runs that may come in crowds, and how many of them run at once: each takes 300 MB.

A queue does not count runs that wait for a person.  All other runs are in Prefect's queue ``default``, which has no
limit, so that a way back never waits.
"""
TAG = "slipway"
"""What bootstrap owns carries this tag; a work pool has no tags, and is known by its name."""


class Sort(StrEnum):
    """What a thing is, in the order of making: each may need one before it."""

    POOL = "work pool"
    QUEUE = "work queue"
    DEPLOYMENT = "deployment"
    AUTOMATION = "automation"


class Thing(Value):
    """One of them: ``fields`` are those that bootstrap decides, ``paused`` is a person's matter.

    A deployment is called flow/deployment, as Prefect's own command does it.
    """

    sort: Sort
    name: str
    fields: dict[str, Any]
    paused: bool = False


class What(StrEnum):
    """What became of a thing, or would."""

    MADE = "made"
    CHANGED = "changed"
    SAME = "already right"
    REMOVED = "removed"


class Change(Value):
    """What bootstrap does about a thing; ``fields`` are the names of those that differ."""

    sort: Sort
    name: str
    what: What
    fields: tuple[str, ...] = ()
    paused: bool = False


def changes(wanted: tuple[Thing, ...], found: tuple[Thing, ...]) -> tuple[Change, ...]:
    """Return what is to be done about each thing that is wanted, and about those found that nobody wants any more."""
    there = {(thing.sort, thing.name): thing for thing in found}
    told = [_change(thing, there.pop((thing.sort, thing.name), None)) for thing in wanted]
    told += [
        Change(sort=thing.sort, name=thing.name, what=What.REMOVED)
        for thing in there.values()
        if thing.sort not in {Sort.POOL, Sort.QUEUE}
    ]
    return tuple(told)


def _change(wanted: Thing, found: Thing | None) -> Change:
    if found is None:
        return Change(sort=wanted.sort, name=wanted.name, what=What.MADE)
    differing = tuple(key for key, value in wanted.fields.items() if found.fields.get(key) != value)
    what = What.CHANGED if differing else What.SAME
    return Change(sort=wanted.sort, name=wanted.name, what=what, fields=differing, paused=found.paused)
