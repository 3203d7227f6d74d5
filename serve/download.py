"""Files from the store to the disk: several at once, several ranges of each, every byte hashed before it counts.

Ranges arrive in any order and go straight to their place in a file under a temporary name.  sha256 takes the bytes
of a file in order, so it follows behind and reads from the file what has arrived without a gap: that costs a tenth of
the hash itself, holds no range in memory, whatever their order, and hashes what the file holds instead of what was
meant to be written.  A file gets its own name when its hash was right.

A fetcher that dies leaves its whole files, and its parts are dropped by the next: a stopped process that wakes could
still write to them.  So few files are in work at once, each over several connections, instead of all of them over one
each.

Nothing is flushed to the disk (``serve.copies`` says why), but whoever wrote closes before the file gets its name:
NFS reports there what it could not write.
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from itertools import zip_longest
from pathlib import Path
from threading import Event, Lock
from uuid import uuid4

from serve.copies import HASHERS, PIECE_BYTES
from serve.manifest import PART, File, WeightsError
from serve.sources import Source

logger = logging.getLogger(__name__)

RANGE_BYTES = 32 * 2**20
"""Bytes of one request.  S3 gives one connection some 90 MB/s after some 30 ms, a request costs the client 2.5 ms."""

DOWNLOADS = min(64, max(8, 4 * len(os.sched_getaffinity(0))))
"""Connections at once: 64 are 5 GB/s at S3's rate, and about what one Python process can take in."""

ATTEMPTS = 4
"""Times that a range is begun without getting anywhere."""

PAUSE_S = 0.25
LOOK_S = 1.0

TOGETHER = min(8, HASHERS)
"""Files in work at once: as many as are hashed at once, but no more than what one process can take in keeps busy."""

FULL = {errno.ENOSPC, errno.EDQUOT}


class LeaseLost(Exception):
    """Another process has taken over what this one was fetching."""


@dataclass(frozen=True)
class Range:
    """Bytes ``first`` up to ``last`` of a file."""

    file: File
    first: int
    last: int


def in_order(files: Sequence[File], together: int, size: int) -> list[Range]:
    """Return the ranges of ``files``, of ``size`` bytes, in the order to ask for them.

    ``together`` files go side by side, because one core hashes one file; large ones first, because the last is hashed
    by one core alone.
    """
    ordered = sorted(files, key=lambda file: file.size, reverse=True)
    groups = [ordered[first : first + together] for first in range(0, len(ordered), together)]
    rows = (row for group in groups for row in zip_longest(*(_ranges(file, size) for file in group)))
    return [each for row in rows for each in row if each is not None]


def download(
    source: Source,
    folder: Path,
    files: Sequence[File],
    *,
    lost: Event,
    fetched: Callable[[int], None],
    whole: Callable[[File], None],
) -> None:
    """Fetch ``files`` into ``folder``.

    ``fetched`` is told of bytes as they arrive and ``whole`` of each file under its name, from any thread.  Raises
    ``WeightsError`` when a file cannot be had or is not what it should be, or there is no room for it, and
    ``LeaseLost`` soon after ``lost`` was set.  What was not whole by then is removed.
    """
    if files:
        _Download(source, folder, files, fetched, whole).run(lost)


def _ranges(file: File, size: int) -> list[Range]:
    return [Range(file, first, min(first + size, file.size)) for first in range(0, max(file.size, 1), size)]


class _Part:
    """A file on its way: which of its ranges have arrived, and how far its hash has come."""

    def __init__(self, folder: Path, file: File, ranges: int) -> None:
        self.file, self.target = file, folder / file.path
        self.path = self.target.with_name(uuid4().hex + PART)
        self.digest, self.hashed = sha256(), 0
        self._left, self._arrived = ranges, dict[int, int]()
        self._hashing, self._begun = False, False
        self._lock = Lock()

    def ends(self) -> bool:
        """Say, once, that everything has arrived and was hashed: whoever hashed before may ask as well."""
        with self._lock:
            ended = self._left == 0
            if ended:
                self._left = -1
            return ended

    def open(self) -> FileIO:
        """Open the file to be written to anywhere; the first one makes it."""
        with self._lock:
            if not self._begun:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(exist_ok=False)
                self._begun = True
        return FileIO(self.path, "r+")

    def arrived(self, each: Range) -> bool:
        """Note a range; says whether somebody has to be sent after it to hash."""
        with self._lock:
            self._arrived[each.first] = each.last
            wanted = not self._hashing and self.hashed in self._arrived
            self._hashing = self._hashing or wanted
            return wanted

    def next_end(self) -> int | None:
        """Return up to where the next range can be hashed; None ends the hashing until another arrives."""
        with self._lock:
            end = self._arrived.pop(self.hashed, None)
            if end is None:
                self._hashing = False
            else:
                self._left -= 1
            return end

    def drop(self) -> None:
        """Remove the file, and let nobody make it again."""
        with self._lock:
            self._begun = True
            with suppress(OSError):  # it may never have come to be, and the next fetcher tidies
                self.path.unlink()


