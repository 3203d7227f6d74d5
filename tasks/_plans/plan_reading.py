"""What a commit holds, read before it is moved: its files by hash, its small files whole, what its Hub says of it.

A proposed commit is looked into as its mirror would look, by the same rules, so that what would be refused there is
refused here in seconds.  A commit that is in the store is read from there alone.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks._plans.plan_diff import Difference, file_differences, sized
from tasks._stores.store import Store
from tasks._weights.hub import Hub, HubFile
from tasks._weights.inspection import KEPT_BYTES, Commit, inspect
from tasks._weights.layout import weights_key
from tasks._weights.manifests import read_manifest
from tasks._weights.mirror import survey
from tasks._weights.names import Kind, kind_of
from tasks._weights.planning import Plan
from tasks._weights.safety import refuse_licence
from tasks.records import FileEntry, Manifest
from tasks.spec import Limits

READ = frozenset({Kind.CONFIG, Kind.TEMPLATE})
COMPARED = READ | {Kind.VOCABULARY}
"""Kinds whose changes are told one by one; of weights only the bytes are."""

AnyFile = FileEntry | HubFile


@dataclass(frozen=True)
class Contents:
    """A commit: files by path, the content of small ones, elements by dtype, licence and gating."""

    files: Mapping[str, AnyFile]
    read: Mapping[str, bytes] = field(default_factory=dict)
    dtypes: Mapping[str, int] = field(default_factory=dict)
    licence: str | None = None
    gated: bool = False

    @property
    def total(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def weights(self) -> int:
        """Return the bytes of the weights as stored."""
        return sum(file.size for path, file in self.files.items() if kind_of(path) is Kind.WEIGHTS)

    @property
    def config(self) -> dict[str, Any]:
        """Return the tree of ``config.json``, empty where there is none that can be read."""
        try:
            tree = json.loads(self.read.get("config.json", b"{}"))
        except (ValueError, RecursionError):
            return {}
        return tree if isinstance(tree, dict) else {}


def stored_contents(store: Store, model: str, commit: str) -> Contents | None:
    """Return what the store holds of a commit; None when it is not published there."""
    manifest = read_manifest(store, model, commit)
    return None if manifest is None else _of_manifest(store, manifest)


def proposed_contents(hub: Hub, store: Store, model: str, commit: str, limits: Limits) -> tuple[Plan, Contents]:
    """Return what a mirror of the commit would move, and what it holds.

    Raises ``Refused`` and ``IntegrityError`` as a mirror would, and whatever ``Hub`` and ``Store`` raise.
    """
    published = read_manifest(store, model, commit)
    if published is not None:
        refuse_licence(published.license, limits.licences)
        return Plan(whole=published.files, copies=(), fetches=()), _of_manifest(store, published)
    plan = survey(hub, store, model, commit, limits)
    folder = weights_key(model, commit)
    stored = {entry.path: f"{folder}/{entry.path}" for entry in plan.whole}
    stored |= {job.file.path: job.source.key for job in plan.copies}
    files = (*map(_hub_file, plan.whole), *(job.file for job in plan.copies), *plan.fetches)
    found = inspect(Commit(hub, store, model, commit, stored), files)
    facts = hub.facts(model, commit)
    contents = Contents(_by_path(files), found.read, found.dtypes, facts.license, facts.gated)
    return plan, contents


def changed_bytes(before: Contents | None, after: Contents) -> int:
    """Return the bytes of the files of ``after`` that ``before`` does not have, whatever they are called there."""
    known = {_hash(file) for file in before.files.values()} if before else set()
    return sum(file.size for file in after.files.values() if _hash(file) not in known)


def changes(before: Contents, after: Contents) -> tuple[Difference, ...]:
    """Return what differs: licence, gating, and the small files, the model's own configuration first."""
    paths = sorted(before.files.keys() | after.files.keys(), key=lambda path: (path != "config.json", path))
    facts = (
        _fact("licence", before.licence or "none declared", after.licence or "none declared"),
        _fact("gated", "yes" if before.gated else "no", "yes" if after.gated else "no"),
    )
    files = (one for path in paths if kind_of(path) in COMPARED for one in _file_changes(path, before, after))
    return (*(fact for fact in facts if fact), *files)


def _file_changes(path: str, before: Contents, after: Contents) -> tuple[Difference, ...]:
    old, new = before.files.get(path), after.files.get(path)
    if old is not None and new is not None and _hash(old) == _hash(new):
        return ()
    texts = before.read.get(path), after.read.get(path)
    if None in texts:
        return (sized(path, old.size if old else None, new.size if new else None),)
    return file_differences(path, *texts)


def _fact(what: str, before: str, after: str) -> Difference | None:
    return Difference(where=what, before=before, after=after) if before != after else None


def _of_manifest(store: Store, manifest: Manifest) -> Contents:
    folder = weights_key(manifest.model, manifest.commit)
    small = [f.path for f in manifest.files if kind_of(f.path) in READ and f.size <= KEPT_BYTES]
    found = {path: store.get(f"{folder}/{path}") for path in small}
    read = {path: stored[0] for path, stored in found.items() if stored is not None}
    return Contents(_by_path(manifest.files), read, manifest.dtypes, manifest.license, manifest.gated)


def _hub_file(entry: FileEntry) -> HubFile:
    return HubFile(path=entry.path, size=entry.size, sha256=entry.sha256, git_sha1=entry.git_sha1)


def _by_path(files: Iterable[AnyFile]) -> dict[str, AnyFile]:
    return {file.path: file for file in files}


def _hash(file: AnyFile) -> tuple[int, str | None]:
    """Return what tells a file's content: the hash that its Hub declares."""
    return file.size, file.git_sha1 or file.sha256
