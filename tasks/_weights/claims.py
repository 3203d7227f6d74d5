"""Who is at work on a commit's folder, and how far: one object, claim and journal in one.

Only the holder of a commit's claim writes to its folder or deletes from it, so two mirrors of one commit cost one,
and garbage collection never meets a mirror.  The claim is written by compare-and-swap and renewed while its holder
lives; a holder that finds it changed has lost it and stops.  Whoever takes it over finds in it what was done: the
files that are whole, and of each file on its way the upload, how much of it the store holds, and the state of its
hash there.

A claim is free when its holder let go of it, has died on this machine, or has not renewed it for ``LIFETIME_S``.
Clocks of two machines may differ and a stopped process may wake: then two are at work for a moment, which costs
bytes but can never publish wrong ones, because objects are created once and are hashed before they are completed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock
from uuid import uuid4

from pydantic import ValidationError

from tasks._processes import is_dead, this_process
from tasks._renewal import renewing
from tasks._stores.store import Store
from tasks._weights.layout import claim_key
from tasks.errors import Conflict, SlipwayError
from tasks.records import Commit, FileEntry, Value

log = logging.getLogger(__name__)

LIFETIME_S = 30.0
RENEW_S = 8.0
"""Seconds between two renewals; three may be missed."""


class UploadState(Value):
    """A file on its way: the first ``stored`` bytes are in the store, and were hashed up to there."""

    id: str
    part_size: int
    stored: int
    hash_state: str
    """State of sha256 after ``stored`` bytes, as hex; empty where it cannot be saved."""
    crc64nvme: int


class FileState(Value):
    """What was done of one file: all (``entry``), some (``upload``), or nothing that could be kept."""

    path: str
    entry: FileEntry | None = None
    upload: UploadState | None = None


class Claim(Value):
    """The claim as it is stored; ``process`` says where its holder runs."""

    version: int = 1
    model: str
    commit: Commit
    owner: str
    process: str
    renewed_at: datetime
    held: bool
    files: tuple[FileState, ...] = ()


class HeldClaim:
    """A claim that this process holds; ``files`` is what was done of each file, by us or by its last holder."""

    def __init__(self, store: Store, claim: Claim, version: str) -> None:
        self._store, self._claim, self._version = store, claim, version
        self._key = claim_key(claim.model, claim.commit)
        self._lock = Lock()

    @property
    def files(self) -> tuple[FileState, ...]:
        """Return what is known of each file."""
        return self._claim.files

    def note(self, files: tuple[FileState, ...]) -> None:
        """Take ``files`` for what the next writing of the claim says."""
        self._claim = self._claim.model_copy(update={"files": files})

    def renew(self) -> None:
        """Write down how far each file is, and that the holder lives; raises ``Conflict`` when the claim was lost."""
        self._write(held=True)

    def finish(self) -> None:
        """Remove it: nothing is left to go on with; raises ``Conflict`` when it was lost."""
        self.renew()
        self._store.remove(self._key)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the claim while the block runs; when it raises, leave the claim to the next holder."""
        try:
            with renewing(self.renew, RENEW_S, f"claim on {self._key}"):
                yield
        except BaseException as error:
            if not isinstance(error, Conflict):
                self._let_go()
            raise

    def _let_go(self) -> None:
        try:
            self._write(held=False) if self.files else self.finish()
        except SlipwayError as error:
            log.warning("The claim on %s could not be let go of: %s", self._key, error)

    def _write(self, *, held: bool) -> None:
        with self._lock:
            claim = self._claim.model_copy(update={"held": held, "renewed_at": datetime.now(UTC)})
            self._version = self._store.put_if(self._key, claim.to_json(), expect=self._version)


def take_claim(store: Store, model: str, commit: str) -> HeldClaim | Claim:
    """Take the commit's claim, or return the one that another process holds."""
    found = _read(store, model, commit)
    claim, version = found or (None, None)
    if claim is not None and not is_free(claim, datetime.now(UTC)):
        return claim
    mine = Claim(
        model=model,
        commit=commit,
        owner=uuid4().hex,
        process=this_process(),
        renewed_at=datetime.now(UTC),
        held=True,
        files=claim.files if claim else (),
    )
    try:
        return HeldClaim(store, mine, store.put_if(claim_key(model, commit), mine.to_json(), expect=version))
    except Conflict:
        return take_claim(store, model, commit)


def read_claim(store: Store, model: str, commit: str) -> Claim | None:
    """Return the commit's claim, whoever holds it; None when nobody is at work and nothing is left unfinished."""
    found = _read(store, model, commit)
    return found[0] if found else None


def is_free(claim: Claim, now: datetime) -> bool:
    """Say whether another process may take the claim."""
    silent = now - claim.renewed_at > timedelta(seconds=LIFETIME_S)
    return not claim.held or silent or is_dead(claim.process)


def _read(store: Store, model: str, commit: str) -> tuple[Claim | None, str] | None:
    """Return the claim and its version; a claim that cannot be read counts as nobody's."""
    found = store.get(claim_key(model, commit))
    if found is None:
        return None
    try:
        return Claim.from_json(found[0]), found[1]
    except ValidationError:
        return None, found[1]
