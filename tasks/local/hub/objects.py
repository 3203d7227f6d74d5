"""The identities of git and git-lfs, computed as git itself does, so that any client can check them.

A file's ``oid`` is git's blob id; for a large file it is the blob id of the small LFS pointer that git would
hold in its place, and the bytes are named by their sha256.  A commit's id hashes tree, parent and message
with a fixed author and date, so that the same content on the same parent has the same id on every machine.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

LARGE_FILE_BYTES = 10 * 1024 * 1024
"""From this size on a file is LFS; the Hub refuses larger ones in plain git."""

LARGE_FILE_SUFFIXES = (".safetensors", ".gguf", ".bin")
"""Always LFS, whatever the size: the weight formats in the Hub's default ``.gitattributes``."""

_AUTHOR = "slipway <slipway@localhost> 0 +0000"


def git_id(kind: str, body: bytes) -> str:
    """Return git's sha1 of an object; ``kind`` is ``blob``, ``tree`` or ``commit``."""
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Say whether a file of ``size`` bytes at this repository path is kept as LFS."""
    return size >= LARGE_FILE_BYTES or path.endswith(LARGE_FILE_SUFFIXES)


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file's bytes, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the text that git holds in place of a large file (git-lfs pointer, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return git's tree id of every folder of ``path -> blob id``; the root's key is the empty string."""
    entries: defaultdict[str, list[tuple[bytes, bytes, str]]] = defaultdict(list)
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        entries[folder].append((name.encode(), b"100644", oid))
        while folder:
            folder = folder.rpartition("/")[0]
            entries[folder] += []
    trees: dict[str, str] = {}
    for folder in sorted(entries, key=lambda path: path.count("/") + bool(path), reverse=True):
        # git sorts a folder as if its name ended in a slash, and writes the name without it.
        body = b"".join(
            mode + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(oid)
            for name, mode, oid in sorted(entries[folder])
        )
        trees[folder] = git_id("tree", body)
        if folder:
            parent, _, name_in_parent = folder.rpartition("/")
            entries[parent].append((name_in_parent.encode() + b"/", b"40000", trees[folder]))
    return trees


def commit_id(tree: str, parent: str | None, message: str) -> str:
    """Return git's id of the commit with this tree, parent and message by the fixed author at time zero."""
    parents = f"parent {parent}\n" if parent else ""
    text = f"tree {tree}\n{parents}author {_AUTHOR}\ncommitter {_AUTHOR}\n\n{message}\n"
    return git_id("commit", text.encode())
