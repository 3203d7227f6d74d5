"""The verbs where no Prefect server is configured: the flow's own code in this program, same record, same codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks._release.journal import Journal
from tasks._stores.folder import FolderStore
from tasks.records import Outcome, ServiceRecord, StepName
from tasks.settings import StoreSettings
from tests.fakes.context_engine import ContextEngine
from tests.fakes.hubs import RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving
from tests.flows.stage import PROMPTS, SPEC

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


@dataclass
class Stand:
    """A machine with a Hub, a folder for a store and a small cluster, and without Prefect."""

    folder: Path
    hub: RunningHub
    variables: dict[str, str]

    def publish(self, seed: int) -> str:
        """Make a new commit the head of ``main``."""
        return self.hub.publish(write_model(self.folder / "model", seed=seed))

    def slipway(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line."""
        return subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
            cwd=ROOT,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def record(self) -> ServiceRecord:
        """Return the record of the service."""
        with closing(FolderStore(StoreSettings(url=self.variables["SLIPWAY_STORE__URL"]))) as store:
            return Journal(store, "chat").record


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Return a machine on which nothing was released yet."""
    (tmp_path / "store").mkdir()
    (tmp_path / "chat.yaml").write_text(SPEC)
    (tmp_path / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))

    def engine(args: dict[str, str]) -> ContextEngine:
        return ContextEngine(
            answer=lambda _: "The capital of France is Paris.",
            release=args["release"],
            commit=args["commit"],
            model="chat",
        )

    with running_hub(tmp_path / "hub") as hub, serving(RayServe(engine=engine)) as ray:
        assert ray.token
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SLIPWAY_SERVICES": str(tmp_path),
            "SLIPWAY_HOME": str(tmp_path / "state"),
            "SLIPWAY_HUB__ENDPOINT": hub.endpoint,
            "SLIPWAY_STORE__URL": (tmp_path / "store").as_uri(),
            "SLIPWAY_RAY__DASHBOARD": ray.dashboard,
            "SLIPWAY_RAY__SERVE": ray.serve,
            "SLIPWAY_RAY__TOKEN": ray.token.get_secret_value(),
        }
        yield Stand(tmp_path, hub, variables)


def test_a_release_runs_in_this_program(stand: Stand) -> None:
    """It ends live, with the same record, report and exit code as a run of Prefect's."""
    commit = stand.publish(1)
    started = stand.slipway("release", "chat", "--json", "--reason", "first")

    said, told = started.communicate(timeout=DEADLINE_S)

    assert (0, "chat-r1 is live") == (started.returncode, json.loads(said)["message"]), told
    assert "no Prefect server is configured" in told
    assert "Traceback" not in told
    record = stand.record
    assert record.live is not None
    assert (commit, "chat-r1") == (record.live.commit, record.live.name)
    assert [(Outcome.PROMOTED, "first")] == [(one.outcome, one.reason) for one in record.past]


def test_what_ctrl_c_leaves_is_finished_by_the_next_program(stand: Stand) -> None:
    """A question holds the release; the program is stopped there, and another one goes on with the answer."""
    spec = stand.folder / "chat.yaml"
    spec.write_text(f"{spec.read_text()}policy: approve\n")
    stand.publish(1)
    first = stand.slipway("release", "chat")
    deadline = time.monotonic() + DEADLINE_S
    while not ((current := stand.record.current) and current.question):
        assert time.monotonic() < deadline, "nothing was asked"
        time.sleep(0.1)

    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=DEADLINE_S)
    answered = stand.slipway("approve", "chat", "--reason", "fine", "--json")
    answer, _ = answered.communicate(timeout=DEADLINE_S)
    second = stand.slipway("finish", "chat")
    said, _ = second.communicate(timeout=DEADLINE_S)

    assert 130 == first.returncode
    assert "`slipway finish chat` ends what is left" in told
    assert False is json.loads(answer)["carried"]
    assert (0, "chat-r1 is live\n") == (second.returncode, said)
    assert stand.record.past[0].done(StepName.APPROVE)


def test_a_run_in_this_program_cannot_be_left_behind(stand: Stand) -> None:
    """Nothing is asked for, because nobody would carry it."""
    stand.publish(1)
    started = stand.slipway("release", "chat", "--no-wait")

    _, told = started.communicate(timeout=DEADLINE_S)

    assert 2 == started.returncode
    assert "Leave out --no-wait" in told
    assert ServiceRecord(service="chat") == stand.record
