"""An object of any size on its way into a shared folder, part by part, and across processes.

The bytes are in ``.incoming/<id>/<key>/<name>`` until ``complete`` gives the file its key, in one step that fails if
something is there.  The name changes hands with the upload: who goes on with it renames the file, and who completes
it renames it first to ``whole``, which nobody takes over.  So of a process that stopped and one that went on in its
place only one can publish or remove the file, whoever wakes when.

``stored`` counts what is on disk, not what was written: a journal that says more would lie after a loss of power.
One ``fdatasync`` after another runs beside the writing, each for all that was written before it, so that a fast disk
syncs often, a slow one seldom, and neither keeps the writer waiting.

A process that was stopped may still write to the file, or its machine may send late what it had written.  Those are
the same bytes, unless they are damaged; so what was taken over is read once more before it is published, all of it
and from the server.
"""

import base64
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from posixpath import dirname, join
from re import fullmatch
from uuid import uuid4

from awscrt import checksums

from tasks._retry import retried
from tasks._stores.folder_files import INCOMING, Files, create, described, finish, is_same, write
from tasks._stores.store import OpenUpload, StoredObject
from tasks.errors import Conflict, IntegrityError, NotFound, SlipwayError

log = logging.getLogger(__name__)

PART_SIZE = 8 * 2**20
"""Bytes of a part: large enough that system calls cost nothing, small enough for several to be in memory."""

LEFT = timedelta(hours=1)
"""Age at which the empty folders of an upload are taken for those of a killed process."""

_WHOLE = "whole"
_NONE = "none"
_ID = "[0-9a-f]{32}"
_NAME = "[0-9a-f]{8}"


