"""What the Hub keeps on disk, and how it is read: content-addressed bytes, commits, one file of refs.

    <root>/blobs/sha256/ab/<sha256>             bytes of large files, shared by all repositories
    <root>/blobs/git/ab/<oid>                   bytes of small files
    <root>/models/<org>/<name>/commits/<id>.json
    <root>/models/<org>/<name>/repository.json  visibility and refs, replaced as a whole

Nothing but ``repository.json`` ever changes, and it is replaced by a rename after all it names is in place: a
reader sees the old state or the new one, and every published commit stays readable.  No path on disk is built
from anything but a checked repository name and hex ids; refs and file paths are looked up as keys.
"""

import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.errors import BadInput, NotFound
from tasks.records import Commit, Sha256, Value

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REF = re.compile(r"refs/(heads|tags|pr)/[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class LargeFile(Value):
    """The LFS side of a file: the sha256 of its bytes, and the size of its pointer in bytes."""

    sha256: Sha256
    pointer_size: int


class File(Value):
    """One file of a commit; ``oid`` is git's blob id (of the pointer where the file is large)."""

    path: str
    size: Annotated[int, Field(ge=0)]
    oid: Commit
    lfs: LargeFile | None = None

    @property
    def etag(self) -> str:
        """Return what names the file's bytes: the sha256 of a large one, the blob id of a small one."""
        return self.lfs.sha256 if self.lfs else self.oid


class CommitRecord(Value):
    """An immutable commit; ``created_at`` is when it was first published here and is no part of its id."""

    id: Commit
    tree: Commit
    parent: Commit | None
    message: str
    created_at: datetime
    files: tuple[File, ...]
    folders: dict[str, Commit]

    def file(self, path: str) -> File | None:
        """Return the file at exactly this path."""
        return next((file for file in self.files if file.path == path), None)


class Repository(Value):
    """The part of a repository that changes; ``refs`` maps full ref names to commits."""

    name: str
    gated: bool
    private: bool
    created_at: datetime
    refs: dict[str, Commit]


def repository_folder(root: Path, repo: str) -> Path:
    """Return where ``org/name`` is kept; raises ``BadInput`` for anything that is not such a name."""
    parts = repo.split("/")
    if len(parts) != 2 or not all(_NAME.fullmatch(part) and ".." not in part for part in parts):  # noqa: PLR2004
        raise BadInput(
            "A repository is named org/name with letters, digits, '-', '_' and '.'.", remedy="Mend the name."
        )
    return root / "models" / parts[0] / parts[1]


def full_ref(ref: str) -> str:
    """Return the full name of a ref, a bare one being a branch; raises ``BadInput`` for an unsafe one."""
    name = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    bare = name.partition("/")[2].partition("/")[2]
    if not _REF.fullmatch(name) or ".." in name or name.endswith(".lock") or _COMMIT.fullmatch(bare):
        raise BadInput(
            f"{ref!r} cannot name a ref.", remedy="Use a branch name such as main, or refs/tags/v1 for a tag."
        )
    return name


def blob_path(root: Path, file: File) -> Path:
    """Return where the bytes of a file are kept."""
    if file.lfs:
        return large_blob_path(root, file.lfs.sha256)
    return root / "blobs" / "git" / file.oid[:2] / file.oid


def large_blob_path(root: Path, sha256: str) -> Path:
    """Return where the bytes of a large file are kept; ``sha256`` must be 64 hex digits."""
    return root / "blobs" / "sha256" / sha256[:2] / sha256


def read_repository(root: Path, repo: str) -> Repository:
    """Return the repository as it is now; raises ``NotFound``, or ``BadInput`` for an unsafe name."""
    try:
        return Repository.from_json((repository_folder(root, repo) / "repository.json").read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"The Hub has no repository {repo}.", remedy="Publish it, or mend the name.") from error


def resolve_revision(root: Path, repository: Repository, revision: str) -> CommitRecord:
    """Return the commit that a branch, a tag, a full ref or a 40-hex id names; raises ``NotFound``."""
    names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
    commit = next((repository.refs[name] for name in names if name in repository.refs), revision)
    return read_commit(root, repository.name, commit)


@lru_cache(maxsize=64)
def read_commit(root: Path, repo: str, commit: str) -> CommitRecord:
    """Return a published commit, kept in memory because it never changes; raises ``NotFound``."""
    path = commit_path(root, repo, commit)
    if not _COMMIT.fullmatch(commit) or not path.is_file():
        raise NotFound(f"{repo} has no such revision.", remedy="Name a branch, a tag or a commit of it.")
    return CommitRecord.from_json(path.read_bytes())


def commit_path(root: Path, repo: str, commit: str) -> Path:
    """Return where a commit's record is kept, if ``commit`` is 40 hex digits."""
    return repository_folder(root, repo) / "commits" / f"{commit}.json"


def history(root: Path, repo: str, commit: CommitRecord) -> list[CommitRecord]:
    """Return the commit and its ancestors, newest first."""
    line = [commit]
    while line[-1].parent:
        line.append(read_commit(root, repo, line[-1].parent))
    return line
