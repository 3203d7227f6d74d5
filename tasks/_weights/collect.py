"""Garbage collection: deletes what nothing refers to, and never anything that something does.

What is garbage is decided in ``tasks._weights.garbage``.  The decision is old when it is carried out, so a deletion
decides once more, in an order that cannot miss a release.  A release writes its record *before* it looks for the
manifest of its commit; a deletion takes the manifest away *before* it reads the records again:

- a record written before that reading is seen: the manifest is put back and nothing else was touched;
- one written later belongs to a release that finds no manifest and mirrors, which waits for the commit's claim: it
  gets it when all is deleted, and brings the commit anew.

What takes traffic was referred to long before, and never loses its manifest for a moment: the first reading under
the claim keeps it.  The moving of a pointer goes the same two ways (``tasks._weights.channels``).

Killed in the middle, a collection leaves a commit without a manifest, so that nobody takes it for whole, and its
manifest's text in ``gc.json``: the next collection goes on deleting, or puts it back if the commit is wanted by
then.  A mirror that comes first mends what is missing.  Files that another commit shares are its own there: copies,
or links to the same bytes.

A record, pointer or mark that cannot be read may be the one that matters, so nothing is deleted while there is one.
"""

import logging
import re
from collections.abc import Callable
from datetime import datetime

from pydantic import ValidationError

from tasks._clock import Clock
from tasks._stores.store import Store
from tasks._weights.claims import Claim, HeldClaim, read_claim, take_claim
from tasks._weights.garbage import (
    GRACE_S,
    Action,
    CommitName,
    Decision,
    Found,
    Marks,
    marked,
    plan,
)
from tasks._weights.layout import MARKS, MIRRORING, MODELS, manifest_key, split_weights_key, weights_key
from tasks._weights.references import read_references
from tasks.errors import Conflict, IntegrityError, Refused
from tasks.records import Manifest, Value

TRIES = 10
"""Writes of the marks tried while other collections write them as well."""

BUSY = "somebody is at work on it"

log = logging.getLogger(__name__)


class Collection(Value):
    """What a collection found at ``at`` and what became of it; ``dry`` when nothing was written or deleted.

    ``deleted_bytes`` and ``kept_bytes`` are those of the decisions to delete and of all others.
    """

    at: datetime
    grace_s: float
    dry: bool
    decisions: tuple[Decision, ...]
    deleted_bytes: int
    kept_bytes: int
    dropped_uploads: int


def collect(store: Store, *, delete: bool, grace_s: float = GRACE_S, clock: Clock | None = None) -> Collection:
    """Decide what is garbage in ``store`` and, with ``delete``, mark and delete it.

    Raises ``IntegrityError`` before anything is deleted when a record, pointer or mark cannot be read, and whatever
    ``Store`` raises; what was begun then is finished by the next collection.
    """
    now = (clock or Clock()).now()
    decisions = plan(_survey(store), read_references(store), _read_marks(store)[0], now, grace_s)
    if delete:
        _change_marks(store, lambda marks: marked(marks, decisions, now))
        decisions = tuple(_carry_out(store, decision) for decision in decisions)
    return Collection(
        at=now,
        grace_s=grace_s,
        dry=not delete,
        decisions=decisions,
        deleted_bytes=sum(decision.bytes for decision in decisions if decision.action is Action.DELETE),
        kept_bytes=sum(decision.bytes for decision in decisions if decision.action is not Action.DELETE),
        dropped_uploads=sum(len(decision.uploads) for decision in decisions),
    )


def _survey(store: Store) -> dict[CommitName, Found]:
    """Return what the store holds, by commit."""
    found: dict[CommitName, Found] = {}
    for item in store.list(MODELS):
        if place := split_weights_key(item.key):
            name = place[:2]
            found[name] = found.get(name, Found(item.modified)).with_object(item, place[2])
    for upload in store.open_uploads(MODELS):
        if place := split_weights_key(upload.key):
            name = place[:2]
            found[name] = found.get(name, Found(upload.begun_at)).with_upload(upload)
    for item in store.list(MIRRORING):
        if match := re.fullmatch(rf"{MIRRORING}/([^/]+/[^/]+)/([0-9a-f]{{40}})\.json", item.key):
            name = match[1], match[2]
            found[name] = found.get(name, Found(item.modified)).with_claim(read_claim(store, *name), item.modified)
    return found


def _carry_out(store: Store, decision: Decision) -> Decision:
    """Do what was decided and return it, or what it came to instead."""
    do = _CARRIED_OUT.get(decision.action, _sweep)
    if do is _sweep and not (decision.uploads or decision.stale_claim):
        return decision
    held = take_claim(store, decision.model, decision.commit)
    if isinstance(held, Claim):
        return decision.kept(BUSY)
    try:
        with held.kept():
            do(store, held, decision)
            held.finish()
    except Refused as error:
        return decision.kept(str(error))
    except Conflict as error:
        log.warning("%s@%s is left to the next collection: %s", decision.model, decision.commit, error)
        return decision.kept(BUSY)
    return decision


