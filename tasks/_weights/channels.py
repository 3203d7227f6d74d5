"""Channel pointers: what a ref of a model meant when it was last followed, and a reason to keep that commit.

A pointer moves by compare-and-swap, so of two moves at once the later look at the Hub wins, whoever writes first.
It never points to nothing: the commit is published before its pointer moves, and once more looked for afterwards,
while garbage collection takes a manifest away before it reads the pointers (``tasks._weights.collect``).
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

from tasks._stores.store import Store
from tasks._weights.layout import MODELS, channel_key, manifest_key
from tasks.errors import Conflict, IntegrityError
from tasks.records import Commit, Manifest, Value

TRIES = 5
"""Moves tried while others move the same pointer; each loses only to one that was written."""


class Channel(Value):
    """The commit that ``ref`` of ``model`` meant at ``moved_at``, by the Hub at ``source``.

    ``previous`` is the commit before, ``bytes`` the size of all files, ``manifest`` the key of their list.
    """

    version: Annotated[int, Field(ge=1, le=1)] = 1
    model: str
    ref: str
    commit: Commit
    moved_at: datetime
    source: str
    bytes: int
    manifest: str
    previous: Commit | None = None


def read_channel(store: Store, model: str, ref: str) -> Channel | None:
    """Return the pointer, or None; raises ``IntegrityError`` for one that cannot be read."""
    found = store.get(channel_key(model, ref))
    return _parsed(store, channel_key(model, ref), found[0]) if found else None


def read_channels(store: Store, model: str | None = None) -> tuple[Channel, ...]:
    """Return all pointers of the store, or those of ``model``, by their keys; raises as ``read_channel`` does."""
    folder = MODELS if model is None else channel_key(model, "").rpartition("/")[0]
    keys = (item.key for item in store.list(folder))
    wanted = sorted(key for key in keys if re.fullmatch(rf"{MODELS}/[^/]+/[^/]+/refs/[^/]+\.json", key))
    return tuple(_parsed(store, key, found[0]) for key in wanted if (found := store.get(key)))


def move_channel(store: Store, ref: str, manifest: Manifest, *, resolved_at: datetime) -> bool:
    """Let ``ref`` mean the published commit of ``manifest``, as the Hub at its source said at ``resolved_at``.

    False when it does already, or means what the Hub said later.  Raises ``Conflict`` when others kept moving it,
    or when garbage collection took the commit away meanwhile: it is to be mirrored again then.
    """
    for _ in range(TRIES):
        found = store.get(channel_key(manifest.model, ref))
        present = _parsed(store, channel_key(manifest.model, ref), found[0]) if found else None
        wanted = moved(present, ref, manifest, resolved_at)
        if wanted is None:
            return False
        try:
            store.put_if(channel_key(manifest.model, ref), wanted.to_json(), expect=found[1] if found else None)
        except Conflict:
            continue
        _still_published(store, wanted)
        return True
    raise Conflict(
        f"{ref} of {manifest.model} in {store.url} is being moved by others again and again.",
        remedy="Try again when they have ended.",
    )


def moved(present: Channel | None, ref: str, manifest: Manifest, resolved_at: datetime) -> Channel | None:
    """Return the pointer to write in place of ``present``, or None to leave it as it is."""
    if present is not None and (present.commit == manifest.commit or present.moved_at > resolved_at):
        return None
    return Channel(
        model=manifest.model,
        ref=ref,
        commit=manifest.commit,
        moved_at=resolved_at,
        source=manifest.source,
        bytes=manifest.total_bytes,
        manifest=manifest_key(manifest.model, manifest.commit),
        previous=present.commit if present else None,
    )


def _still_published(store: Store, channel: Channel) -> None:
    if store.head(channel.manifest) is None:
        raise Conflict(
            f"{channel.model}@{channel.commit} was collected as garbage while {channel.ref} was moved to it.",
            remedy="Mirror it again.",
        )


def _parsed(store: Store, key: str, data: bytes) -> Channel:
    try:
        return Channel.from_json(data)
    except ValidationError as error:
        raise IntegrityError(
            f"The pointer {key} in {store.url} cannot be read ({error.error_count()} faults).",
            remedy="Delete it and mirror that ref again, or use the Slipway version that wrote it.",
        ) from error
