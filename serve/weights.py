"""The files of one commit, from the store to a local folder that the engine may trust.

``fetch`` returns only when every file that the manifest lists is there with the declared size and sha256, and nothing
else is: disks, networks and killed downloads lie.  The folder is named after the commit, so it never means anything
else.  Beside it lie the lease of whoever is at work on it and the proofs of what was hashed.

    python -m serve.weights URL CACHE

does the same as a process of its own, for an init container.  Progress goes to stderr; the result to stdout, as one
JSON object with ``folder``, ``bytes``, ``fetched``, ``hashed`` (of what was there before), ``verified`` and
``seconds``, or with ``error``.  The exit status is 0, 1 for what a sentence on stderr says, 2 for arguments that make
no sense, and 128 and its number after a signal, which leaves no file half done under its name.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import NoReturn

from serve.copies import Copy
from serve.download import DOWNLOADS, LeaseLost, download
from serve.lease import leased
from serve.manifest import MANIFEST, File, WeightsError, read_manifest
from serve.sources import Source, open_source

logger = logging.getLogger("serve.weights")  # also when run as a program

POLL_S = 0.2
TELL_S = 5.0
"""Seconds between two lines of progress."""

HASHINGS = {"every-start": False, "once-a-boot": True}
"""What ``SLIPWAY_CACHE_HASH`` may be, and whether earlier proofs then count; see ``serve.copies``."""


@dataclass
class Progress:
    """Bytes of a commit so far: ``fetched`` of those that were missing, ``hashed`` of those there before."""

    total: int = 0
    fetched: int = 0
    hashed: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, *, fetched: int = 0, hashed: int = 0) -> None:
        """Count; for any thread."""
        with self._lock:
            self.fetched += fetched
            self.hashed += hashed


def fetch(url: str, cache: Path, progress: Progress | None = None) -> Path:
    """Make the commit at ``url`` (``s3://bucket/prefix`` or ``file:///folder``) local and return its folder.

    Raises ``WeightsError`` when the store or its manifest cannot be read, a file differs from its declaration
    after the download, or the disk has less room than the missing files need.
    """
    commit = commit_of(url)
    with closing(open_source(url, DOWNLOADS)) as source:
        return make_local(source, list_files(source, url), cache / commit, progress or Progress())


def commit_of(url: str) -> str:
    """Return the commit that a folder of the store is named after."""
    return url.rstrip("/").rpartition("/")[2]


def list_files(source: Source, url: str) -> list[File]:
    """Return the files of the commit at ``url``, from its manifest; raises ``WeightsError``."""
    try:
        data = source.get(MANIFEST)
    except FileNotFoundError as error:
        raise WeightsError(f"The store has no manifest at {url}: the commit was never mirrored whole.") from error
    except OSError as error:
        raise WeightsError(f"The manifest at {url} cannot be read: {error}.") from error
    return read_manifest(data, commit_of(url))


def make_local(source: Source, files: Sequence[File], folder: Path, progress: Progress) -> Path:
    """Make ``folder`` hold ``files``, proven, and nothing else; returns it and raises as ``fetch`` does."""
    progress.total = sum(file.size for file in files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = Copy(folder, files, keep_proofs=_keeps_proofs())
        copy.recall()
        waiting = False
        while copy.unproven() or copy.strangers():
            if _complete(copy, source, progress):
                break
            if not waiting:
                logger.info("Another process fetches %s: waiting for it.", folder.name)
            waiting = True
            time.sleep(POLL_S)
            copy.recall()
    except OSError as error:
        raise WeightsError(f"The cache {folder.parent} cannot be used: {error}.") from error
    return folder


def _complete(copy: Copy, source: Source, progress: Progress) -> bool:
    """Bring the copy into order unless another process is at it; says whether this one was."""
    with leased(copy.folder.with_name(f"{copy.folder.name}.lease")) as lost:
        if lost is None:
            return False
        for path in copy.strangers():
            path.unlink()
        copy.hash_present(lambda count: progress.add(hashed=count))
        missing = copy.unproven()
        copy.check_room(missing)
        logger.info("%s: %d of %d files to fetch", copy.folder.name, len(missing), len(copy.files))
        try:
            download(
                source,
                copy.folder,
                missing,
                lost=lost,
                fetched=lambda count: progress.add(fetched=count),
                whole=copy.prove,
            )
        except LeaseLost:
            return False
        copy.store_proofs()
        return True


def _keeps_proofs() -> bool:
    chosen = os.environ.get("SLIPWAY_CACHE_HASH") or "every-start"
    if chosen not in HASHINGS:
        raise WeightsError(f"SLIPWAY_CACHE_HASH is {' or '.join(HASHINGS)}, not {chosen!r}.")
    return HASHINGS[chosen]


class _Ended(BaseException):
    """A signal came; its number is the argument."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says; see the module."""
    parser = argparse.ArgumentParser(prog="python -m serve.weights", description="Fetch a commit's files, verified.")
    parser.add_argument("url", help="s3://bucket/prefix/<commit> or file:///folder/<commit>")
    parser.add_argument("cache", type=Path, help="folder for commits; this one's is made in it")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("serve").setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    if given.with_parent:
        Thread(target=_follow_parent, name="parent", daemon=True).start()
    status = _run(given.url, given.cache)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads that still wait for a store that fell silent are not worth waiting for


def _run(url: str, cache: Path) -> int:
    progress, begun, ended = Progress(), time.monotonic(), Event()
    teller = Thread(target=_tell, args=[progress, ended], name="progress", daemon=True)
    teller.start()
    try:
        folder = fetch(url, cache, progress)
    except WeightsError as error:
        _fail(str(error))
        return 1
    except _Ended as ended_by:
        number = signal.Signals(ended_by.args[0])
        _fail(f"The fetch of the weights was ended by {number.name}; what is whole stays.")
        return 128 + number
    finally:
        ended.set()
    _print(
        {
            "folder": str(folder),
            "bytes": progress.total,
            "fetched": progress.fetched,
            "hashed": progress.hashed,
            "verified": True,
            "seconds": round(time.monotonic() - begun, 3),
        }
    )
    return 0


def _fail(sentence: str) -> None:
    logger.error(sentence)
    _print({"error": sentence})


def _print(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")


def _tell(progress: Progress, ended: Event) -> None:
    """Say how far it is, every few seconds."""
    done = 0
    while not ended.wait(TELL_S):
        before, done = done, progress.fetched + progress.hashed
        logger.info(
            "%.1f GB fetched and %.1f GB hashed of %.1f GB, %.0f MB/s",
            progress.fetched / 1e9,
            progress.hashed / 1e9,
            progress.total / 1e9,
            (done - before) / TELL_S / 1e6,
        )


def _follow_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, _: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise _Ended(number)


if __name__ == "__main__":
    main()
