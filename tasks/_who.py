"""Who asked for what happens, as the record names them: a person, or the machinery that acted for one.

The open-source Prefect server knows no users.  What it does know of a run is kept: its schedule, the automation that
started it, or that a webhook did.
"""

import getpass
from collections.abc import Set as AbstractSet

WEBHOOK = "webhook"
"""The tag of a run that the webhook receiver started."""


def person(named: str = "") -> str:
    """Return ``named``, or the user of this machine where nobody is."""
    if named.strip():
        return named.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def maker(kind: str | None, name: str | None, *, tags: AbstractSet[str], scheduled: bool) -> str:
    """Return what made a flow run, by the ``kind`` and ``name`` of its creator and by its tags; empty for a person.

    Prefect Cloud, unlike the open server, names the person.
    """
    if kind:
        return (name or "") if kind == "USER" else f"{kind.lower()} {name or ''}".strip()
    if WEBHOOK in tags:
        return WEBHOOK
    return "schedule" if scheduled else ""
