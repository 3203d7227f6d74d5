"""A commit's folder on the node's disk, and what is proven of its files.

``<cache>/<commit>/`` holds the files of the manifest and nothing else.  A file is proven when it was read and hashed
and has not been touched since: its size and times are what they were.  Proofs lie beside the folder, in
``<commit>.proof``, written last; a folder without them is as good as unknown.

Whose proofs count: those of this start, and those written by another process of this machine since this start began,
so that eight replicas that wait for one fetch hash it once.  Older ones count only where ``SLIPWAY_CACHE_HASH`` is
``once-a-boot``.  The default, ``every-start``, reads and hashes everything again, because disks and people change
bytes without a trace; one core hashes a gigabyte in 0.9 s, as many files at once as there are cores, and what was
read for it lies in memory when the engine asks for it.  140 GB in 30 files on 16 cores are 8 s where the disk gives
that much; one file of 140 GB would be 126 s on any machine.  Proofs of before the machine's last start never count:
nothing here waits for the disk (an fsync of 140 GB costs what the disk takes to write it, while the engine could
long read from memory), so a power failure may take bytes back, and nothing else may.
"""

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from serve.lease import this_boot
from serve.manifest import File, WeightsError

logger = logging.getLogger(__name__)

PIECE_BYTES = 2**20
MARGIN_BYTES = 256 * 2**20
"""What must stay free on the disk of the cache: it is seldom ours alone, and a full disk stops its neighbours too."""

HASHERS = min(16, len(os.sched_getaffinity(0)))
"""Files hashed at once: one core each."""

Proof = tuple[str, ...]
"""sha256, and what the file system says of a file that nobody has touched since."""


class Copy:
    """The copy of ``files`` in ``folder``; ``keep_proofs`` takes earlier proofs of this boot for good."""

    def __init__(self, folder: Path, files: Sequence[File], *, keep_proofs: bool) -> None:
        self.folder, self.files = folder, files
        self._stored = folder.with_name(f"{folder.name}.proof")
        self._proofs: dict[str, Proof] = {}
        self._known = "" if keep_proofs else self._recall()[0]

    def recall(self) -> None:
        """Take over the proofs that are stored, unless they were stored before this start and do not count."""
        name, proofs = self._recall()
        if name != self._known:
            self._proofs.update(proofs)

    def unproven(self) -> list[File]:
        """Return the files of which nobody knows whether they are right, or there."""
        return [file for file in self.files if not self._is_proven(file)]

    def strangers(self) -> list[Path]:
        """Return what the manifest does not list: parts of killed fetchers, files that nobody vouches for, links."""
        listed = {self.folder / file.path for file in self.files}
        return [path for path in _entries(self.folder) if path.is_symlink() or path not in listed]

    def prove(self, file: File) -> None:
        """Note that ``file`` was hashed as it is now, and was right."""
        if proof := _proof(self.folder, file):
            self._proofs[file.path] = proof

    def hash_present(self, hashed: Callable[[int], None]) -> None:
        """Read and hash every unproven file that is there; remove those that are not what they should be."""
        pool = ThreadPoolExecutor(HASHERS, thread_name_prefix="hash")
        try:
            list(pool.map(lambda file: self._hash(file, hashed), self.unproven()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def check_room(self, missing: Sequence[File]) -> None:
        """Raise ``WeightsError`` when the disk has less room than ``missing`` and the margin need."""
        if not missing:
            return
        needed, free = sum(file.size for file in missing), shutil.disk_usage(self.folder).free
        if needed + MARGIN_BYTES > free:
            raise WeightsError(
                f"The cache {self.folder.parent} has {free:,} bytes free, and {needed:,} are still to be fetched,"
                f" with a margin of {MARGIN_BYTES:,}: free some, or point SLIPWAY_CACHE to a larger disk."
            )

    def store_proofs(self) -> None:
        """Write down what is proven: the last thing that happens to a copy."""
        content = {"id": uuid4().hex, "boot": this_boot(), "files": self._proofs}
        new = self._stored.with_name(f"{self._stored.name}.new")
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(self._stored)

    def _is_proven(self, file: File) -> bool:
        proof = _proof(self.folder, file)
        return proof is not None and self._proofs.get(file.path) == proof

    def _hash(self, file: File, hashed: Callable[[int], None]) -> None:
        path, before = self.folder / file.path, _proof(self.folder, file)
        if before is None:
            path.unlink(missing_ok=True)  # not of its size, if there
            return
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
                hashed(len(piece))
        if digest.hexdigest() == file.sha256:
            self._proofs[file.path] = before
        else:
            logger.warning("%s in the cache has the wrong sha256 %s: removed", path, digest.hexdigest())
            path.unlink(missing_ok=True)

    def _recall(self) -> tuple[str, dict[str, Proof]]:
        """Return the id of the stored proofs and the proofs, none where there are none of this boot."""
        try:
            content = json.loads(self._stored.read_text(encoding="utf-8"))
            if content["boot"] != this_boot():
                return "", {}
            return content["id"], {path: tuple(proof) for path, proof in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "", {}


def _proof(folder: Path, file: File) -> Proof | None:
    """Return what proves the file if its hash is right now, None if it is not there in its size."""
    try:
        found = (folder / file.path).lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
        return None
    return (file.sha256, str(found.st_mtime_ns), str(found.st_ctime_ns))


def _entries(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        yield from (Path(where, name) for name in names)
        yield from (path for name in folders if (path := Path(where, name)).is_symlink())
