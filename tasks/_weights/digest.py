"""The running hashes of one file on its way, and the comparison with what the Hub declared.

sha256 is always computed, because the manifest records it and whoever reads the file later compares it; git's blob
id only where the Hub declares nothing else; CRC64NVME because S3 compares it with what it has stored.  The size is
counted too: a prefix of a file is told apart from a damaged one in the message.
"""

import hashlib
from dataclasses import dataclass

from tasks._stores.store import StoredObject
from tasks._weights.hub import HubFile
from tasks._weights.midstate import sha256
from tasks.errors import IntegrityError
from tasks.records import FileEntry


@dataclass(frozen=True)
class DigestState:
    """The hashes after the first ``size`` bytes; ``sha256`` is empty where its state cannot be saved."""

    size: int
    sha256: bytes
    crc64nvme: int


class Digest:
    """Hashes the bytes of ``file`` in order, from ``state`` on if given; ``size`` is how many there were so far."""

    def __init__(self, file: HubFile, state: DigestState | None = None) -> None:
        from awscrt import checksums  # noqa: PLC0415 - it loads a library that most commands do not need

        self._file, self._checksums = file, checksums
        self._sha256 = sha256(state.sha256 if state else b"")
        self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        self.size = state.size if state else 0
        self.crc64nvme = state.crc64nvme if state else 0

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes to all but the CRC64NVME, while they are still in the processor's cache."""
        self.size += len(data)
        self._sha256.update(data)
        if self._file.sha256 is None:
            self._blob.update(data)

    def end_part(self, part: bytearray) -> int:
        """Add a part, whose bytes were given to ``update``, to the CRC64NVME, and return its own."""
        crc: int = self._checksums.crc64nvme(part)
        self.crc64nvme = self._checksums.combine_crc64nvme(self.crc64nvme, crc, len(part))
        return crc

    def state(self) -> DigestState:
        """Return where another process may go on; for a file that the Hub declares by sha256."""
        return DigestState(self.size, self._sha256.state(), self.crc64nvme)

    def check(self) -> None:
        """Raise ``IntegrityError`` if the bytes are not the declared ones."""
        file = self._file
        if self.size != file.size:
            raise IntegrityError(f"{file.path} has {self.size:,} bytes or more where {file.size:,} were declared.")
        same = self.sha256 == file.sha256 if file.sha256 else self._blob.hexdigest() == file.git_sha1
        if not same:
            raise IntegrityError(
                f"{file.path} is not the file that was declared: its hash differs.",
                remedy="Nothing was published; try again, and report it to the Hub if it stays.",
            )

    @property
    def sha256(self) -> str:
        """Return the sha256 of the bytes so far."""
        return self._sha256.hexdigest()

    def entry(self, stored: StoredObject) -> FileEntry:
        """Return the manifest's line for the file, stored as ``stored``."""
        file = self._file
        return FileEntry(
            path=file.path,
            size=file.size,
            sha256=self.sha256,
            git_sha1=file.git_sha1,
            crc64nvme=stored.crc64nvme,
            etag=stored.version,
        )
