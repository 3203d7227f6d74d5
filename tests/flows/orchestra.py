"""A stage with a Prefect server of its own, and workers and commands beside it as real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from tasks.local import ports
from tests.fakes.s3 import seaweed
from tests.flows.stage import Stage, staged

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0


@dataclass
class Orchestra:
    """A stage with a Prefect server of its own; ``environment`` is that of its processes."""

    stage: Stage
    api: str
    environment: dict[str, str]
    folder: Path
    server: subprocess.Popen[bytes] | None = None

    @property
    def serve(self) -> tuple[str, ...]:
        """Return the command of its Prefect server."""
        return ("server", "start", "--host", "127.0.0.1", "--port", str(urlsplit(self.api).port))

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command of Prefect's until the block is left and all that it started."""
        log = self.folder / f"{command[0]}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "--no-prompt", *command],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                end(process)

    def working(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker until the block is left."""
        return self.running("worker", "start", "--pool", "slipway", "--type", "process")

    def do(self, *command: str) -> None:
        """Run a Python module to its end."""
        subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=self.environment, check=True, capture_output=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything that it started."""
    try:
        family = list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        family = []
    for member in (*family, process):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(30)
    psutil.wait_procs(family, 30)


def until(come: Callable[[], Any]) -> Any:
    """Return what has come, waiting for it."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := come()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def answers(url: str) -> bool:
    """Return whether something answers there."""
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def orchestrated(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Orchestra]:
    """Start S3, Hub, cluster and a Prefect server, and bootstrap it; all processes see ``variables`` too."""
    port = ports.choose(taken=set())
    api = f"http://127.0.0.1:{port}/api"
    (folder / "s3").mkdir()
    with seaweed(folder / "s3") as s3, staged(folder, s3, api) as (stage, usual):
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **usual,
            "PYTHONPATH": str(ROOT),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
            **(variables or {}),
        }
        shown = Orchestra(stage, api, environment, folder)
        with shown.running(*shown.serve) as shown.server:
            until(lambda: answers(f"{api}/ready"))
            shown.do("tasks.deploying")
            yield shown