def _sweep(store: Store, _held: HeldClaim, decision: Decision) -> None:
    for upload in decision.uploads:
        store.drop_upload(upload)


def _delete(store: Store, held: HeldClaim, decision: Decision) -> None:
    """Delete the commit; raises ``Refused`` with what refers to it if something does."""
    why = _wanted(store, decision) or _unpublish(store, decision)
    if why:
        _restore(store, decision)
        raise Refused("; ".join(why))
    folder = weights_key(decision.model, decision.commit)
    for upload in store.open_uploads(folder):
        store.drop_upload(upload)
    for item in tuple(store.list(folder)):
        held.renew()  # a process that was stopped for long finds out here, before it deletes what is another's
        store.remove(item.key)
    _change_marks(store, lambda marks: marks.without(decision.name))
    log.info("Deleted %s@%s: %s.", decision.model, decision.commit, "; ".join(decision.why))


def _wanted(store: Store, decision: Decision) -> tuple[str, ...]:
    """Return what refers to the commit at this moment."""
    return tuple(one.why for one in read_references(store, decision.model) if one.commit == decision.commit)


def _unpublish(store: Store, decision: Decision) -> tuple[str, ...]:
    """Take the manifest away, but put it back if the commit is wanted; return why it stays."""
    key = manifest_key(decision.model, decision.commit)
    found = store.get(key)
    if found is None:
        return ()
    if not decision.published or not _noted(store, decision, found[0]):
        return ("it was mirrored, or taken from the marks, just now",)
    store.remove(key)
    doomed = False
    try:
        why = _wanted(store, decision)
        doomed = not why
    finally:
        if not doomed:
            _publish(store, key, found[0])
    return why


def _noted(store: Store, decision: Decision, manifest: bytes) -> bool:
    """Write the manifest down beside the commit's mark; false when another collection took the mark away."""

    def noting(marks: Marks) -> Marks:
        mark = marks.of(decision.name)
        kept = {"manifest": manifest.decode(errors="replace")}
        return marks.having(mark.model_copy(update=kept)) if mark else marks

    return _change_marks(store, noting).of(decision.name) is not None


def _publish(store: Store, key: str, manifest: bytes) -> None:
    try:
        store.put_if(key, manifest, expect=None)
    except Conflict:
        log.info("%s is there again already.", key)


def _put_back(store: Store, _held: HeldClaim, decision: Decision) -> None:
    """Publish what a killed collection had unpublished; raises ``Refused`` when some of its files are gone too."""
    if not _restore(store, decision):
        raise Refused("; ".join((*decision.why, "mirror it again, a collection had begun to delete it")))


def _restore(store: Store, decision: Decision) -> bool:
    """Forget the commit's mark; publish what it has kept, and say so, if all files of that are there."""
    mark = _read_marks(store)[0].of(decision.name)
    text = (mark.manifest if mark else None) or ""
    whole = _is_whole(store, text)
    if whole:
        _publish(store, manifest_key(decision.model, decision.commit), text.encode())
    _change_marks(store, lambda marks: marks.without(decision.name))
    return whole


def _is_whole(store: Store, text: str) -> bool:
    try:
        manifest = Manifest.from_json(text)
    except ValidationError:
        return False
    folder = weights_key(manifest.model, manifest.commit)
    sizes = {item.key.removeprefix(f"{folder}/"): item.size for item in store.list(folder)}
    return all(sizes.get(file.path) == file.size for file in manifest.files)


def _read_marks(store: Store) -> tuple[Marks, str | None]:
    found = store.get(MARKS)
    if found is None:
        return Marks(), None
    try:
        return Marks.from_json(found[0]), found[1]
    except ValidationError as error:
        raise IntegrityError(
            f"{MARKS} in {store.url} cannot be read ({error.error_count()} faults).",
            remedy="Delete it, and every grace begins anew; or use the Slipway version that wrote it.",
        ) from error


def _change_marks(store: Store, how: Callable[[Marks], Marks]) -> Marks:
    """Write ``how`` of what is there in its place and return it; other collections may do the same meanwhile."""
    for _ in range(TRIES):
        marks, version = _read_marks(store)
        wanted = how(marks)
        if wanted == marks:
            return marks
        try:
            store.put_if(MARKS, wanted.to_json(), expect=version)
        except Conflict:
            continue
        return wanted
    raise Conflict(
        f"Other collections keep changing {MARKS} in {store.url}.", remedy="Try again when they have ended."
    )


_CARRIED_OUT = {Action.DELETE: _delete, Action.PUT_BACK: _put_back}
