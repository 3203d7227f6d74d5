"""The demonstration, whole and real: what the README promises of ``make demo`` is what happens."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from tasks.local.state import read_state

ROOT = Path(__file__).parents[2]
DEADLINE_S = 1500

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the demonstration once in a folder of its own, and leave nothing running whatever happens."""
    folder = tmp_path_factory.mktemp("demo") / "state"
    environment = {**os.environ, "SLIPWAY_HOME": str(folder)}
    log = folder.with_suffix(".log")
    slipway = [sys.executable, "-c", "from flows.cli import main; main()"]
    try:
        with log.open("wb") as output:
            done = subprocess.run(
                [*slipway, "demo"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                timeout=DEADLINE_S,
                check=False,
            )
        assert 0 == done.returncode, log.read_text()[-4000:]
        yield folder
    finally:
        subprocess.run([*slipway, "down", "--wipe"], cwd=ROOT, env=environment, timeout=120, check=False)


@pytest.fixture(scope="module")
def shown(home: Path) -> dict[str, Any]:
    """Return what the demonstration wrote down."""
    document: dict[str, Any] = json.loads((home / "demo.json").read_text())
    return document


def test_two_releases_are_promoted_and_one_is_refused_for_its_answers(shown: dict[str, Any]) -> None:
    """A healthy, fast, wrong commit gets no client."""
    releases = shown["releases"]

    assert ["promoted", "promoted", "refused"] == [release["outcome"] for release in releases]
    assert ["chat-r1", "chat-r2", "chat-r3"] == [release["name"] for release in releases]
    assert 3 == len({release["commit"] for release in releases})
    checks = {check["name"]: check["verdict"] for check in releases[2]["checks"]}
    assert "fail" == checks["facts"]
    assert "facts" in releases[2]["reason"]
    assert {"pass"} == {check["verdict"] for release in releases[:2] for check in release["checks"]}


def test_no_client_lost_anything(shown: dict[str, Any]) -> None:
    """At least a hundred requests, thirty streams of them open across a switch, none lost or cut."""
    receipt = shown["receipt"]

    assert (0, 0) == (receipt["lost"], receipt["truncated"])
    assert receipt["requests"] >= 100
    assert receipt["streams_open_across"] >= 30
    assert {"chat-r1", "chat-r2"} == set(receipt["by_release"])
    assert receipt["requests"] == sum(receipt["by_release"].values())


def test_the_good_commit_is_live_and_knows_the_capital(shown: dict[str, Any]) -> None:
    """The refused release left the live one as it was."""
    live = shown["live"]

    assert ("chat-r2", shown["releases"][1]["commit"]) == (live["release"], live["commit"])
    assert "Paris" in live["answer"]


def test_the_drawing_and_the_reports_are_there(home: Path) -> None:
    """A person finds what was seen."""
    drawing = ElementTree.fromstring((home / "report" / "timeline.svg").read_text())  # noqa: S314 - our own

    assert drawing.tag.endswith("svg")
    assert "chat-r3: refused" in (home / "report" / "releases.md").read_text()


def test_nothing_is_left_running(home: Path) -> None:
    """No process of the stack is left, and none of its ports listens."""
    state = read_state(home)
    assert state is not None

    left = [process.pid for process in psutil.process_iter() if state.mark.encode() in environment_of(process.pid)]

    assert not left
    assert not [name for name, port in state.ports.items() if listens(port)]


def test_no_secret_is_written_where_people_look(home: Path) -> None:
    """The stack's keys are in their own files and nowhere in logs, reports, the record or Prefect's database."""
    keys = [path.read_bytes() for path in (home / "secrets").iterdir() if path.name != "access_key"]
    places = [
        home / "demo.json",
        *(home / "logs").iterdir(),
        *(home / "report").iterdir(),
        *(home / "prefect").rglob("*.db*"),
    ]

    assert keys
    leaks = [path.name for path in places if path.is_file() and any(key in path.read_bytes() for key in keys)]

    assert not leaks


def environment_of(pid: int) -> bytes:
    """Return the environment of a process, or nothing when it is gone or not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def listens(port: int) -> bool:
    """Return whether something accepts connections on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_versions_are_told(shown: dict[str, Any]) -> None:
    """What was seen can be repeated."""
    assert {"prefect", "ray", "vllm"} <= set(shown["versions"])
    assert all(re.match(r"\d+\.\d+", version) for version in shown["versions"].values())
