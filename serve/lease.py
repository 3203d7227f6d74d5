"""One fetcher per commit and node: replicas that start together fetch once, and none waits for the dead.

The lease is a file beside the commit's folder.  It is created by ``link``, which one process wins and after which it
is never seen empty; touched while its holder lives; removed at its end.  Its holder also keeps it flocked, which
tells every process under the same kernel, in whatever container, the moment that the holder dies.  A flock alone
would not do: the cache may be a folder shared between machines, where some file systems grant one to everybody.
There, and when the holder is stopped rather than dead, the lease is free once it was not touched for ``LIFETIME_S``,
by the clock of the file system itself.

A holder that was stopped for so long and wakes finds the lease in other hands and gives up.  For a moment two are
then at work, which costs bytes but no correctness: each writes to names of its own and renames what its hash proved.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

logger = logging.getLogger(__name__)

LIFETIME_S = 30.0
RENEW_S = 5.0
"""Seconds between two touches; four may be missed."""

SETTLE_S = 1.0
"""How long a lease that was taken over by its age must stay ours to be ours: two may have judged it at once."""


@contextmanager
def leased(path: Path) -> Iterator[Event | None]:
    """Hold the lease at ``path`` while the block runs; yields None, at once, when another process holds it.

    The event is set when the lease was lost to another.  Raises ``OSError`` where no lease can be written.
    """
    owner = uuid4().hex
    with contextlib.ExitStack() as stack:
        if not _take(path, owner, stack):
            yield None
            return
        lost, ended = Event(), Event()
        keeper = Thread(target=_keep, args=[path, owner, lost, ended], name="lease", daemon=True)
        keeper.start()
        try:
            yield lost
        finally:
            ended.set()
            keeper.join()
            if _owner(path) == owner:
                path.unlink(missing_ok=True)


@cache
def this_boot() -> str:
    """Return the id of this start of the machine's kernel: the same in all of its containers."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _take(path: Path, owner: str, stack: contextlib.ExitStack) -> bool:
    """Try to make the lease ours; its flock is kept by ``stack``."""
    mine = path.with_name(f"{path.name}.{owner}")
    try:
        stream = stack.enter_context(mine.open("x+", encoding="ascii"))
        json.dump({"owner": owner, "boot": this_boot()}, stream)
        stream.flush()
        _flocked(stream.fileno())
        try:
            os.link(mine, path)
        except FileExistsError:
            return _take_over(path, mine) and _owner(path) == owner
        return True
    finally:
        mine.unlink(missing_ok=True)


def _take_over(path: Path, mine: Path) -> bool:
    """Put ``mine`` in the place of a lease that is free; says whether it was."""
    now = mine.stat().st_mtime
    try:
        with path.open("r+", encoding="ascii") as lease:
            found = os.fstat(lease.fileno())
            if now - found.st_mtime > LIFETIME_S:
                mine.replace(path)
                time.sleep(SETTLE_S)
                return True
            if _read(lease.read()).get("boot") != this_boot() or not _flocked(lease.fileno()):
                return False
            if path.stat().st_ino != found.st_ino:
                return False  # another did so first, while its flock was not yet ours
            mine.replace(path)
            return True
    except FileNotFoundError:
        return False  # its holder has just ended: the next try will have it


def _keep(path: Path, owner: str, lost: Event, ended: Event) -> None:
    while not ended.wait(RENEW_S):
        try:
            if _owner(path) != owner:
                lost.set()
                return
            os.utime(path)
        except OSError as error:
            logger.warning("The lease %s could not be renewed: %s", path, error)


def _owner(path: Path) -> object:
    try:
        return _read(path.read_text(encoding="ascii")).get("owner")
    except FileNotFoundError:
        return None


def _read(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _flocked(descriptor: int) -> bool:
    """Flock without waiting; not to be had from some file systems, where only the age of a lease counts."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
