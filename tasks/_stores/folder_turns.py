"""Compare-and-swap in a shared folder, with nothing but what NFS itself promises.

Locks may be no-ops there, a machine may stop between any two requests and wake much later, and no request says
"replace the file if it is still this one".  What a server does do in one step: ``link`` fails where the name is
taken; ``rename`` of a folder fails where its new name is a folder that holds something; ``rename`` of a file fails
where the file, or the folder it is to go to, is gone.

A writer has its new bytes on disk in a draft, a folder of its own, before anybody else looks at them.  To replace
version v of an object it

1. takes the turn: renames its draft to a name made of the object's key and v, where one draft at most can be;
2. looks whether the object is still v, and drops its draft if not;
3. acts: renames the file from its own draft over the object.

Whoever waits for a turn that does not end ends it, by renaming the file in there: then 3 fails, however late it
comes.  Waiting decides only how soon, so to end another's turn is always safe, and nothing of the dead needs repair.

Why no update is lost: say the object changes from v to w between 2 and 3 of a writer that then succeeds in 3.  Its
file was in the turn of v all that time.  The change to w was another's 3; take the first that went wrong, so that
this one did replace v, and had its file in the turn of v at the same time.  But a turn holds one draft.  Versions
never return, so a turn that is taken again later is that of a version which is gone, and ends at 2.

Removal is the same with 3 the other way round: the object is renamed onto the file in the draft, which fails once
somebody has ended the turn, as that removes the draft's folder.  Creation is the turn of "none", with a ``link``.

One thing a Linux client of NFS does not do in one step: while some process on it has the object open, 3 puts the
object aside first, and it may stop there.  So an object is taken for missing only while nobody has a turn, and every
writer links the old object into its draft before 3; who ends its turn puts that back where nothing is.

These steps were checked exhaustively, for up to four writers stopped, and turns ended, at every point.

Drafts that killed writers left go with the next write to the same key: those that were there while v still was are
for v or for something older.
"""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EEXIST, ENOENT, ENOTEMPTY
from hashlib import sha256
from posixpath import basename, dirname, join
from time import monotonic, sleep
from uuid import uuid4

from tasks._stores.folder_files import (
    INCOMING,
    Files,
    ObjectFile,
    create,
    finish,
    is_same,
    taken,
    time_of,
    version_of,
    write,
)
from tasks._stores.store import StoredObject
from tasks.errors import Conflict, Unreachable

PATIENCE_S = 3.0
"""Seconds that one writer's turn may take before another ends it; a turn is three or four requests long."""

BUSY_S = 60.0
"""Seconds that a writer waits for its turn in all."""

POLL_S = 0.01

_NEW, _ENDED, _OLD = "new", "ended", "old"
"""Files of a draft: what is to become the object, the same when its turn was ended, and what was the object."""

_TURN = "turn-"


@dataclass(frozen=True)
class _Draft:
    """A ``file`` on disk in a folder of its own, which is open as ``folder`` and was made as ``name``."""

    name: str
    folder: int
    file: os.stat_result


def find(files: Files, key: str, *, but: str = "") -> ObjectFile | None:
    """Open an object for reading; None when there is none and nobody has a turn, ``but`` one.  Raises ``OSError``."""
    begun = monotonic()
    while (file := files.open(key)) is None:
        turns = _drafts(files, key, _TURN) - {but}
        if not turns or monotonic() - begun > PATIENCE_S:
            _end(files, key, turns)
            return files.open(key)
        sleep(POLL_S)
    return file


def look(files: Files, key: str, *, but: str = "") -> StoredObject | None:
    """Return what is known of an object; None as ``find`` does.  Raises ``OSError``."""
    file = find(files, key, but=but)
    if file is None:
        return None
    with file:
        return file.described(key)


def put(files: Files, key: str, data: bytes, expect: str | None) -> str:
    """Write an object if its version is still ``expect`` (None: if there is none), and return the new one.

    Raises ``Conflict`` when it is not, ``Unreachable`` when another took this writer for dead or too many wait for
    their turns, and ``OSError``.
    """
    _compare(files, key, expect)
    with (
        _draft(files, key, data, after=time_of(expect) if expect else 0) as draft,
        _turn(files, key, expect, draft) as turn,
    ):
        rivals = _drafts(files, key) - {turn}
        if expect is None:
            _create(files, key, draft)
        else:
            _replace(files, key, draft)
        _end(files, key, rivals)
    return version_of(draft.file)


def remove(files: Files, key: str) -> None:
    """Remove an object, if there is one, and what killed writers left of it.  Raises as ``put`` does."""
    rivals = _drafts(files, key)
    while (present := look(files, key)) is not None:
        with (
            _draft(files, key, b"") as draft,
            suppress(Conflict, FileNotFoundError),
            _turn(files, key, present.version, draft),
            files.folder(dirname(key)) as folder,
        ):
            os.rename(basename(key), _NEW, src_dir_fd=folder, dst_dir_fd=draft.folder)
            os.fsync(folder)
    _end(files, key, rivals)
    files.prune(dirname(key))


def _create(files: Files, key: str, draft: _Draft) -> None:
    try:
        files.publish(key, draft.file, lambda name, to: os.link(_NEW, name, src_dir_fd=draft.folder, dst_dir_fd=to))
    except FileNotFoundError:
        raise _no_turn(key) from None


