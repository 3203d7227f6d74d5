"""What a commit consists of, as the controller wrote it down: the one thing that a node believes unseen.

The payload reads the manifest's JSON itself, because it knows nothing of the controller's types.  A version that it
does not know is refused and never guessed at; fields that it does not need are passed over.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

MANIFEST = ".manifest.json"
VERSIONS = (1, 2)
PART = ".part"
"""How the names of files end that are not whole yet, so no file of a commit may."""


class WeightsError(Exception):
    """The files of a commit cannot be had, or are not what the manifest declares; one sentence."""


@dataclass(frozen=True)
class File:
    """One file of the commit: ``size`` in bytes, ``sha256`` as hex.

    ``crc64nvme`` and ``etag`` are what the store itself says of the object; manifests of version 1 lack them.
    """

    path: str
    size: int
    sha256: str
    crc64nvme: str | None = None
    etag: str | None = None


def read_manifest(data: bytes, commit: str) -> list[File]:
    """Return the files listed in a manifest of ``commit``; raises ``WeightsError`` for anything unexpected."""
    try:
        manifest = json.loads(data)
        version, named = manifest["version"], manifest["commit"]
        if version not in VERSIONS:
            raise WeightsError(
                f"The manifest of {commit} is of version {version}, and this image reads up to {VERSIONS[-1]}:"
                " update the payload image."
            )
        if named != commit:
            raise WeightsError(f"The manifest in the folder of {commit} is of commit {named}.")
        files = [
            File(str(f["path"]), int(f["size"]), str(f["sha256"]), f.get("crc64nvme"), f.get("etag"))
            for f in manifest["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The manifest of {commit} cannot be read: {error!r}.") from error
    _check(files, commit)
    return files


def _check(files: Sequence[File], commit: str) -> None:
    for file in files:
        _check_declaration(file)
    if not files or len({file.path for file in files}) != len(files):
        raise WeightsError(f"The manifest of {commit} lists no file, or one twice.")


def _check_declaration(file: File) -> None:
    path = PurePosixPath(file.path)
    plain = path.parts and str(path) == file.path and not path.is_absolute() and ".." not in path.parts
    if not plain or "\0" in file.path or file.path == MANIFEST or file.path.endswith(PART):
        raise WeightsError(f"The manifest names a path that Slipway never stores: {file.path!r}.")
    if file.size < 0 or not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise WeightsError(f"The manifest declares no size and sha256 for {file.path!r}.")
