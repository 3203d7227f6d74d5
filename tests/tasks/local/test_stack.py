"""The real stack: up twice, repaired after a kill, and gone after down, whatever happened before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import MachineError
from tasks.local import environments, machine, ports, processes, stack, state
from tasks.local.components import COMPONENTS

ROOT = Path(__file__).resolve().parents[3]
NAMES = [component.name for component in COMPONENTS]


def pids(home: Path) -> dict[str, int]:
    """Return the recorded pid of each part."""
    return {record.name: record.pid for record in processes.read_records(home / "run")}


def assert_nothing_is_left(home: Path) -> None:
    """No process with the stack's mark, no listener on its ports, no temporary folder."""
    remembered = state.read_state(home)
    assert remembered is not None
    assert processes.members(home / "run", remembered.mark) == []
    assert [port for port in remembered.ports.values() if not ports.is_free(port)] == []
    assert not state.short_folder(home).exists()
    assert stack.read_stack(home) is None


def start_up(home: Path) -> subprocess.Popen[bytes]:
    """Start another process that brings the stack up."""
    code = "import sys, pathlib; from tasks.local import stack; stack.up(pathlib.Path(sys.argv[1]), progress=print)"
    return subprocess.Popen([sys.executable, "-c", code, str(home)], cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of one stack, which is down afterwards."""
    folder = tmp_path_factory.mktemp("stack")
    yield folder
    stack.down(folder, wipe=True)


def test_nothing_is_up_in_an_empty_folder(tmp_path: Path) -> None:
    """Reading and ending what never was costs nothing and makes nothing."""
    assert stack.read_stack(tmp_path) is None
    assert stack.down(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_the_payload_or_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check names the remedy, and nothing is started."""
    monkeypatch.setattr(environments, "is_current", lambda _: False)
    with pytest.raises(MachineError, match="Run `make install`"):
        stack.up(tmp_path, progress=lambda _: None)
    assert processes.read_records(tmp_path / "run") == []
    monkeypatch.setattr(environments, "is_current", lambda _: True)
    monkeypatch.setattr(machine, "MEMORY_MB", 10**9)
    with pytest.raises(MachineError, match="MB of memory"):
        machine.check(tmp_path, ray_starts=True)
    machine.check(tmp_path, ray_starts=False)


def test_a_container_limit_counts_as_memory(tmp_path: Path) -> None:
    """What a container may still take is less than what the machine has."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert machine.available_memory(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory(tmp_path) > 600


@pytest.mark.slow
def test_up_starts_all_and_the_second_up_keeps_all(home: Path) -> None:
    """Every part answers, and what answers is not touched."""
    first = stack.up(home, progress=print)
    health = stack.health(first)
    assert {name: (h.alive, h.answers) for name, h in health.items()} == dict.fromkeys(NAMES, (True, True))
    before = pids(home)
    assert stack.up(home, progress=print) == first
    assert pids(home) == before
    assert stack.read_stack(home) == first


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3", "prefect", "worker"])
def test_up_repairs_only_what_was_killed(home: Path, name: str) -> None:
    """The other parts keep their processes."""
    stack.up(home, progress=print)
    before = pids(home)
    os.kill(before[name], signal.SIGKILL)
    after = stack.up(home, progress=print)
    changed = {part for part in NAMES if pids(home)[part] != before[part]}
    assert changed == {name}
    assert all(health.answers for health in stack.health(after).values())


@pytest.mark.slow
def test_down_leaves_nothing_and_can_be_said_twice(home: Path) -> None:
    """Data stays, processes, listeners and temporary folders do not."""
    stack.up(home, progress=print)
    assert stack.down(home) > len(NAMES)
    assert_nothing_is_left(home)
    assert (home / "prefect").is_dir()
    assert stack.down(home) == 0


@pytest.mark.slow
def test_two_ups_at_once_make_one_stack(home: Path) -> None:
    """The second waits for the first and keeps what it started."""
    stack.down(home)
    with start_up(home) as first, start_up(home) as second:
        assert (first.wait(180), second.wait(180)) == (0, 0)
    marked = state.read_state(home)
    assert marked is not None
    leaders = [p for p in processes.members(home / "run", marked.mark) if os.getsid(p.pid) == p.pid]
    assert {leader.pid for leader in leaders} == set(pids(home).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "needs_down"), [(signal.SIGKILL, True), (signal.SIGTERM, False), (signal.SIGINT, False)]
)
def test_an_interrupted_up_leaves_nothing(home: Path, number: signal.Signals, needs_down: bool) -> None:
    """An interrupt ends what was started; after a kill, `down` does."""
    stack.down(home)
    with start_up(home) as starter:
        deadline = time.monotonic() + 60
        while set(pids(home)) < {"s3", "hub", "prefect", "ray"} and time.monotonic() < deadline:
            time.sleep(0.05)
        starter.send_signal(number)
        assert starter.wait(60) != 0
    if needs_down:
        assert stack.down(home) >= 4
    assert_nothing_is_left(home)
    assert stack.down(home) == 0


@pytest.mark.slow
def test_a_failed_up_quotes_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    """A part that dies at its start is named with the last that it said, and the others are ended."""
    (tmp_path / "prefect" / "prefect.db").mkdir(parents=True)
    with pytest.raises(MachineError, match=r"Prefect server ended .* Its whole log is .*prefect\.log"):
        stack.up(tmp_path, progress=print)
    assert_nothing_is_left(tmp_path)
