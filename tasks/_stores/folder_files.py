"""Files of a shared folder as every machine sees them at this moment.

A client of a file server remembers names for up to a minute.  It asks again for a folder that is opened, and NFS 4
for a file that is opened, so every key is walked from the root, folder by folder, and then opened; nothing here
trusts a path that was looked up before.  The walk follows no symbolic link, and so never leaves the root.

An object is never written to once it has its name.  Its version is its inode, time and size, which all clients of one
server see alike.  Versions never return: a replaced object's successor has a later time, whatever the clocks say, and
a new object that happens to get the inode of a removed one differs in random digits below the millisecond.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ELOOP
from io import FileIO
from posixpath import basename, dirname, join, normpath
from secrets import randbelow
from time import time_ns

from tasks._stores.folder_errors import Place
from tasks._stores.store import StoredObject
from tasks.errors import BadInput, Conflict, NotFound

INCOMING = ".incoming"
"""Folder in the root for what is not finished; never shown."""

TRIES = 5
"""Times that the folder of an object is made, while others remove it because it is empty."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OBJECT = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFT_BY_NFS = re.compile(r"\.nfs[0-9a-f]{16,}")
_MS = 10**6
_S = 10**9


class ObjectFile(FileIO):
    """An object that is open for reading; a server that breaks off raises ``Unreachable``."""

    def __init__(self, descriptor: int, place: Place) -> None:
        super().__init__(descriptor)
        self._place = place

    def read(self, size: int | None = -1) -> bytes:
        """See ``RawIOBase``."""
        with self._place.translated():
            return super().read(-1 if size is None else size)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # a regular file never waits
        """See ``RawIOBase``."""
        with self._place.translated():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """See ``RawIOBase``."""
        with self._place.translated():
            return super().readall()

    def described(self, key: str) -> StoredObject:
        """Return what the file system knows of the object."""
        return described(key, os.fstat(self.fileno()))


