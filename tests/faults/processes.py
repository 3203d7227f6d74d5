"""The real ``slipway mirror`` in processes of their own, to be killed, stopped and run side by side."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.hubs import MODEL, TOKEN
from tests.faults.road import Road

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0

Process = subprocess.Popen[str]


@contextmanager
def slipway(road: Road, *arguments: str) -> Iterator[Process]:
    """Run the command line until the block is left; its token and keys are in its environment alone."""
    home = road.folder.parent / "home"
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        cwd=ROOT,
        env=environment(road, home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        road.told += process.communicate()
        written = [path for path in home.rglob("*") if path.is_file()]
        assert not written, "a mirror writes to the store alone"


@contextmanager
def mirroring(road: Road, *options: str) -> Iterator[Process]:
    """Run ``slipway mirror`` of what the main branch means."""
    with slipway(road, "mirror", f"{MODEL}@main", "--json", *options) as process:
        yield process


def environment(road: Road, home: Path) -> dict[str, str]:
    """Return the environment of a process that mirrors along the road, with ``home`` for all that it may write."""
    settings = road.settings
    assert settings.access_key
    assert settings.secret_key
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SLIPWAY_HOME": str(home / "state"),
        "SLIPWAY_HUB__ENDPOINT": road.hub.endpoint,
        "SLIPWAY_HUB__TOKEN": TOKEN,
        "SLIPWAY_STORE__URL": settings.url,
        "SLIPWAY_STORE__ENDPOINT": settings.endpoint or "",
        "SLIPWAY_STORE__ACCESS_KEY": settings.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": settings.secret_key.get_secret_value(),
    }


def await_while(process: Process, come: Callable[[], object]) -> None:
    """Wait until something has come, while the process lives."""
    deadline = time.monotonic() + DEADLINE_S
    while not come():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process: Process) -> None:
    """Kill the process as the kernel does when memory is short: it can do nothing more."""
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(DEADLINE_S) == -signal.SIGKILL


def arguments_of(process: Process) -> str:
    """Return what other users of the machine can read of the process."""
    return Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