def _replace(files: Files, key: str, draft: _Draft) -> None:
    with files.folder(dirname(key)) as folder:
        with suppress(OSError):  # a file system may forbid the link; then only the safety net is missing
            os.link(basename(key), _OLD, src_dir_fd=folder, dst_dir_fd=draft.folder)
        try:
            os.rename(_NEW, basename(key), src_dir_fd=draft.folder, dst_dir_fd=folder)
        except FileNotFoundError:
            if not is_same(draft.file, basename(key), folder):  # else it was done, and only the reply was lost
                raise _no_turn(key) from None
        os.fsync(folder)


@contextmanager
def _draft(files: Files, key: str, data: bytes, *, after: int = 0) -> Iterator[_Draft]:
    """Yield a draft of ``data`` with a time later than ``after`` (ns); nothing of it stays after the block."""
    name = _prefix(key) + uuid4().hex
    with files.folder(join(INCOMING, name), make=True) as folder:
        try:
            yield _Draft(name, folder, _written(folder, data, after))
        finally:
            _clear(files, key, folder)
            _vacate(files, name)


def _written(folder: int, data: bytes, after: int) -> os.stat_result:
    file = create(_NEW, folder)
    try:
        write(file, data, 0)
        return finish(file, after=after)
    finally:
        os.close(file)


@contextmanager
def _turn(files: Files, key: str, expect: str | None, draft: _Draft) -> Iterator[str]:
    """Wait until it is the draft's turn to replace ``expect``, and yield the turn's name while it is.

    Raises ``Conflict`` when the object is another version.
    """
    turn = f"{_prefix(key)}{_TURN}{_hash(expect or '')}"
    _wait_for(files, key, expect, draft, turn)
    try:
        _compare(files, key, expect, but=turn)
        yield turn
    finally:
        _clear(files, key, draft.folder)
        _vacate(files, turn)


def _wait_for(files: Files, key: str, expect: str | None, draft: _Draft, turn: str) -> None:
    begun = since = monotonic()
    holder = None
    while not _take(files, draft, turn):
        _compare(files, key, expect, but=turn)
        present, now = _holder(files, turn), monotonic()
        if present != holder:
            holder, since = present, now
        elif now - since > PATIENCE_S:
            _end(files, key, {turn})
        if now - begun > BUSY_S or not is_same(draft.file, _NEW, draft.folder):
            raise _no_turn(key)
        sleep(POLL_S)


def _take(files: Files, draft: _Draft, turn: str) -> bool:
    """Take the turn if nobody has it; a server whose reply was lost says that the draft is gone: to the turn."""
    with files.folder(INCOMING) as incoming:
        try:
            os.rename(draft.name, turn, src_dir_fd=incoming, dst_dir_fd=incoming)
        except OSError as error:
            if error.errno not in {ENOTEMPTY, EEXIST, ENOENT}:
                raise
            return is_same(draft.file, join(turn, _NEW), incoming)
    return True


def _holder(files: Files, turn: str) -> int | None:
    """Return the inode of the folder that has the turn."""
    try:
        with files.folder(join(INCOMING, turn)) as folder:
            return os.fstat(folder).st_ino
    except FileNotFoundError:
        return None


def _compare(files: Files, key: str, expect: str | None, *, but: str = "") -> None:
    """Raise ``Conflict`` unless the object is ``expect``; only that of "none" has to look twice."""
    present = look(files, key, but=but) if expect is None else files.look(key)
    if (present.version if present else None) != expect:
        raise taken(key)


def _drafts(files: Files, key: str, kind: str = "") -> Set[str]:
    """Return the names of all drafts of an object, or of those that have a turn."""
    return {name for name in files.names(INCOMING) if name.startswith(_prefix(key) + kind)}


def _end(files: Files, key: str, drafts: Set[str]) -> None:
    """End drafts, whoever wrote them, whether they have a turn or not; what cannot be removed waits."""
    for name in drafts:
        with suppress(OSError), files.folder(join(INCOMING, name)) as folder:
            _clear(files, key, folder)
        _vacate(files, name)


def _clear(files: Files, key: str, draft: int) -> None:
    """Make sure that a draft does not become the object any more, put back what it put aside, and remove its files.

    Every step can be repeated, by several at once.  The old object goes before the ended file, so that it is put
    back only by those who saw both, while it was the object's last version for certain.
    """
    with suppress(OSError):
        os.rename(_NEW, _ENDED, src_dir_fd=draft, dst_dir_fd=draft)
    with suppress(OSError), files.folder(dirname(key)) as folder:
        os.stat(_ENDED, dir_fd=draft)
        os.link(_OLD, basename(key), src_dir_fd=draft, dst_dir_fd=folder)
    for name in (_OLD, _ENDED):
        with suppress(OSError):
            os.unlink(name, dir_fd=draft)


def _vacate(files: Files, draft: str) -> None:
    with suppress(OSError), files.folder(INCOMING) as incoming:
        os.rmdir(draft, dir_fd=incoming)


def _prefix(key: str) -> str:
    return f"put-{_hash(key)}-"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def _no_turn(key: str) -> Unreachable:
    return Unreachable(f"Other writers took the turn of this one to write {key}.", remedy="Try again.")
