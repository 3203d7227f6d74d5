"""A release run that is killed is finished by itself: real Prefect server and worker, and a real ``kill -9``."""

import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Cancelling

from tasks.records import StepName
from tasks.runs import FINISH, RELEASE, read_run, start_run
from tests.flows.orchestra import Orchestra, end, orchestrated, until

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0
GRACE_S = 30.0
"""Seconds that Prefect gives a cancelled run to end, before it is killed."""
FIELDS = ("name", "description", "enabled", "tags", "actions")
SOON_S = 20
"""Seconds without a heartbeat until a run is taken for dead, where a test cannot wait for 90."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def orchestra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    """Run the services and a Prefect server."""
    with orchestrated(tmp_path_factory.mktemp("orchestra")) as one:
        yield one


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
    taken_for_dead_after(orchestra, SOON_S)
    with orchestra.working() as worker:
        run = start_run(orchestra.api, RELEASE, {"service": "chat"})
        until(lambda: stage.record().current)
        flow = process_of(worker, run)
        worker.kill()
        flow.kill()
    assert "Running" == read_run(orchestra.api, run).name
    with orchestra.working():
        state = until(lambda: (now := read_run(orchestra.api, run)).final and now)
        taken_for_dead_after(orchestra, 90)  # those who live have a heartbeat every 30 s
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


def taken_for_dead_after(orchestra: Orchestra, seconds: int) -> None:
    """Have the automation wait that long for a heartbeat."""
    with SyncPrefectClient(api=orchestra.api) as client:
        automation, *_ = client.read_automations_by_name("slipway-dead-runs-are-crashed")
        trigger = automation.trigger.model_copy(update={"within": timedelta(seconds=seconds)})
        kept = {name: value for name, value in dict(automation).items() if name in FIELDS}
        client.update_automation(automation.id, AutomationCore(**{**kept, "trigger": trigger}))


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
