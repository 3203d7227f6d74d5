"""``python -m tests.faults.small_disk``: mirrors into a folder on a disk of 64 MB, and tells what became of it.

It mounts that disk, and so has to run where it may: ``unshare --map-root-user --mount``.  Another program may write
to the same disk while the mirror is at work: after so many bytes of it all room is taken.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tasks._stores.store import open_store
from tasks._weights.hub import Hub
from tasks._weights.mirror import mirror
from tasks._weights.verify import verify
from tasks.errors import SlipwayError
from tasks.settings import StoreSettings
from tasks.spec import Limits

DISK_BYTES = 64 * 2**20


def main() -> None:
    """Mirror the first commit, then the second, and print JSON: what the second met, and what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("hub")
    parser.add_argument("model")
    parser.add_argument("small")
    parser.add_argument("large")
    parser.add_argument("--take-all-after", type=int, help="bytes of the second mirror")
    given = parser.parse_args()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(given.folder)], check=True, timeout=10
    )
    told: dict[str, object] = {"error": None, "message": ""}
    with Hub(given.hub) as hub, closing(open_store(StoreSettings(url=given.folder.as_uri()))) as store:
        mirror(hub, store, given.model, given.small, Limits())
        try:
            progress = taking_all(given.folder, given.take_all_after)
            mirror(hub, store, given.model, given.large, Limits(), progress=progress)
        except SlipwayError as error:
            told = {"error": type(error).__name__, "message": str(error)}
        (given.folder / "filler").unlink(missing_ok=True)
        told["small is whole"] = verify(store, given.model, given.small, deep=True).whole
        told["files"] = {
            str(path.relative_to(given.folder)): path.stat().st_size
            for path in given.folder.rglob("*")
            if path.is_file()
        }
        told["free"] = os.statvfs(given.folder).f_bavail * os.statvfs(given.folder).f_frsize
    sys.stdout.write(json.dumps(told))


def taking_all(folder: Path, after: int | None) -> Callable[[int, int], None]:
    """Return a listener to progress that fills the disk once ``after`` bytes have moved."""

    def listen(moved: int, _: int) -> None:
        if after is None or moved < after or (folder / "filler").exists():
            return
        with (folder / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(2**16)):
                    pass
            except OSError:
                return

    return listen


if __name__ == "__main__":
    main()
