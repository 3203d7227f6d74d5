"""What earlier mirrors left in the store that a new one can use: other commits' files, and uploads just completed."""

import hashlib
import logging
from collections.abc import Iterable
from itertools import islice

from tasks._retry import retried
from tasks._stores.store import Store, StoredObject
from tasks._weights.claims import FileState
from tasks._weights.hub import HubFile
from tasks._weights.layout import MANIFEST, MODELS, split_weights_key
from tasks._weights.manifests import read_manifest
from tasks.errors import IntegrityError
from tasks.records import FileEntry, Manifest

DONORS = 5
"""Other commits of the model whose files are looked through, the newest first."""

PIECE_BYTES = 2**20

log = logging.getLogger(__name__)


def donors(store: Store, model: str, commit: str) -> tuple[Manifest, ...]:
    """Return the newest manifests of other commits of the model; one that cannot be read gives nothing."""
    found = [item for item in store.list(f"{MODELS}/{model}") if item.key.endswith(f"/{MANIFEST}")]
    found.sort(key=lambda item: item.modified, reverse=True)
    parts = (split_weights_key(item.key) for item in found)
    others = islice((part[1] for part in parts if part and part[1] != commit), DONORS)
    return tuple(manifest for other in others if (manifest := _readable(store, model, other)))


def completed(
    store: Store,
    folder: str,
    wanted: Iterable[HubFile],
    stored: Iterable[StoredObject],
    states: tuple[FileState, ...],
) -> tuple[FileState, ...]:
    """Return ``states`` with those files whole whose upload was completed by a process that died before it said so.

    Their objects are read and hashed: that costs no byte of the Hub, and nothing else tells that they are right.
    """
    declared = {file.path: file for file in wanted}
    objects = {item.key.removeprefix(f"{folder}/"): item for item in stored}
    return tuple(_settled(store, state, declared.get(state.path), objects.get(state.path)) for state in states)


def _settled(store: Store, state: FileState, file: HubFile | None, found: StoredObject | None) -> FileState:
    if not (state.upload and file and found and found.size == file.size):
        return state
    known = store.head(found.key)
    if known is None or retried(lambda: _hashed(store, found.key)) != file.sha256:
        return state
    entry = FileEntry(
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        git_sha1=file.git_sha1,
        crc64nvme=known.crc64nvme,
        etag=known.version,
    )
    return FileState(path=file.path, entry=entry)


def _hashed(store: Store, key: str) -> str:
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _readable(store: Store, model: str, commit: str) -> Manifest | None:
    try:
        return read_manifest(store, model, commit)
    except IntegrityError as error:
        log.warning("%s", error)
        return None
