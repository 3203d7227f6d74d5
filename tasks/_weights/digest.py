"""The running hash of one file on its way, and the comparison with what the Hub declared.

sha256 is always computed, because the manifest records it; git's blob id only where the Hub declares nothing
else.  The size is counted too: a prefix of a file is told apart from a damaged one in the message.
"""

import hashlib

from tasks._weights.hub import HubFile
from tasks.errors import IntegrityError
from tasks.records import FileEntry


class Digest:
    """Hashes the bytes of ``file`` in order; ``size`` is how many there were so far."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        self.size = 0

    def update(self, data: bytes | bytearray) -> None:
        """Add the next bytes."""
        self.size += len(data)
        self._sha256.update(data)
        if self._file.sha256 is None:
            self._blob.update(data)

    def entry(self) -> FileEntry:
        """Return the manifest's line for the file; raises ``IntegrityError`` if the bytes are not the declared."""
        file, sha256 = self._file, self._sha256.hexdigest()
        if self.size != file.size:
            raise IntegrityError(f"{file.path} has {self.size:,} bytes or more where {file.size:,} were declared.")
        same = sha256 == file.sha256 if file.sha256 else self._blob.hexdigest() == file.git_sha1
        if not same:
            raise IntegrityError(
                f"{file.path} is not the file that was declared: its hash differs.",
                remedy="Nothing was published; try again, and report it to the Hub if it stays.",
            )
        return FileEntry(path=file.path, size=file.size, sha256=sha256, git_sha1=file.git_sha1)
