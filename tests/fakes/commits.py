"""A commit published straight into a store, as a mirror leaves it, and records that refer to it: no Hub needed."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from awscrt import checksums

from tasks._release.journal import Journal
from tasks._stores.store import Store, StoredObject
from tasks._weights.layout import HASH, manifest_key, weights_key
from tasks.records import FileEntry, Manifest, Progress, Release, ServiceRecord

MODEL = "acme/tiny"
HUB = "http://hub.invalid"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}


def put_commit(
    store: Store, commit: str, files: Mapping[str, bytes] = FILES, *, model: str = MODEL, **facts: Any
) -> Manifest:
    """Publish ``files`` as ``commit``; ``facts`` are further fields of the manifest."""
    manifest = put_files(store, commit, files, model=model).model_copy(update=facts)
    store.put_if(f"{weights_key(model, commit)}/{HASH}", commit.encode(), expect=None)
    store.put_if(manifest_key(model, commit), manifest.to_json(), expect=None)
    return manifest


def put_files(store: Store, commit: str, files: Mapping[str, bytes] = FILES, *, model: str = MODEL) -> Manifest:
    """Write the files alone, and return the manifest that would publish them."""
    entries = tuple(_put(store, f"{weights_key(model, commit)}/{path}", path, data) for path, data in files.items())
    return Manifest(model=model, commit=commit, source=HUB, created_at=datetime.now(UTC), files=entries)


def put_object(store: Store, key: str, data: bytes) -> StoredObject:
    """Write one object as a mirror does, in place of what is there."""
    store.remove(key)
    crc = int(checksums.crc64nvme(data))
    upload = store.open_upload(key, len(data), metadata={})
    for start in range(0, len(data), upload.part_size):
        part = bytearray(data[start : start + upload.part_size])
        upload.write(part, int(checksums.crc64nvme(part)), lambda: None)
    return upload.complete(crc)


def begin_upload(store: Store, key: str) -> None:
    """Leave an upload of two parts open after the first."""
    upload = store.open_upload(key, 2**24, metadata={})
    part = bytearray(upload.part_size)
    upload.write(part, int(checksums.crc64nvme(part)), lambda: None)
    upload.suspend()


def release(commit: str, number: int = 1, *, service: str = "chat", **spec: Any) -> Release:
    """Return a release of ``commit``."""
    return Release(service=service, number=number, model=MODEL, commit=commit, hub=HUB, spec=spec)


def on_its_way(commit: str, **fields: Any) -> Progress:
    """Return a release of ``commit`` that has just begun."""
    return Progress(release=release(commit), run="run", opened_at=datetime.now(UTC), **fields)


def write_record(store: Store, service: str = "chat", **fields: Any) -> ServiceRecord:
    """Write the record of ``service`` anew."""
    return Journal(store, service).change(lambda _: ServiceRecord(service=service, **fields))


def _put(store: Store, key: str, path: str, data: bytes) -> FileEntry:
    stored = put_object(store, key, data)
    crc = base64.b64encode(int(checksums.crc64nvme(data)).to_bytes(8, "big")).decode()
    return FileEntry(
        path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), crc64nvme=crc, etag=stored.version
    )
