"""Puts a folder on the Hub as one commit; a publish killed at any moment leaves what was there before.

Bytes first, the commit's record next, the refs last, each by a rename inside the root.  One publisher at a
time holds the root's lock, which the kernel frees when a process dies, so what lies in ``incoming`` at the
start of a publish is debris of a dead one and is removed.  Bytes are copied, never hard-linked: a folder that
is edited in place later must not change a commit.  This guards against killed processes, not against power
loss: nothing is fsynced.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import BadInput, Conflict, MachineError, NotFound
from tasks.local.hub import objects
from tasks.local.hub.repositories import (
    CommitRecord,
    File,
    LargeFile,
    Repository,
    blob_path,
    commit_path,
    full_ref,
    read_commit,
    read_repository,
    repository_folder,
)

_LEFT_OUT = (".git", ".cache")
"""Top-level folders that huggingface_hub leaves out of an upload as well."""


def publish(
    root: Path,
    repo: str,
    folder: Path,
    *,
    message: str,
    ref: str = "main",
    gated: bool | None = None,
    private: bool | None = None,
) -> str:
    """Make the folder's content the head of ``ref`` and return the commit id.

    The parent is the head of ``ref`` at that moment.  Content equal to the head's makes no new commit: the
    head is returned and ``message`` ignored, as on the real Hub.  ``gated`` and ``private`` belong to the
    repository; ``None`` keeps what it has (a new one is open).  Raises ``BadInput`` for an unsafe name, ref
    or folder, ``Conflict`` when a file changes meanwhile, ``MachineError`` when the disk refuses.
    """
    branch = full_ref(ref)
    repository_folder(root, repo)
    sources = _files_in(folder)
    with _sole_publisher(root) as incoming:
        files = tuple(_keep(root, incoming, path, source) for path, source in sources)
        repository = _existing_or_new(root, repo)
        head = repository.refs.get(branch)
        commit = _commit(root, incoming, repo, files, parent=head, message=message)
        _replace_repository(root, incoming, repository, {branch: commit}, gated=gated, private=private)
    return commit


def set_ref(root: Path, repo: str, ref: str, commit: str) -> None:
    """Point a branch or tag at a published commit; raises as ``publish`` does, and ``NotFound``."""
    name = full_ref(ref)
    with _sole_publisher(root) as incoming:
        repository = read_repository(root, repo)
        read_commit(root, repo, commit)
        _replace_repository(root, incoming, repository, {name: commit}, gated=None, private=None)


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder, so it cannot be published.", remedy="Name a folder of files.")
    found = [
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in _LEFT_OUT and (path.is_symlink() or not path.is_dir())
    ]
    for name, path in found:
        if not path.is_file():
            raise BadInput(
                f"{name!r} in {folder} is no regular file, so it cannot be published.", remedy="Remove it."
            )
        if not name.isprintable() or "\\" in name:
            raise BadInput(f"{name!r} in {folder} has a character no repository path may have.", remedy="Rename it.")
    if not found:
        raise BadInput(f"{folder} holds no file, so there is nothing to publish.", remedy="Put files into it.")
    return sorted(found)


@contextmanager
def _sole_publisher(root: Path) -> Iterator[Path]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / "publisher.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            incoming = root / "incoming"
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            yield incoming
    except OSError as error:
        raise MachineError(
            f"Publishing in {root} failed at {error.filename}: {error.strerror or error}.",
            remedy="Make room on the disk, or mend the rights of what is named.",
        ) from error


def _keep(root: Path, incoming: Path, path: str, source: Path) -> File:
    file = _identify(path, source)
    kept = blob_path(root, file)
    if not kept.exists():
        part = incoming / file.etag
        shutil.copyfile(source, part)
        if _identify(path, part) != file:
            raise Conflict(
                f"{source} changed while it was being published.",
                remedy="Publish again when nothing writes to it.",
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        part.replace(kept)
    return file


def _identify(path: str, source: Path) -> File:
    size = source.stat().st_size
    if not objects.is_large(path, size):
        body = source.read_bytes()
        return File(path=path, size=len(body), oid=objects.git_id("blob", body))
    sha256 = objects.sha256_of(source)
    pointer = objects.lfs_pointer(sha256, size)
    lfs = LargeFile(sha256=sha256, pointer_size=len(pointer))
    return File(path=path, size=size, oid=objects.git_id("blob", pointer), lfs=lfs)


def _existing_or_new(root: Path, repo: str) -> Repository:
    try:
        return read_repository(root, repo)
    except NotFound:
        return Repository(name=repo, gated=False, private=False, created_at=datetime.now(UTC), refs={})


def _commit(
    root: Path, incoming: Path, repo: str, files: tuple[File, ...], *, parent: str | None, message: str
) -> str:
    folders = objects.tree_ids({file.path: file.oid for file in files})
    tree = folders.pop("")
    if parent and read_commit(root, repo, parent).tree == tree:
        return parent
    record = CommitRecord(
        id=objects.commit_id(tree, parent, message),
        tree=tree,
        parent=parent,
        message=message,
        created_at=datetime.now(UTC),
        files=files,
        folders=folders,
    )
    path = commit_path(root, repo, record.id)
    if not path.exists():
        _write_whole(incoming, path, record.to_json())
    return record.id


def _replace_repository(
    root: Path,
    incoming: Path,
    repository: Repository,
    refs: dict[str, str],
    *,
    gated: bool | None,
    private: bool | None,
) -> None:
    changed = repository.model_copy(
        update={
            "refs": {**repository.refs, **refs},
            "gated": repository.gated if gated is None else gated,
            "private": repository.private if private is None else private,
        }
    )
    _write_whole(incoming, repository_folder(root, repository.name) / "repository.json", changed.to_json())


def _write_whole(incoming: Path, path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = incoming / path.name
    part.write_bytes(body)
    part.replace(path)