class FolderUpload:
    """See ``Upload``; ``syncers`` are the threads that wait for the disk."""

    part_size = PART_SIZE

    def __init__(self, files: Files, key: str, size: int, syncers: ThreadPoolExecutor) -> None:
        self.id, self.stored = "", 0
        self._files, self._key, self._size, self._syncers = files, key, size, syncers
        self._name = uuid4().hex[:8]
        self._file: int | None = None
        self._written = self._crc = 0
        self._taken_over = self._ended = False
        self._syncing: Future[None] | None = None

    def go_on(self, upload: str, kept: int) -> None:
        """Take over an earlier upload of which ``kept`` bytes are to count; raises ``NotFound`` if it holds less."""
        self.id = upload if fullmatch(_ID, upload) else _NONE
        try:
            with self._files.folder(self._folder) as folder:
                self._file = self._take(folder, kept)
        except FileNotFoundError:
            raise NotFound(
                f"The upload of {self._key} has ended, or does not hold the bytes that it should."
            ) from None
        self._written = self.stored = kept
        self._taken_over = True

    def write(self, part: bytearray, crc64nvme: int, sent: Callable[[], None]) -> None:
        """See ``Upload``; returns when the system has the part, which may be long before the disk has."""
        try:
            with self._files.place.translated(self._size - self._written):
                write(self._opened(), part, self._written)
        finally:
            sent()
        self._written += len(part)
        self._crc = checksums.combine_crc64nvme(self._crc, crc64nvme, len(part))
        if self._syncing is None or self._syncing.done():
            self._settle()
            self._syncing = self._syncers.submit(self._sync, self._opened(), self._written)

    def flush(self) -> None:
        """See ``Upload``."""
        self._settle()
        if self._file is not None and self.stored < self._written:
            self._sync(self._file, self._written)

    def complete(self, crc64nvme: int) -> StoredObject:
        """See ``Upload``."""
        place = self._files.place
        with place.translated(self._size):
            file = self._opened()
            self._settle()
            self._seal(file)
            self._verify(file, crc64nvme)
            mine = finish(file)
        retried(lambda: self._publish(mine))
        self._ended, self.stored = True, self._size
        self._remove()
        text = base64.b64encode(crc64nvme.to_bytes(8)).decode()
        return replace(described(self._key, mine), crc64nvme=text)

    def suspend(self) -> None:
        """See ``Upload``."""
        try:
            self.flush()
        except SlipwayError as error:
            log.warning("Not all that was written of %s is on disk: %s", self._key, error)
        self._close()

    def abort(self) -> None:
        """See ``Upload``."""
        if self._ended:
            return
        with suppress(SlipwayError):
            self._settle()
        self._remove()
        self._ended = True

    @property
    def _folder(self) -> str:
        return join(INCOMING, self.id, self._key)

    def _opened(self) -> int:
        """Return the file, a new one if there is none yet."""
        if self._file is None:
            self.id = uuid4().hex
            with self._files.folder(self._folder, make=True) as folder:
                self._file = create(self._name, folder)
        return self._file

    def _take(self, folder: int, kept: int) -> int:
        """Return the file of another process, which is this one's from now on and has ``kept`` bytes."""
        name = next((name for name in self._files.names(self._folder) if fullmatch(_NAME, name)), None)
        if name is None:
            raise FileNotFoundError
        file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if os.fstat(file).st_size < kept:
                raise FileNotFoundError
            _rename(file, name, self._name, folder)
            os.ftruncate(file, kept)
        except OSError:
            os.close(file)
            raise
        return file

    def _sync(self, file: int, written: int) -> None:
        with self._files.place.translated(self._size):
            os.fdatasync(file)
        self.stored = written

    def _settle(self) -> None:
        """Wait until the file is not being synced; raises the error that it ended with."""
        if self._syncing is not None:
            self._syncing.result()

    def _seal(self, file: int) -> None:
        """Give the file the name under which nobody takes it over; raises ``Conflict`` if somebody has."""
        try:
            with self._files.folder(self._folder) as folder:
                _rename(file, self._name, _WHOLE, folder)
        except FileNotFoundError:
            raise Conflict(f"Another process took the upload of {self._key} over, or dropped it.") from None
        self._name = _WHOLE

    def _verify(self, file: int, crc64nvme: int) -> None:
        if self._taken_over:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._crc, self._written = _read(file)
        if (self._written, self._crc) != (self._size, crc64nvme):
            raise IntegrityError(
                f"The store does not hold the {self._size:,} bytes of {self._key} that were sent.",
                remedy="Send it again from its beginning.",
            )

    def _publish(self, mine: os.stat_result) -> None:
        with self._files.place.translated(), self._files.folder(self._folder) as folder:
            self._files.publish(
                self._key, mine, lambda name, to: os.link(_WHOLE, name, src_dir_fd=folder, dst_dir_fd=to)
            )

    def _remove(self) -> None:
        """Remove what is this process's of the upload, as far as that can be done."""
        self._close()
        if not self.id:
            return
        try:
            with self._files.place.translated():
                with suppress(FileNotFoundError), self._files.folder(self._folder) as folder:
                    os.unlink(self._name, dir_fd=folder)
                self._files.prune(self._folder)
        except SlipwayError as error:
            log.warning("What was sent of %s may stay in the store: %s", self._key, error)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def open_uploads(files: Files, folder: str) -> Iterator[OpenUpload]:
    """Yield the uploads under ``folder``, and clear empty folders away that killed processes left."""
    for upload, begun in _begun(files):
        at = join(INCOMING, upload)
        keys = {dirname(item.key).removeprefix(f"{at}/") for item in files.walk(at)}
        for key in keys:
            if not folder or key.startswith(f"{folder}/"):
                yield OpenUpload(key, upload, begun)
        if not keys and datetime.now(UTC) - begun > LEFT:
            files.clear(at)


def drop_upload(files: Files, upload: OpenUpload) -> None:
    """Remove an upload, whoever began it, if it is there."""
    if not fullmatch(_ID, upload.id):
        return
    at = join(INCOMING, upload.id, upload.key)
    for name in files.names(at):
        with suppress(FileNotFoundError), files.folder(at) as folder:
            os.unlink(name, dir_fd=folder)
    files.prune(at)


def _begun(files: Files) -> Iterator[tuple[str, datetime]]:
    """Yield the ids of uploads and when they were begun."""
    for name in files.names(INCOMING):
        if fullmatch(_ID, name):
            with suppress(FileNotFoundError), files.folder(join(INCOMING, name)) as folder:
                yield name, datetime.fromtimestamp(os.fstat(folder).st_mtime, UTC)


def _rename(file: int, old: str, new: str, folder: int) -> None:
    """Rename ``file``; a server whose reply was lost says that the old name is gone."""
    try:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    except FileNotFoundError:
        if not is_same(os.fstat(file), new, folder):
            raise


def _read(file: int) -> tuple[int, int]:
    """Return the CRC64NVME of all bytes in a file, and their number."""
    crc = at = 0
    while part := os.pread(file, PART_SIZE, at):
        crc, at = checksums.crc64nvme(part, crc), at + len(part)
    return crc, at
