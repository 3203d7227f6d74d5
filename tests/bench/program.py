"""What every benchmark's program does alike: say what happens, be alone in its folder, end when interrupted."""

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def say(text: str) -> None:
    """Tell a person what happens meanwhile; standard output holds the report alone."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def alone(home: Path, lock: Path) -> Iterator[None]:
    """Hold ``lock`` while the block runs; ends the program when another benchmark is at work in ``home``."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Another benchmark is at work in {home}.") from None
        yield


def run(main: Callable[[], None], what: str) -> None:
    """Run a program; interrupted, it says that ``what`` of this run is gone, and ends with code 130."""
    try:
        main()
    except KeyboardInterrupt:
        say(f"interrupted; {what} of this run are gone")
        sys.exit(130)
