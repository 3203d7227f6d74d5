"""The ledger of a service: one entry for each ended release, each with the sha256 of the one before.

Nobody can change, remove or insert an entry without every later one telling, and the record holds the last one's
hash, so that the end cannot be cut off either.  An entry is created once.  It is written before the record says that
the release has ended; a run that died between the two is finished by the next, which finds its own entry there.
"""

import hashlib
from collections.abc import Iterator

from pydantic import ValidationError

from tasks._release.journal import FOLDER
from tasks._stores.store import Store
from tasks.errors import Conflict, IntegrityError
from tasks.records import LedgerHead, Progress, ServiceRecord, Sha256, Value

NOTHING = LedgerHead()


class Entry(Value):
    """One ended release; ``before`` is the sha256 of the entry before it, zeros for the first."""

    version: int = 1
    sequence: int
    before: Sha256
    release: Progress


def append(store: Store, head: LedgerHead, ended: Progress) -> tuple[LedgerHead, Progress]:
    """Write the entry that follows ``head``; return the new head, and the release as the ledger has it.

    That differs from ``ended`` where a run had written it, and died before it could say so in the record.  Raises
    ``Conflict`` when another release stands in its place: then another run wrote, and this one was fenced off.
    """
    entry = Entry(sequence=head.sequence + 1, before=head.sha256, release=ended)
    data, key = entry.to_json(), _key(ended.release.service, entry.sequence)
    try:
        store.put_if(key, data, expect=None)
    except Conflict:
        found = store.get(key)
        there = _read(found[0], key) if found else None
        if found is None or there is None or not _is_of(there, ended, head):
            raise
        data, entry = found[0], there
    return LedgerHead(sequence=entry.sequence, sha256=_sha256(data)), entry.release


def entries(store: Store, service: str) -> Iterator[Entry]:
    """Yield every entry of ``service``, the oldest first; raises ``IntegrityError`` for one that cannot be read."""
    for _, data, key in _stored(store, service):
        yield _read(data, key)


def verify(store: Store, record: ServiceRecord) -> int:
    """Return how many entries the ledger has; raises ``IntegrityError`` that names the first one that was changed."""
    head = NOTHING
    for sequence, data, key in _stored(store, record.service):
        entry = _read(data, key)
        if (entry.sequence, sequence, entry.before) != (head.sequence + 1, head.sequence + 1, head.sha256):
            raise IntegrityError(
                f"The ledger of {record.service} was changed: entry {sequence} does not follow {head.sequence}.",
                remedy="Compare it with the bucket's versions.",
            )
        head = LedgerHead(sequence=sequence, sha256=_sha256(data))
    ahead = head.sequence == record.ledger.sequence + 1 and record.current is not None
    if head != record.ledger and not ahead:  # a run that died while it closed a release has written one entry more
        raise IntegrityError(
            f"The ledger of {record.service} was changed: its end is not what the record says.",
            remedy="Compare it with the bucket's versions.",
        )
    return head.sequence


def _stored(store: Store, service: str) -> Iterator[tuple[int, bytes, str]]:
    for item in sorted(store.list(_folder(service)), key=lambda item: item.key):
        found = store.get(item.key)
        if found is not None:
            name = item.key.rpartition("/")[2].removesuffix(".json")
            yield int(name) if name.isdigit() else 0, found[0], item.key


def _read(data: bytes, key: str) -> Entry:
    try:
        return Entry.from_json(data)
    except ValidationError as error:
        raise IntegrityError(
            f"{key} is no entry of a ledger.", remedy="Compare it with the bucket's versions."
        ) from error


def _is_of(entry: Entry, ended: Progress, head: LedgerHead) -> bool:
    """Return whether an entry is of this very release and place; only the moment of its end may differ."""
    mine, theirs = ended, entry.release
    same = (mine.release, mine.opened_at, mine.outcome) == (theirs.release, theirs.opened_at, theirs.outcome)
    return same and entry.before == head.sha256


def _folder(service: str) -> str:
    return f"{FOLDER}/{service}/ledger"


def _key(service: str, sequence: int) -> str:
    return f"{_folder(service)}/{sequence:08d}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