class _Download:
    """One run; threads fetch, others hash, the first error ends all."""

    def __init__(
        self,
        source: Source,
        folder: Path,
        files: Sequence[File],
        fetched: Callable[[int], None],
        whole: Callable[[File], None],
    ) -> None:
        self._source, self._folder, self._fetched, self._whole = source, folder, fetched, whole
        self._order = in_order(files, TOGETHER, RANGE_BYTES)
        self._parts = {file.path: _Part(folder, file, len(_ranges(file, RANGE_BYTES))) for file in files}
        self._needed, self._unfinished = sum(file.size for file in files), len(files)
        self._error: BaseException | None = None
        self._ended, self._lock = Event(), Lock()
        self._fetchers = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="fetch")
        self._hashers = ThreadPoolExecutor(TOGETHER, thread_name_prefix="hash")

    def run(self, lost: Event) -> None:
        """Fetch everything; threads that still wait for the store when this raises end by themselves."""
        try:
            for each in self._order:
                self._start(self._fetchers, self._take, each)
            while not self._ended.wait(LOOK_S):
                if lost.is_set():
                    raise LeaseLost
            if self._error is not None:
                raise self._error
        except OSError as error:
            raise self._unwritten(error) from error
        finally:
            self._ended.set()
            for pool in (self._fetchers, self._hashers):
                pool.shutdown(wait=False, cancel_futures=True)
            for part in self._parts.values():
                part.drop()

    def _start(self, pool: ThreadPoolExecutor, work: Callable[..., None], argument: object) -> None:
        pool.submit(work, argument).add_done_callback(self._look)

    def _look(self, done: "Future[None]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None and not self._ended.is_set():
            self._error = error
            self._ended.set()

    def _take(self, each: Range) -> None:
        """Fetch one range, going on where a stream broke."""
        part, at, tries = self._parts[each.file.path], each.first, 0
        with part.open() as target:
            target.seek(at)
            while at < each.last and not self._ended.is_set():
                before = at
                try:
                    at = self._copy(Range(each.file, at, each.last), target)
                except ConnectionError as error:
                    at = target.tell()
                    tries = 1 if at > before else tries + 1
                    self._pause(each, tries, error)
                except OSError as error:
                    raise WeightsError(f"{each.file.path} cannot be read from the store: {error}.") from error
        if at == each.last and part.arrived(each):
            self._start(self._hashers, self._hash, part)

    def _copy(self, each: Range, target: FileIO) -> int:
        """Write what the store sends of a range and return up to where; raises ``ConnectionError`` if not all."""
        at = each.first
        for piece in self._source.read(each.file, each.first, each.last):
            if self._ended.is_set():
                return at
            self._write(target, memoryview(piece))
            self._fetched(len(piece))
            at += len(piece)
        if at < each.last:
            raise ConnectionError("the store ended a file before its declared size")
        return at

    def _pause(self, each: Range, tries: int, error: ConnectionError) -> None:
        if tries >= ATTEMPTS:
            raise WeightsError(f"The store broke off {ATTEMPTS} times: {error}.") from error
        logger.warning("%s: %s; going on", each.file.path, error)
        self._ended.wait(PAUSE_S * 2**tries)

    def _write(self, target: FileIO, piece: memoryview) -> None:
        try:
            while piece:
                piece = piece[target.write(piece) or 0 :]
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> WeightsError:
        if error.errno not in FULL:
            return WeightsError(f"The cache {self._folder.parent} cannot be written to: {error}.")
        free = shutil.disk_usage(self._folder).free
        return WeightsError(
            f"The disk of the cache {self._folder.parent} is full ({free:,} bytes free), although the"
            f" {self._needed:,} bytes to be fetched would have fitted at first: something else fills it."
        )

    def _hash(self, part: _Part) -> None:
        """Hash what has arrived of a file without a gap; at its end, judge it."""
        with FileIO(part.path) as stream:
            stream.seek(part.hashed)
            while (end := part.next_end()) is not None:
                while part.hashed < end and not self._ended.is_set():
                    piece = stream.read(min(PIECE_BYTES, end - part.hashed))
                    if not piece:
                        raise WeightsError(f"{part.path} was cut off by another hand while it was fetched.")
                    part.digest.update(piece)
                    part.hashed += len(piece)
        if not self._ended.is_set() and part.ends():
            self._finish(part)

    def _finish(self, part: _Part) -> None:
        file, found = part.file, part.digest.hexdigest()
        if found != file.sha256:
            raise WeightsError(
                f"{file.path} is not what the manifest declares: {file.size:,} bytes with sha256 {found}"
                f" instead of {file.sha256}."
            )
        part.path.replace(part.target)
        self._whole(file)
        with self._lock:
            self._unfinished -= 1
            if not self._unfinished:
                self._ended.set()