@dataclass(frozen=True)
class Files:
    """The files under one root.  Methods raise ``OSError`` where nothing else is said."""

    place: Place

    @contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """Open the folder at ``path``, "" for the root, and yield its descriptor; ``make`` makes what is missing.

        The root is never made: it may be a mount that is missing.  Raises ``NotFound`` or ``BadInput`` for it.
        """
        with ExitStack() as opened:
            at = self._root()
            opened.callback(os.close, at)
            names = path.split("/") if path else []
            for name in names:
                at = _step(at, name, make=make, lasting=names[0] != INCOMING)
                opened.callback(os.close, at)
            yield at

    def open(self, key: str) -> ObjectFile | None:
        """Open an object for reading, None when there is none."""
        try:
            with self.folder(dirname(key)) as folder:
                file = os.open(basename(key), _OBJECT, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with ExitStack() as unless_kept:
            unless_kept.callback(os.close, file)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            unless_kept.pop_all()
        return ObjectFile(file, self.place)

    def look(self, key: str) -> StoredObject | None:
        """Return what is known of an object, None when there is none."""
        file = self.open(key)
        if file is None:
            return None
        with file:
            return file.described(key)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in the folder at ``path``; none when there is no such folder."""
        try:
            with self.folder(path) as folder:
                return sorted(os.listdir(folder))  # noqa: PTH208 - a Path would look the folder up again
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> Iterator[StoredObject]:
        """Yield the objects in ``folder`` and below, by name, without what is not finished."""
        try:
            with self.folder(folder) as top:
                for path, folders, names, at in os.fwalk(".", onerror=_unless_gone, dir_fd=top):
                    here = normpath(join(folder, path))
                    folders[:] = sorted(name for name in folders if join(here, name) != join(".", INCOMING))
                    for name in sorted(names):
                        with suppress(FileNotFoundError):
                            found = os.stat(name, dir_fd=at, follow_symlinks=False)
                            if stat.S_ISREG(found.st_mode) and not _LEFT_BY_NFS.fullmatch(name):
                                yield described(normpath(join(here, name)), found)
        except (FileNotFoundError, NotADirectoryError):
            return

    def publish(self, key: str, mine: os.stat_result, link: Callable[[str, int], None]) -> None:
        """Give the file ``mine`` the name ``key`` for good, if nothing has it; ``link`` takes name and folder.

        Raises ``Conflict`` otherwise.  A server whose reply was lost is asked again and answers that the name is
        taken: then it is taken by this very file.
        """
        for left in reversed(range(TRIES)):
            try:
                with self.folder(dirname(key), make=True) as folder:
                    try:
                        link(basename(key), folder)
                    except FileExistsError:
                        if not is_same(mine, basename(key), folder):
                            raise taken(key) from None
                    os.fsync(folder)
                    return
            except FileNotFoundError:
                if not left:
                    raise

    def prune(self, path: str) -> None:
        """Remove the folder at ``path`` and those that it lies in, up to the first that holds something."""
        with self.folder("") as root:
            while path not in {"", INCOMING}:
                try:
                    os.rmdir(path, dir_fd=root)
                except FileNotFoundError:
                    pass
                except OSError:
                    return
                path = dirname(path)

    def clear(self, path: str) -> None:
        """Remove the folder at ``path`` and those in it, as far as they hold nothing."""
        with self.folder("") as root:
            for folder, *_ in os.fwalk(path, topdown=False, dir_fd=root):
                with suppress(OSError):
                    os.rmdir(folder, dir_fd=root)

    def _root(self) -> int:
        try:
            return os.open(self.place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(
                f"There is no folder {self.place.path}, which the store is to be in.",
                remedy="Create it or mount it first.",
            ) from error
        except NotADirectoryError as error:
            raise BadInput(f"{self.place.path} is no folder, so no store can be in it.") from error


def checked(key: str) -> str:
    """Return ``key``; raises ``BadInput`` for one that leads out of the root, or to what is hidden there."""
    names = key.split("/")
    if {"", ".", ".."} & set(names) or "\0" in key or names[0] == INCOMING:
        raise BadInput(f"{key!r} is not the key of an object.", remedy="A key is a relative path of plain names.")
    return key


def create(name: str, folder: int) -> int:
    """Return the descriptor of a new file in an open folder, for its owner to write and others to read."""
    return os.open(name, _NEW, 0o666, dir_fd=folder)


def write(file: int, data: bytes | bytearray, at: int) -> None:
    """Write all of ``data`` from byte ``at``."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def finish(file: int, *, after: int = 0) -> os.stat_result:
    """Make a file that was written read-only, with a time later than ``after`` (ns), and wait until it is on disk."""
    now = max(time_ns() // _MS, after // _MS + 1) * _MS + randbelow(_MS)
    os.fchmod(file, os.fstat(file).st_mode & 0o444)
    os.utime(file, ns=(now, now))
    if os.fstat(file).st_mtime_ns <= after:  # a file system that keeps whole seconds
        later = (after // _S + 1) * _S
        os.utime(file, ns=(later, later))
    os.fsync(file)
    return os.fstat(file)


def version_of(found: os.stat_result) -> str:
    """Return what tells a file from every other that has or had its key."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def time_of(version: str) -> int:
    """Return the time in a version, in ns."""
    return int(version.split("-")[1], 16)


def described(key: str, found: os.stat_result) -> StoredObject:
    """Return a file as the store shows it."""
    return StoredObject(key, found.st_size, version_of(found), datetime.fromtimestamp(found.st_mtime, UTC))


def is_same(mine: os.stat_result, name: str, folder: int) -> bool:
    """Say whether ``name`` in an open folder is the file ``mine``, and not a later one that got its inode."""
    try:
        return version_of(mine) == version_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def taken(key: str) -> Conflict:
    """Return the error for a key that has an object, or another version of it than was expected."""
    return Conflict(f"Another writer came first to {key}.", remedy="Read it again and decide anew.")


def _step(at: int, name: str, *, make: bool, lasting: bool) -> int:
    """Open a folder in an open folder; one that is ``lasting`` is on disk when this returns."""
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(ELOOP, os.strerror(ELOOP), name) from error
        raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=at)
        if lasting:
            os.fsync(at)
    return os.open(name, _FOLDER, dir_fd=at)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
