"""The verbs that start a run and watch it, on a real Prefect server, with a worker that only writes what is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed, Running

from tasks.records import (
    Approval,
    Failure,
    Kind,
    Outcome,
    Progress,
    Request,
    ServiceRecord,
    Step,
    StepName,
    StepState,
)
from tests.flows.command_line import NOW, Line, asking, ended, line, release

__all__ = ["line"]

pytestmark = [
    pytest.mark.slow,
    # Prefect's own test server is left to close its sockets when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
SHIFTED = Step(name=StepName.SHIFT, state=StepState.DONE, started_at=NOW, ended_at=NOW, detail="[all] of it")


class Worker:
    """Takes up the run of one deployment and plays what it did, to whoever watches."""

    def __init__(self, api: str, deployment: str) -> None:
        self._client = SyncPrefectClient(api=api)
        flow = self._client.create_flow_from_name(deployment)
        self._deployment = self._client.create_deployment(flow, deployment, enforce_parameter_schema=False)
        self._known = {run.id for run in self._runs()}
        self.parameters: dict[str, Any] = {}

    def play(self, story: Callable[[str], State[Any]]) -> None:
        """Wait for the next run, begin it, and end it in the state that ``story`` returns."""
        run = self.taken_up()
        self._client.set_flow_run_state(run, story(str(run)))

    def taken_up(self) -> UUID:
        """Return the next run, which has begun."""
        deadline = time.monotonic() + DEADLINE_S
        while not (new := [run for run in self._runs() if run.id not in self._known]):
            assert time.monotonic() < deadline, "no run was asked for"
            time.sleep(0.1)
        self.parameters = new[0].parameters
        self._client.set_flow_run_state(new[0].id, Running())
        return new[0].id

    def _runs(self) -> list[Any]:
        return [run for run in self._client.read_flow_runs(limit=200) if run.deployment_id == self._deployment]

    def close(self) -> None:
        """Forget the deployment."""
        self._client.delete_deployment(self._deployment)
        self._client._client.close()


@pytest.fixture
def prefect_line(line: Line, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Line:
    """Return a terminal whose Prefect server is a real one."""
    monkeypatch.setenv("SLIPWAY_PREFECT_API", prefect_api)
    return line


@contextmanager
def playing(api: str, name: str, story: Callable[[str], State[Any]]) -> Iterator[Worker]:
    """Have a worker play ``story`` of the next run of the deployment beside the block, and see that it did."""
    worker = Worker(api, name)
    try:
        with ThreadPoolExecutor(1) as pool:
            played = pool.submit(worker.play, story)
            yield worker
            played.result(DEADLINE_S)
    finally:
        worker.close()


def at_work(number: int, run: str, **fields: Any) -> Progress:
    """Return a release that the run asked for and carries."""
    return Progress(release=release(number), run=run, request=run, opened_at=NOW).model_copy(update=fields)


def seen(line: Line, text: str) -> None:
    """Wait until the person has read ``text``."""
    deadline = time.monotonic() + DEADLINE_S
    while text not in line.err:
        assert time.monotonic() < deadline, f"{text!r} is not in {line.err!r}"
        time.sleep(0.05)
        line.err += line.read()[1]


def test_a_promotion_is_watched_to_its_end(prefect_line: Line, prefect_api: str) -> None:
    """Each step is told as it ends, and the flow gets what was typed."""
    prefect_line.write(ServiceRecord(service="chat", next_number=2, live=release(1), past=(ended(1),)))

    def story(run: str) -> State[Any]:
        done = at_work(1, run, kind=Kind.PROMOTE, steps=(SHIFTED,), outcome=Outcome.PROMOTED)
        prefect_line.write(prefect_line.record.model_copy(update={"past": (ended(1), done)}))
        return Completed(message="chat-r1 is live again")

    with playing(prefect_api, "promote", story) as worker:
        code = prefect_line.slipway("promote", "chat", "chat-r1", "--reason", "better", "--actor", "ann")

    assert (0, "chat-r1 is live again\n") == (code, prefect_line.out)
    assert "chat-r1    ok   shift" in prefect_line.err
    assert "[all] of it" in prefect_line.err
    told = {"service": "chat", "release": "chat-r1", "reason": "better", "actor": "ann"}
    assert told == worker.parameters


def test_a_newer_request_ends_the_watching_with_7(prefect_line: Line, prefect_api: str) -> None:
    """Whether its release had begun or not, the person reads that something newer took its place."""
    prefect_line.write(ServiceRecord(service="chat", next_number=2, live=release(1), past=(ended(1),)))

    def story(run: str) -> State[Any]:
        why = Failure(step=None, outcome=Outcome.SUPERSEDED, reason="A newer request took its place.")
        gone = at_work(1, run, kind=Kind.RESTORE, failure=why, outcome=Outcome.SUPERSEDED)
        prefect_line.write(prefect_line.record.model_copy(update={"past": (ended(1), gone)}))
        return Failed(message=f"chat-r1 was superseded: {why.reason}")

    with playing(prefect_api, "restore", story):
        code = prefect_line.slipway("restore", "chat", "--json")

    assert 7 == code
    assert True is json.loads(prefect_line.out)["superseded"]
    assert "something newer was asked for" in prefect_line.err


def test_what_waits_behind_another_release_and_never_began_was_superseded(
    prefect_line: Line, prefect_api: str
) -> None:
    """The watcher says what ends first, and knows a request that vanished from the record."""
    prefect_line.write(asking())

    def story(run: str) -> State[Any]:
        wish = Request(id=run, kind=Kind.ROLL_BACK, release=release(1), at=NOW)
        prefect_line.write(prefect_line.record.model_copy(update={"waiting": wish}))
        seen(prefect_line, "chat: chat-r2 is on its way, and ends first")
        prefect_line.write(asking())
        return Failed(message="A newer request for chat took this one's place.")

    with playing(prefect_api, "roll-back", story):
        code = prefect_line.slipway("rollback", "chat", "--to", "chat-r1")

    assert 7 == code


def test_a_question_to_a_person_is_printed_and_followed_on(prefect_line: Line, prefect_api: str) -> None:
    """The commands that answer are there to copy; the answer is told too, and the refusal has its exit code."""
    prefect_line.write(ServiceRecord(service="chat", next_number=2, live=release(1), past=(ended(1),)))

    def story(run: str) -> State[Any]:
        asked = asking()
        assert asked.current is not None
        mine = asked.current.model_copy(update={"run": run, "request": run})
        prefect_line.write(asked.model_copy(update={"current": mine}))
        seen(prefect_line, 'slipway approve chat --reason "..."')
        no = Approval(step=StepName.QUALITY, granted=False, who="ann", why="worse", at=NOW)
        why = Failure(step=StepName.QUALITY, outcome=Outcome.REFUSED, reason="ann refused it: worse")
        over = mine.model_copy(
            update={"question": None, "approvals": (no,), "failure": why, "outcome": Outcome.REFUSED}
        )
        prefect_line.write(asked.model_copy(update={"current": None, "past": (ended(1), over)}))
        return Failed(message="chat-r2 was refused: ann refused it: worse")

    with playing(prefect_api, "refresh", story):
        code = prefect_line.slipway("refresh", "chat")

    assert 5 == code
    assert "chat-r2 was rejected by ann: worse" in prefect_line.err


def test_a_run_may_be_started_without_watching(prefect_line: Line, prefect_api: str) -> None:
    """A program gets the run's id, and the run begins when a worker takes it."""
    prefect_line.write(ServiceRecord(service="chat", next_number=2, live=release(1), past=(ended(1),)))
    worker = Worker(prefect_api, "drill")
    try:
        code = prefect_line.slipway("drill", "chat", "--no-wait", "--json")
        run = str(worker.taken_up())
    finally:
        worker.close()

    assert (0, {"service": "chat", "run": run}) == (code, json.loads(prefect_line.out))


def test_ctrl_c_ends_the_watching_and_not_the_run(prefect_line: Line, prefect_api: str) -> None:
    """The person is told which run goes on; the exit code is the shell's for an interruption."""
    prefect_line.write(ServiceRecord(service="chat", next_number=2, live=release(1), past=(ended(1),)))
    worker = Worker(prefect_api, "check-live")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "check", "chat"]
    watching = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    try:
        run = worker.taken_up()
        assert watching.stderr is not None
        assert f"chat: flow run {run}\n" == watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        _, told = watching.communicate(timeout=DEADLINE_S)
        with SyncPrefectClient(api=prefect_api) as client:
            state = client.read_flow_run(run).state
    finally:
        watching.kill()
        watching.wait()
        worker.close()

    assert 130 == watching.returncode
    assert f"no longer watched; the flow run {run} goes on" in told
    assert state is not None
    assert state.is_running()
