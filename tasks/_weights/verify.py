"""Whether a published commit is still what was mirrored, byte for byte.

Quick asks the store for what it knows of each object.  Wrong sizes and checksums are damage, and equal checksums, or
the version that the mirror wrote, are proof.  A file with neither is read and hashed even then: a folder restored
from a backup has new versions and the old bytes, and must not be called damaged, while a file that somebody put in
another's place has a new version as well, and must be.  An untouched store costs one small request per file.

Deep reads and hashes everything, and so finds as well what a store does not know of itself: a disk's silent rot,
or a change in place that kept the time of the file.

Objects beside those of the manifest are named but are no damage: no reader that goes by the manifest sees them.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import IO

from tasks._stores.store import Store, StoredObject
from tasks._weights.layout import HASH, RESERVED, weights_key
from tasks._weights.manifests import read_manifest
from tasks.errors import NotFound, TransientError
from tasks.records import FileEntry, Manifest, Value

FILES_AT_ONCE = 8
"""Files looked at together: a HEAD is mostly waiting, and one core hashes a gigabyte per second."""

PIECE = 2**20
"""Bytes of a file held in memory, by each of the files read at once."""

READINGS = 5
"""Times that one file is begun anew after its connection broke; each begins with the store's own retries."""

Progress = Callable[[int, int], None]
"""Called with the bytes of the files found whole or read so far, and with all bytes; from any thread."""

log = logging.getLogger(__name__)


class Damage(Value):
    """One file that is not what the manifest says; ``what`` goes on with the sentence that ``path`` begins."""

    path: str
    what: str


class Verification(Value):
    """What was found of one commit: ``files`` and ``bytes`` as its manifest lists them.

    ``read_bytes`` were read and hashed, once or more; of the others the store's word was taken.
    """

    model: str
    commit: str
    deep: bool
    files: int
    bytes: int
    read_bytes: int
    damaged: tuple[Damage, ...]
    unlisted: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Return whether every file is the one that was mirrored."""
        return not self.damaged


def verify(
    store: Store, model: str, commit: str, *, deep: bool, progress: Progress = lambda *_: None
) -> Verification:
    """Compare what ``store`` holds of ``commit`` with its manifest.

    Raises ``NotFound`` for a commit that is not published there, ``IntegrityError`` for a manifest that makes no
    sense, and whatever ``Store`` raises: what could not be looked at is no damage.
    """
    manifest = read_manifest(store, model, commit)
    if manifest is None:
        raise NotFound(
            f"{model}@{commit} is not in {store.url}.", remedy=f"`slipway mirror {model}@{commit}` brings it there."
        )
    check = _Check(store, manifest, deep=deep, progress=progress)
    damaged = check.files()
    present = {item.key.removeprefix(f"{check.folder}/") for item in store.list(check.folder)}
    return Verification(
        model=model,
        commit=commit,
        deep=deep,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        read_bytes=check.read_bytes,
        damaged=(*damaged, *_wrong_hash(store, manifest)),
        unlisted=tuple(sorted(present - {file.path for file in manifest.files} - RESERVED)),
    )


def judge(entry: FileEntry, found: StoredObject | None) -> Damage | bool:
    """Return what is wrong with a file by what the store says of it, or whether that proves it whole."""
    if found is None:
        return Damage(path=entry.path, what="is missing")
    if found.size != entry.size:
        return Damage(path=entry.path, what=f"has {found.size:,} bytes instead of {entry.size:,}")
    if found.crc64nvme is not None and entry.crc64nvme is not None:
        if found.crc64nvme == entry.crc64nvme:
            return True
        return Damage(path=entry.path, what=f"has the CRC64NVME {found.crc64nvme}, not {entry.crc64nvme}")
    return entry.etag is not None and found.version == entry.etag


def _wrong_hash(store: Store, manifest: Manifest) -> Iterator[Damage]:
    """Yield what is wrong with the object by which Ray Serve's own mirror knows the commit."""
    if manifest.version == 1:  # was written without one
        return
    found = store.get(f"{weights_key(manifest.model, manifest.commit)}/{HASH}")
    if found is None:
        yield Damage(path=HASH, what="is missing")
    elif found[0].strip() != manifest.commit.encode():
        yield Damage(path=HASH, what="does not name the commit")


class _Check:
    """The look at the files of one manifest, several at once."""

    def __init__(self, store: Store, manifest: Manifest, *, deep: bool, progress: Progress) -> None:
        self.folder = weights_key(manifest.model, manifest.commit)
        self.read_bytes = 0
        self._store, self._manifest, self._deep, self._progress = store, manifest, deep, progress
        self._reached: dict[str, int] = {}
        self._done = 0
        self._lock, self._stop = Lock(), Event()

    def files(self) -> tuple[Damage, ...]:
        """Return the damage of all files, in the manifest's order; the first error ends the look."""
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="verify") as pool:
            jobs = [pool.submit(self._file, entry) for entry in self._manifest.files]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            finally:
                self._stop.set()  # after an error or an interrupt; nobody looks once all are done
                pool.shutdown(wait=False, cancel_futures=True)
        return tuple(damage for job in jobs if (damage := job.result()) is not None)

    def _file(self, entry: FileEntry) -> Damage | None:
        verdict = judge(entry, self._store.head(f"{self.folder}/{entry.path}"))
        if isinstance(verdict, Damage):
            return verdict
        if verdict and not self._deep:
            self._reach(entry, entry.size)
            return None
        try:
            for _ in range(2):  # wrong bytes may have become so on their way here
                sha256 = self._sha256(entry)
                if sha256 == entry.sha256:
                    return None
        except NotFound:
            return Damage(path=entry.path, what="is missing")
        return Damage(path=entry.path, what=f"has the sha256 {sha256}, not {entry.sha256}")

    def _sha256(self, entry: FileEntry) -> str:
        """Return the hash of what the store gives for a file; a reading that breaks off is begun anew."""
        for left in reversed(range(READINGS)):
            begun = False
            try:
                with self._store.open(f"{self.folder}/{entry.path}") as stream:
                    begun = True
                    return self._hashed(entry, stream)
            except TransientError as error:
                if not begun or not left:
                    raise
                log.info("%s Reading %s anew.", error, entry.path)
        raise AssertionError  # the last reading has returned or raised

    def _hashed(self, entry: FileEntry, stream: IO[bytes]) -> str:
        sha256, position = hashlib.sha256(), 0
        while piece := stream.read(PIECE):
            if self._stop.is_set():
                raise CancelledError
            sha256.update(piece)
            position += len(piece)
            self._reach(entry, position, read=len(piece))
        return sha256.hexdigest()

    def _reach(self, entry: FileEntry, position: int, *, read: int = 0) -> None:
        with self._lock:
            self.read_bytes += read
            before = self._reached.get(entry.path, 0)
            self._reached[entry.path] = max(position, before)
            self._done += max(position - before, 0)
            self._progress(self._done, self._manifest.total_bytes)
