"""A release run that is killed is finished by itself: real Prefect server and worker, and a real ``kill -9``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelling

from tasks.local import ports
from tasks.records import StepName
from tasks.runs import FINISH, RELEASE, read_run, start_run
from tests.fakes.s3 import seaweed
from tests.flows.stage import Stage, staged

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
GRACE_S = 30.0
"""Seconds that Prefect gives a cancelled run to end, before it is killed."""
SOON_S = 20
"""Seconds without a heartbeat until a run is taken for dead, where a test cannot wait for 90."""

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def orchestra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    """Start S3, Hub, cluster and a Prefect server, register the deployments."""
    tmp_path, port = tmp_path_factory.mktemp("orchestra"), ports.choose(taken=set())
    api = f"http://127.0.0.1:{port}/api"
    (tmp_path / "s3").mkdir()
    with seaweed(tmp_path / "s3") as s3, staged(tmp_path, s3, api) as (stage, variables):
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **variables,
            "PYTHONPATH": str(ROOT),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
        }
        shown = Orchestra(stage, api, environment, tmp_path)
        with shown.running(*shown.serve) as shown.server:
            until(lambda: answers(f"{api}/ready"))
            shown.do("prefect", "--no-prompt", "work-pool", "create", "slipway", "--type", "process")
            shown.do("prefect", "--no-prompt", "deploy", "--all")
            shown.do("tasks.automations")
            shown.do("tasks.automations")
            yield shown


def answers(url: str) -> bool:
    """Return whether something answers there."""
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_a_killed_run_is_finished_by_the_flow_that_its_crash_starts(orchestra: Orchestra) -> None:
    """Its worker says that it crashed, the trigger starts ``finish``, and the release is live."""
    stage = orchestra.stage
    stage.publish(1)
    stage.cluster.start_s = 5.0
    with orchestra.working() as worker:
        run = start_run(orchestra.api, RELEASE, {"service": "chat"})
        until(lambda: (current := stage.record().current) and current.step(StepName.READY))
        process_of(worker, run).send_signal(signal.SIGKILL)

        ended = until(lambda: stage.record().past)[-1]

    assert "promoted" == ended.outcome
    assert str(run) == ended.request
    assert str(run) != ended.run
    assert 1 == stage.cluster.replicas


def process_of(worker: subprocess.Popen[bytes], run: UUID) -> psutil.Process:
    """Return the process in which a worker has a flow run."""
    family = psutil.Process(worker.pid).children(recursive=True)
    return next(one for one in family if is_run(one, str(run)))


def is_run(process: psutil.Process, run: str) -> bool:
    """Return whether a process carries that flow run."""
    try:
        return run in json.dumps(process.environ())
    except psutil.Error:
        return False


def test_a_run_that_dies_with_its_worker_is_finished(orchestra: Orchestra) -> None:
    """Nobody is left to say so: the automation misses its heartbeats, calls it crashed, and ``finish`` is started.

    Prefect's heartbeats are 30 s apart at least, so that 90 s are waited for in earnest; here the first is the last.
    """
    stage, before = orchestra.stage, len(orchestra.stage.record().past)
    stage.publish(3)
    stage.cluster.start_s = 0.0
    soon = orchestra.folder / "automations.yaml"
    soon.write_text((ROOT / "automations.yaml").read_text().replace("within: 90", f"within: {SOON_S}"))
    orchestra.do("tasks.automations", str(soon))
    with orchestra.working() as worker:
        run = start_run(orchestra.api, RELEASE, {"service": "chat"})
        until(lambda: stage.record().current)
        flow = process_of(worker, run)
        worker.kill()
        flow.kill()
    assert "Running" == read_run(orchestra.api, run).name
    with orchestra.working():
        state = until(lambda: (now := read_run(orchestra.api, run)).final and now)
        orchestra.do("tasks.automations")  # those who live have a heartbeat every 30 s
        ended = until(lambda: stage.record().past[before:])[-1]

    assert ("Crashed", "No heartbeat for 90 s; its process is dead.") == (state.name, state.message)
    assert ("promoted", str(run)) == (ended.outcome, ended.request)
    assert str(run) != ended.run


def test_a_run_that_is_cancelled_lets_go_at_once(orchestra: Orchestra) -> None:
    """What was live is untouched, the lease is free, nothing goes on by itself, and ``finish`` carries it on."""
    stage, before = orchestra.stage, orchestra.stage.record()
    stage.publish(4)
    stage.cluster.start_s = 1000.0
    with orchestra.working() as worker:
        run = start_run(orchestra.api, RELEASE, {"service": "chat"})
        until(lambda: (current := stage.record().current) and current.step(StepName.READY))
        flow = process_of(worker, run)
        with SyncPrefectClient(api=orchestra.api) as client:
            client.set_flow_run_state(run, Cancelling())
        flow.wait(GRACE_S)
        state = until(lambda: (now := read_run(orchestra.api, run)).final and now)
        left, lease = stage.record(), stage.lease()
        stage.cluster.start_s = 0.0
        start_run(orchestra.api, FINISH, {"service": "chat"})
        ended = until(lambda: stage.record().past[len(before.past) :])[-1]

    assert "Cancelled" == state.name
    assert not lease.held
    assert left.current
    assert (before.live, before.past, str(run)) == (left.live, left.past, left.current.run)
    assert ("promoted", str(run)) == (ended.outcome, ended.request)


def test_the_automations_are_there_once(orchestra: Orchestra) -> None:
    """Registering twice makes no second one."""
    with SyncPrefectClient(api=orchestra.api) as client:
        names = [automation.name for automation in client.read_automations()]

    assert 1 == names.count("slipway-dead-runs-are-crashed")
    assert [name for name in names if "finish-after-a-crash" in name]


def test_a_prefect_server_that_is_away_changes_nothing(orchestra: Orchestra) -> None:
    """The release goes on while nobody answers there, and its run is told as good when somebody does again."""
    stage = orchestra.stage
    stage.publish(2)
    stage.cluster.start_s = 2.0
    before = len(stage.record().past)
    assert orchestra.server
    with orchestra.working():
        run = start_run(orchestra.api, RELEASE, {"service": "chat"})
        until(lambda: (current := stage.record().current) and current.step(StepName.READY))
        end(orchestra.server)
        until(lambda: (current := stage.record().current) and current.step(StepName.QUALITY))
        with orchestra.running(*orchestra.serve):
            ended = until(lambda: stage.record().past[before:])[-1]
            state = until(lambda: (now := read_run(orchestra.api, run)).final and now)

    assert "promoted" == ended.outcome
    assert state.good, state.message
