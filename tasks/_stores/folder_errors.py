"""What the operating system's errors mean in the tree of ``tasks.errors``; the only place that knows, for folders."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.errors import (
    AccessDenied,
    BadInput,
    MachineError,
    Refused,
    SlipwayError,
    TerminalError,
    Unreachable,
)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNNAMEABLE = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ})
_AGAIN = frozenset(
    {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO, errno.ENOENT}
)
"""A file server that is away or gave a file's handle up, or a folder that another process removed at this moment."""


@dataclass(frozen=True)
class Place:
    """The store as messages name it, ``url``, and where its files lie, ``path``."""

    url: str
    path: str

    @contextmanager
    def translated(self, needed: int = 0) -> Iterator[None]:
        """Raise the errors of ``tasks.errors`` for those of the system; ``needed`` bytes are to be written."""
        try:
            yield
        except OSError as error:
            raise self._refusal(error, needed) from error

    def full(self, needed: int) -> MachineError:
        """Return the error for a file system that lacks ``needed`` bytes."""
        return MachineError(
            f"The store at {self.url} is full: {needed:,} bytes are needed and {self.free():,} are free.",
            remedy="Make room there, e.g. with `slipway gc`, or raise the quota.",
        )

    def free(self) -> int:
        """Return how many bytes the file system lets this user write; a quota may be less."""
        system = os.statvfs(self.path)
        return system.f_bavail * system.f_frsize

    def _refusal(self, error: OSError, needed: int) -> SlipwayError:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        if error.errno in FULL:
            return self.full(needed)
        if error.errno in _DENIED:
            return AccessDenied(
                f"The store at {self.url} denies access ({name}).",
                remedy="Check that this user may read, write and delete there, and that it is not mounted read-only.",
            )
        if error.errno in _AGAIN:
            return Unreachable(
                f"The store at {self.url} breaks off ({name}).", remedy="Check its file server and the network."
            )
        if error.errno in _UNNAMEABLE:
            return BadInput(f"The store at {self.url} cannot hold an object of that name ({name}).")
        if error.errno == errno.ELOOP:
            return Refused(
                f"There is a symbolic link in the store at {self.url}, and none is followed.",
                remedy="Put the folder itself there, or mount it.",
            )
        return TerminalError(f"The store at {self.url} refuses a request ({name}).")
