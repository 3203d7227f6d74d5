"""Programs that end with the tests that started them, however those end.

Each has a session of its own, so that Ctrl-C reaches the tests alone, and the kernel kills it when the thread that
started it dies (``PR_SET_PDEATHSIG``): start programs from a thread that lives as long as they may.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_LAUNCH = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def start(command: Sequence[str | Path], log: Path) -> "subprocess.Popen[bytes]":
    """Start a program, named by its whole path, with its output appended to ``log``."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launcher, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a program at once and wait until it is gone."""
    process.kill()
    process.wait()
