"""The full stage: the embedded stack with real Prefect, Ray Serve and vLLM, and the sample model's commits.

Everything goes as a person would have it: commits are published on the Hub server, and runs are started from the
deployments.  The stack is this benchmark's own: a folder that holds another one is left alone.
"""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil

from tasks._release.journal import Journal
from tasks._release.news import step_line
from tasks._spec_file import load_spec
from tasks._stores.store import Store, open_store
from tasks.following import Follower
from tasks.local import stack as local
from tasks.local.hub.publishing import publish
from tasks.local.processes import read_record
from tasks.local.state import read_state
from tasks.records import ServiceRecord
from tasks.runs import RELEASE, RESTORE, ROLL_BACK, read_run, start_run
from tasks.settings import RaySettings, Settings
from tests.bench.driver import Load
from tests.bench.engines import PAYLOAD, ROOT
from tests.bench.measuring import Failed
from tests.bench.outcomes import Carried
from tests.bench.rig import RUN_S, SERVICE, Say, sampled

LOAD = Load(1.0, 16, 2, 48, 1.0, looks=5)
LONG = (24, 900)
"""As many as share two cores so that one of them takes minutes, each nearly as long as the model's context."""
AT_ONCE = 4
MANY_S = 2400.0
"""The longest that a hundred runs may take; the server starts eight of one deployment at a time."""
WIPED_S = 300.0
CONVERSION_S = 900.0
APPLICATIONS = "/api/serve/applications/"
MARK = "release-bench"


@dataclass
class Full:
    """The embedded stack with the sample model; each run is a flow run that a worker starts."""

    stack: local.Stack
    settings: Settings
    store: Store
    pool: ThreadPoolExecutor
    models: Path
    say: Say
    what: str = "the embedded stack: Prefect, SeaweedFS, the Hub server, Ray Serve with vLLM, SmolLM2-135M-Instruct"
    load: Load = LOAD
    long: tuple[int, int] = LONG
    _files: Iterator[str] = field(default_factory=lambda: cycle(("good", "tuned")))
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """Return the live address."""
        return f"{self.stack.serve}/{SERVICE}"

    def record(self) -> ServiceRecord:
        """Return the record as it is stored."""
        return Journal(self.store, SERVICE).record

    def release(self, *, bad: bool = False) -> Future[Carried]:
        """Begin the release of the next commit, the damaged one if it is ``bad``."""
        self._publish("damaged" if bad else next(self._files))
        return self._begin(RELEASE)

    def roll_back(self) -> Future[Carried] | None:
        """Start the flow that leads back, or undoes what is on its way."""
        return self._begin(ROLL_BACK)

    def ask_at_once(self, requests: int) -> list[str]:
        """Start so many runs of the deployment, and wait for the end of each."""
        self._publish(next(self._files))
        start = partial(start_run, self.settings.prefect_api, RELEASE)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = list(pool.map(lambda _: start({"service": SERVICE}), range(requests)))
        return self._heard(runs)

    def wipe(self) -> str:
        """Delete all applications by one PUT, wait until they are gone, and empty the node's cache."""
        where = urlsplit(self.stack.serve)
        proxy = {"proxy_location": "HeadOnly", "http_options": {"host": where.hostname, "port": where.port}}
        with _dashboard(self.settings.ray) as client:
            client.put(APPLICATIONS, json={**proxy, "applications": []}).raise_for_status()
            deadline = time.monotonic() + WIPED_S
            while client.get(APPLICATIONS).raise_for_status().json()["applications"]:
                if time.monotonic() > deadline:
                    raise Failed(f"applications are left {WIPED_S:.0f} s after they were deleted")
                time.sleep(0.2)
        for left in (self.stack.home / "cache").glob("*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.rmtree(self.stack.home / "receipts", ignore_errors=True)
        return "all applications, the node's cache of weights, and the folder of the runs"

    def restore(self) -> Future[Carried]:
        """Start the flow that restores the service."""
        return self._begin(RESTORE)

    def close(self) -> None:
        """Let go of the runs that are followed still."""
        self._over.set()

    def _publish(self, files: str) -> None:
        model = load_spec(self.settings.services, SERVICE).model
        publish(self.stack.home / "hub", model, self.models / files, message=files)

    def _begin(self, deployment: str) -> Future[Carried]:
        return self.pool.submit(self._run, deployment)

    def _run(self, deployment: str) -> Carried:
        asked = time.time()
        with sampled(self._flow_runs) as peak, closing(Follower(self.settings, SERVICE)) as follower:
            run = start_run(self.settings.prefect_api, deployment, {"service": SERVICE})
            pause = partial(self._pause, time.monotonic() + RUN_S)
            end = follower.follow(run, lambda of, step: self.say(f"  {step_line(of, step)}"), pause=pause)
        if end.release is None:
            raise Failed(f"{deployment} ended no release: {end.message}")
        return Carried(end.release, asked, time.time(), peak.all, peak.own)

    def _pause(self, deadline: float, seconds: float) -> None:
        if self._over.wait(seconds) or time.monotonic() > deadline:
            raise Failed("a run was not over in time")

    def _heard(self, runs: Sequence[UUID]) -> list[str]:
        """Return the release that each good run's last message names, once all have ended."""
        heard, left, deadline = [], list(runs), time.monotonic() + MANY_S
        while left:
            if time.monotonic() > deadline:
                raise Failed(f"{len(left)} of {len(runs)} runs are not over after {MANY_S:.0f} s")
            states = {run: read_run(self.settings.prefect_api, run) for run in left}
            heard += [state.message.split()[0] for state in states.values() if state.final and state.good]
            left = [run for run, state in states.items() if not state.final]
            time.sleep(5.0)
        return self._named(heard)

    def _named(self, heard: Sequence[str]) -> list[str]:
        """Return names of releases: a run that found its commit live already says the commit."""
        live = self.record().live
        return [live.name if live and name == live.commit[:12] else name for name in heard]

    def _flow_runs(self) -> list[int]:
        """Return the processes that the worker started."""
        record = read_record(self.stack.home / "run", "worker")
        with suppress(psutil.NoSuchProcess):
            return [one.pid for one in psutil.Process(record.pid).children(recursive=True)] if record else []
        return []


@contextmanager
def opened(home: Path, say: Say) -> Iterator[Full]:
    """Give the embedded stack under ``home``, empty but for the sample model; it is down again afterwards."""
    if read_state(home) is not None and not (home / MARK).exists():
        raise SystemExit(f"{home} holds a stack that is not this benchmark's; name another folder with --home.")
    models = home / "models"
    command = [str(PAYLOAD), "-m", "serve.sample_model", str(models)]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=CONVERSION_S, check=True)
    try:
        local.down(home, wipe=True)
        (home / MARK).touch()
        stack = local.up(home, progress=say)
        settings = Settings(**stack.settings())
        with closing(open_store(settings.store)) as store, ThreadPoolExecutor(AT_ONCE) as pool:
            rig = Full(stack, settings, store, pool, models, say)
            try:
                yield rig
            finally:
                rig.close()
    finally:
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.SIG_IGN)  # a second one must not leave the stack behind
        say("Stopping the stack.")
        local.down(home)


def _dashboard(ray: RaySettings) -> httpx.Client:
    token = ray.token.get_secret_value() if ray.token else ""
    bearer = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=ray.dashboard, headers=bearer, timeout=30, trust_env=False)
