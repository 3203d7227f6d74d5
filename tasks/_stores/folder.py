"""The store in a folder that several machines share: EFS, another NFS 4, or on one machine any folder.

An object is a plain file at its key, for readers that know nothing of Slipway as well.  It appears whole and on disk,
in one step that fails if something is there, and is never written to again: it is replaced or removed, as
``folder_turns`` tells.  What is on its way lies in ``.incoming``, which is never listed.  A folder keeps no metadata
and no checksums beside the bytes.

All of it must be one file system with hard links and with times finer than a second.  All who write need the same
user, or a group and a umask that let each remove what the others left; on EFS, one access point.  A bucket that is
mounted as a folder will not do: there, no rename fails and no link can be made.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from posixpath import normpath
from typing import IO, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from awscrt import checksums

from tasks._retry import attempts, retried
from tasks._stores import folder_turns as turns
from tasks._stores.folder_errors import Place
from tasks._stores.folder_files import Files, ObjectFile, checked, taken
from tasks._stores.folder_upload import PART_SIZE, FolderUpload, drop_upload, open_uploads
from tasks._stores.store import OpenUpload, StoredObject, Upload
from tasks.errors import BadInput, Conflict, NotFound
from tasks.settings import StoreSettings

T = TypeVar("T")

SYNCS_AT_ONCE = 4
"""Files synced together; as many as a mirror has under way."""

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
"""Another file system, a rule that forbids links to others' files, too many links, and no links at all."""


class FolderStore:
    """``file:///folder``; see ``Store`` for every method.  The folder must exist: a missing one may be a mount."""

    requests = 0

    def __init__(self, settings: StoreSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._files = Files(Place(self.url, _path(settings.url)))
        self._syncers = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="folder-sync")

    def get(self, key: str) -> tuple[bytes, str] | None:
        """See ``Store``."""

        def ask() -> tuple[bytes, str] | None:
            file = turns.find(self._files, checked(key))
            if file is None:
                return None
            with file:
                return file.readall(), file.described(key).version

        return self._asked(ask)

    @contextmanager
    def open(self, key: str, *, size: int | None = None) -> Iterator[IO[bytes]]:  # noqa: ARG002 - bytes are read as asked
        """See ``Store``."""
        file = self._asked(lambda: turns.find(self._files, checked(key)))
        if file is None:
            raise NotFound(f"There is no {key} in {self.url}.")
        with BufferedReader(file) as stream:
            yield stream

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """See ``Store``."""
        for attempt in attempts():
            with attempt:
                try:
                    with self._files.place.translated(len(data)):
                        return turns.put(self._files, checked(key), data, expect)
                except Conflict:
                    present = self.get(key) if attempt.num > 1 else None
                    if present is None or present[0] != data:
                        raise
                    return present[1]
        raise AssertionError  # the last attempt has returned or raised

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``."""
        return self._asked(lambda: turns.look(self._files, checked(key)))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See ``Store``."""
        yield from self._asked(lambda: tuple(self._files.walk(_checked_folder(folder))))

    def delete(self, folder: str) -> int:
        """See ``Store``."""
        keys = [item.key for item in self.list(folder)]
        for key in keys:
            self.remove(key)
        return len(keys)

    def remove(self, key: str) -> None:
        """See ``Store``."""
        self._asked(lambda: turns.remove(self._files, checked(key)))

    def copy(self, source: StoredObject, key: str) -> StoredObject | None:
        """See ``Store``."""
        file = self._asked(lambda: self._files.open(checked(source.key)))
        if file is None:
            return None
        with file:
            if file.described(source.key).version != source.version:
                return None
            if self.head(key) is not None:
                raise taken(key)
            if self._asked(lambda: self._link(file, key)):
                return file.described(key)
            if not os.fstat(file.fileno()).st_nlink:
                return None
            return self._pour(file, source.size, key)

    def open_upload(
        self,
        key: str,
        size: int,
        *,
        metadata: Mapping[str, str],  # noqa: ARG002 - a folder keeps none
        resume: tuple[str, int] | None = None,
    ) -> Upload:
        """See ``Store``; raises ``MachineError`` when there is no room for ``size``."""
        upload = FolderUpload(self._files, checked(key), size, self._syncers)
        self._asked(lambda: self.require_room(size - resume[1] if resume else size))
        if resume is not None:
            self._asked(lambda: upload.go_on(*resume))
        return upload

    def open_uploads(self, folder: str) -> Iterator[OpenUpload]:
        """See ``Store``."""
        yield from self._asked(lambda: tuple(open_uploads(self._files, _checked_folder(folder))))

    def drop_upload(self, upload: OpenUpload) -> None:
        """See ``Store``."""
        checked(upload.key)
        self._asked(lambda: drop_upload(self._files, upload))

    def close(self) -> None:
        """See ``Store``."""
        self._syncers.shutdown()

    def _asked(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns, errors translated, with retries."""

        def once() -> T:
            with self._files.place.translated():
                return ask()

        return retried(once)

    def require_room(self, size: int) -> None:
        """See ``Store``."""
        place = self._files.place
        with self._files.folder(""):
            if place.free() < size:
                raise place.full(size)

    def _link(self, file: ObjectFile, key: str) -> bool:
        """Give an open object a second key; false when it has been removed, or there are no links between the two."""
        mine, itself = os.fstat(file.fileno()), f"/proc/self/fd/{file.fileno()}"
        try:
            self._files.publish(key, mine, lambda name, to: os.link(itself, name, dst_dir_fd=to))
        except OSError as error:
            if error.errno in _NO_LINKS or not os.fstat(file.fileno()).st_nlink:
                return False
            raise
        return True

    def _pour(self, file: ObjectFile, size: int, key: str) -> StoredObject:
        """Copy the bytes of an open object."""
        upload = self.open_upload(key, size, metadata={})
        whole = 0
        try:
            while part := file.read(PART_SIZE):
                crc = checksums.crc64nvme(part)
                whole = checksums.combine_crc64nvme(whole, crc, len(part))
                upload.write(bytearray(part), crc, lambda: None)
            return upload.complete(whole)
        except BaseException:
            upload.abort()
            raise


def _checked_folder(folder: str) -> str:
    return checked(folder.strip("/")) if folder.strip("/") else ""


def _path(url: str) -> str:
    """Return the path that a ``file:`` URL names; raises ``BadInput`` for any other."""
    parts = urlsplit(url)
    path = os.fsdecode(unquote_to_bytes(parts.path))
    plain = normpath(path)
    if (
        (parts.scheme, parts.netloc, parts.query, parts.fragment) != ("file", "", "", "")
        or not path.startswith("/")
        or ".." in path.split("/")
        or "\0" in path
        or plain.strip("/") == ""
    ):
        raise BadInput(
            f"{url!r} does not name a folder.",
            remedy="Write it as file:///folder, an absolute path with %-escapes for unusual characters.",
        )
    return plain
