"""A commit in a store, and a node that fetches it: what the tests of the payload's weights share."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve.manifest import File
from tasks.records import FileEntry, Manifest
from tasks.settings import StoreSettings

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model-1.safetensors": b"w" * 200_000, "sub/vocab.txt": b"", "tokenizer.json": b"[1]"}


def manifest(
    files: Mapping[str, bytes] = FILES,
    commit: str = COMMIT,
    *,
    declared: Mapping[str, int] | None = None,
    **more: Any,
) -> bytes:
    """Return the manifest that the controller writes for these files; ``declared`` are other sizes than theirs."""
    entries = tuple(
        FileEntry(path=path, size=(declared or {}).get(path, len(data)), sha256=hashlib.sha256(data).hexdigest())
        for path, data in files.items()
    )
    now = datetime.now(UTC)
    return Manifest(
        model="org/name", commit=commit, source="http://hub", created_at=now, files=entries, **more
    ).to_json()


def entry(path: str, data: bytes) -> File:
    """Return a file as a node reads it from the manifest."""
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def publish(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Put a commit into a folder of a store and return the folder."""
    for path, data in {**files, ".manifest.json": manifest(files), "hash": folder.name.encode()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def local(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def left_over(cache: Path) -> list[Path]:
    """Return what only a fetcher at work may have in a cache."""
    return [path for path in cache.rglob("*") if path.name.endswith(".part") or ".lease" in path.name]


def variables(settings: StoreSettings) -> dict[str, str]:
    """Return the standard variables that lead boto3 to a store."""
    assert settings.endpoint
    assert settings.access_key
    assert settings.secret_key
    return {
        "AWS_ENDPOINT_URL_S3": settings.endpoint,
        "AWS_ACCESS_KEY_ID": settings.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": settings.region,
    }
