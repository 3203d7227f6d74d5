"""The small stage: fake Ray Serve and engines, a real S3 server and Hub, and runs without Prefect.

It is the service of the tests of faults, with the real checks and the real probe, and with its real waits.  Each run
is a fresh process, so that its start counts, and its memory is its own.
"""

import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from tasks._release import transitions
from tasks._release.journal import Journal
from tasks._stores.store import Store, open_store
from tasks.records import Kind, Progress, Request, ServiceRecord
from tests.bench.driver import Load
from tests.bench.engines import ROOT
from tests.bench.measuring import Failed
from tests.bench.outcomes import Carried
from tests.bench.rig import RUN_S, SERVICE, Peak, Say, sampled
from tests.fakes.hubs import running_hub
from tests.fakes.s3 import seaweed
from tests.faults.releases.carrier import Orders
from tests.faults.releases.clusters import ray_cluster
from tests.faults.releases.stage import BAD, GOOD, Stage, asking, write_prompts

LOAD = Load(20, 32, 4, 100, 0.0, looks=20, timeout_s=30)
LONG = (2, 13_000)
"""Tokens that take ten milliseconds each."""
PROCESSES = 4
"""Processes that share many requests at once, each with as many engines as it has requests."""
FEW = {"requests": 4, "concurrency": 1, "tokens": 8}
CARRY = "import pickle, sys; from tests.faults.releases.carrier import main; main(pickle.load(sys.stdin.buffer))"


@dataclass
class Small:
    """The service of the tests of faults, with the real checks and the real probe; each run is a fresh process."""

    stage: Stage
    store: Store
    pool: ThreadPoolExecutor
    what: str = "fake Ray Serve and engines, real S3 server (SeaweedFS), real Hub server, no Prefect"
    load: Load = LOAD
    long: tuple[int, int] = LONG
    _bad: set[str] = field(default_factory=set)
    _number: Iterator[int] = field(default_factory=count)
    _running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Return the live address."""
        return self.stage.address

    def record(self) -> ServiceRecord:
        """Return the record as it is stored."""
        return Journal(self.store, SERVICE).record

    def release(self, *, bad: bool = False) -> Future[Carried]:
        """Begin the release of a new commit, whose engine talks nonsense if it is ``bad``."""
        self.stage.answer(lambda release: BAD if release in self._bad else GOOD)
        if bad:
            self._bad.add(f"{SERVICE}-r{self.record().next_number}")
        return self._begin(self._wanted())

    def roll_back(self) -> Future[Carried] | None:
        """Lead back by a run of its own, or have the run on its way undo its release."""
        record = self.record()
        if record.current is not None:
            Journal(self.store, SERVICE).change(lambda now: transitions.abandoned(now, "rolled back at once"))
            return None
        assert record.previous
        return self._begin(asking(record.previous, Kind.ROLL_BACK))

    def ask_at_once(self, requests: int) -> list[str]:
        """Have a few processes ask with many engines each."""
        release = self._wanted().release
        runs = [self._begin_all(asking(release), requests // PROCESSES) for _ in range(PROCESSES)]
        return [one.release.name for run in runs for one in run.result(RUN_S)]

    def wipe(self) -> str:
        """Take all applications away at once, refuse every request to the Hub, and remove the folder of runs."""
        for release in self.stage.cluster.names():
            self.stage.cluster.lose(release)
        self.stage.hub.faults.refusals[""] = (503, {})
        shutil.rmtree(self.stage.folder / "home", ignore_errors=True)
        return "all applications, the Hub, and the folder of the runs"

    def restore(self) -> Future[Carried]:
        """Begin to restore the release that the record names."""
        live = self.record().live
        assert live
        return self._begin(asking(live, Kind.RESTORE))

    def close(self) -> None:
        """End the runs that are left."""
        for process in self._running:
            process.kill()
            process.wait()

    def _wanted(self) -> Request:
        checks = {"smoke": {"concurrent": 2}, "performance": FEW}
        return self.stage.wanted(
            bake={"seconds": 4, "interval": 0.5},
            probe={"rate": 5, "streams": 2},
            checks=checks,
            deadlines={"ready": 30, "request": 20},
        )

    def _begin(self, request: Request) -> Future[Carried]:
        return self.pool.submit(self._carry, request)

    def _begin_all(self, request: Request, asks: int) -> Future[list[Progress]]:
        return self.pool.submit(lambda: self._run(request, asks)[0])

    def _carry(self, request: Request) -> Carried:
        asked = time.time()
        ended, peak = self._run(request, 1)
        return Carried(ended[0], asked, time.time(), peak.all, peak.own)

    def _run(self, request: Request, asks: int) -> tuple[list[Progress], Peak]:
        """Have a fresh process carry the request, for each of its ``asks``; raises ``Failed`` with its log's end."""
        place = self.stage.folder / f"run-{next(self._number)}"
        seen = self.stage.environment()
        out, log = place.with_suffix(".out"), place.with_suffix(".log")
        orders = Orders(seen, request, out, log, asks=asks, haste=1.0, apart=True)
        process = subprocess.Popen([sys.executable, "-c", CARRY], cwd=ROOT, env=seen, stdin=subprocess.PIPE)
        self._running.append(process)
        with sampled(lambda: [process.pid]) as peak:
            try:
                process.communicate(pickle.dumps(orders), RUN_S)
            except subprocess.TimeoutExpired:
                process.kill()
        if process.wait():
            raise Failed(f"a run ended with {process.returncode}: {_tail(log)}")
        return [Progress.from_json(line) for line in out.read_text().split("\n") if line], peak


@contextmanager
def opened(home: Path, _say: Say) -> Iterator[Small]:
    """Give a small rig without releases; its servers run in this process, but for S3."""
    folder = Path(mkdtemp(prefix="release-", dir=home))
    try:
        for name in ("s3", "service"):
            (folder / name).mkdir()
        write_prompts(folder / "service")
        with (
            seaweed(folder / "s3") as settings,
            running_hub(folder / "hub") as hub,
            ray_cluster() as cluster,
            closing(open_store(settings)) as store,
            ThreadPoolExecutor(PROCESSES + 1) as pool,
        ):
            rig = Small(Stage(settings, hub, cluster, folder / "service"), store, pool)
            try:
                yield rig
            finally:
                rig.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "it said nothing"
