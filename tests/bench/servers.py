"""The servers that everything is measured against, each a process of its own, ended with its block."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import SecretStr

from tasks.settings import StoreSettings
from tests.fakes.s3 import seaweed

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 30.0
SETTLE_S, SETTLE_DEADLINE_S = 0.1, 5.0
SEAWEED, SINK = "SeaweedFS", "null sink"


@dataclass(frozen=True)
class Counted:
    """Requests and bytes of bodies by path or operation."""

    requests: Counter[str]
    bytes: Counter[str]

    def since(self, before: "Counted") -> "Counted":
        """Return what came after ``before``."""
        return Counted(self.requests - before.requests, self.bytes - before.bytes)


@dataclass(frozen=True)
class Server:
    """A server of the benchmark's own, with counters at ``stats``."""

    endpoint: str
    stats: str
    pid: int

    def counted(self) -> Counted:
        """Return what it has counted so far."""
        with urllib.request.urlopen(self.stats, timeout=START_DEADLINE_S) as answer:  # noqa: S310 - http, on loopback
            counts = json.load(answer)
        return Counted(Counter(counts["requests"]), Counter(counts["bytes"]))

    def settled(self) -> Counted:
        """Return the counters once they stand still: what serves a killed client notices a little later."""
        deadline, counted = time.monotonic() + SETTLE_DEADLINE_S, self.counted()
        while time.monotonic() < deadline:
            time.sleep(SETTLE_S)
            before, counted = counted, self.counted()
            if before == counted:
                break
        return counted

    def cpu_s(self) -> float:
        """Return the processor time it has used, in seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system


@dataclass(frozen=True)
class Target:
    """A store that is empty when a run begins; ``server`` where it counts requests."""

    kind: str
    settings: StoreSettings
    server: Server | None = None


@contextmanager
def hub_server(root: Path) -> Iterator[Server]:
    """Serve the repositories under ``root``."""
    with _running("tests.bench.hub", "--root", str(root)) as server:
        yield server


@contextmanager
def target(kind: str, folder: Path) -> Iterator[Target]:
    """Run an empty store of ``kind``; what it keeps lies in ``folder``, which is removed with it."""
    if kind == SINK:
        with _running("tests.bench.sink") as server:
            keys = {"access_key": SecretStr("sink"), "secret_key": SecretStr("sink")}
            yield Target(kind, StoreSettings(url="s3://weights", endpoint=server.endpoint, **keys), server)
        return
    folder.mkdir(parents=True)
    try:
        with seaweed(folder) as settings:
            yield Target(kind, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(module: str, *arguments: str) -> Iterator[Server]:
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert said, f"{module} did not start"
        yield Server(**json.loads(said), pid=process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
