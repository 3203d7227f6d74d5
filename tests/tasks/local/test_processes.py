"""Programs that outlive their starter: recorded before they run, found again, and ended without harm to others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tasks.errors import Conflict, MachineError
from tasks.local import processes
from tasks.local.processes import ProcessRecord, Program

ROOT = Path(__file__).resolve().parents[3]
MARK = "5a" * 16


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A stack's folder of records; whatever carries the mark is ended afterwards."""
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    processes.end(folder, MARK, grace_s=0)


def program(*command: str, name: str = "part") -> Program:
    """Return a program that sees almost nothing."""
    return Program(
        name=name, command=command, environment={"PATH": "/usr/bin:/bin"}, folder=Path("/"), fingerprint="f"
    )


def start(run: Path, *command: str, name: str = "part", mark: str = MARK) -> ProcessRecord:
    """Start it under the lock."""
    with processes.locked(run, patience_s=5) as lock:
        return processes.start(run, run.parent / "logs", program(*command, name=name), mark, lock)


def eventually(holds: Callable[[], bool], *, within_s: float = 5) -> bool:
    """Wait until it holds, at most that many seconds."""
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_a_started_program_runs_in_its_own_session_with_its_output_in_a_log(run: Path) -> None:
    """Starting returns the identity of the program itself, not of what started it."""
    record = start(run, "sh", "-c", "echo hello; exec sleep 60")
    assert processes.alive(record)
    assert os.getsid(record.pid) == record.pid
    assert processes.read_record(run, "part") == record
    log = run.parent / "logs" / "part.log"
    assert eventually(lambda: log.read_text() == "hello\n")


def test_end_ends_and_forgets(run: Path) -> None:
    """After the end nothing runs and nothing is recorded; ending again finds nothing."""
    record = start(run, "sleep", "60")
    assert processes.end(run, MARK) == 1
    assert not processes.alive(record)
    assert processes.read_records(run) == []
    assert processes.end(run, MARK) == 0


def test_a_pid_used_again_is_not_taken_for_the_program(run: Path) -> None:
    """A record whose start time or boot differs from the living process is dead, and its end harms nobody."""
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        ours = start(run, "sleep", "60")
        begun = processes._start_ticks(bystander.pid)
        true = ours.model_copy(update={"pid": bystander.pid, "start_ticks": begun, "name": "reused"})
        assert processes.alive(true)
        for wrong in ({"start_ticks": 1}, {"boot": "another"}):
            reused = true.model_copy(update=wrong)
            (run / "reused.json").write_bytes(reused.to_json())
            assert not processes.alive(reused)
        processes.end(run, MARK)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("leader_killed", [False, True], ids=["leader alive", "leader killed before"])
def test_a_grandchild_in_another_session_is_ended_too(run: Path, leader_killed: bool) -> None:
    """Ray and vLLM start processes in sessions of their own; the mark leads to them even without the leader."""
    record = start(run, "sh", "-c", "setsid sleep 61 & exec sleep 60")
    assert eventually(lambda: len(processes.members(run, MARK)) == 2)
    found = processes.members(run, MARK)
    if leader_killed:
        os.kill(record.pid, signal.SIGKILL)
    processes.end(run, MARK)
    assert not any(process.is_running() and process.status() != "zombie" for process in found)


def test_one_component_is_ended_and_the_others_stay(run: Path) -> None:
    """A repair ends one part alone."""
    first, second = start(run, "sleep", "60", name="first"), start(run, "sleep", "60", name="second")
    processes.end(run, MARK, ["first"])
    assert not processes.alive(first)
    assert processes.alive(second)


def test_another_stack_is_left_alone(run: Path, tmp_path: Path) -> None:
    """Two stacks on one machine differ by their marks."""
    other = tmp_path / "other" / "run"
    record = start(other, "sleep", "60", mark="other")
    try:
        processes.end(run, MARK)
        assert processes.alive(record)
    finally:
        processes.end(other, "other")


def test_a_program_that_ignores_sigterm_is_killed(run: Path) -> None:
    """The polite signal has a deadline."""
    record = start(run, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    processes.end(run, MARK, grace_s=0.2)
    assert not processes.alive(record)


def test_a_program_that_is_not_there_leaves_no_record(run: Path) -> None:
    """The error says which program and why."""
    with pytest.raises(MachineError, match=r"no-such-program cannot be started: No such file"):
        start(run, "no-such-program")
    assert processes.read_records(run) == []


STARTER = """
import sys
from pathlib import Path
from tasks.local import processes
run, mark = Path(sys.argv[1]), sys.argv[2]
program = processes.Program(name="part", command=("sleep", "60"), environment={"PATH": "/usr/bin:/bin"},
                            folder=Path("/"), fingerprint="f")
with processes.locked(run, patience_s=5) as lock:
    print("starting", flush=True)
    processes.start(run, run.parent / "logs", program, mark, lock)
    print("started", flush=True)
    sys.stdin.read()
"""


def start_and_kill(run: Path, delay_s: float, code: str) -> subprocess.Popen[bytes]:
    """Run a starter and kill it that many seconds after it began to start the program."""
    command = [sys.executable, "-c", code, str(run), MARK]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"starting\n"
        time.sleep(delay_s)
        starter.kill()
    return starter


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 40])
def test_a_killed_starter_leaves_nothing_unrecorded(run: Path, delay_ms: int) -> None:
    """Whenever the starter is killed, who takes the lock afterwards finds every process in the records."""
    start_and_kill(run, delay_ms / 1000, STARTER)
    with processes.locked(run, patience_s=5):
        running = {process.pid for process in processes.members(run, MARK)}
        assert running <= {record.pid for record in processes.read_records(run)}
        processes.end(run, MARK)
        assert processes.members(run, MARK) == []


def test_a_slow_launch_keeps_the_lock_after_its_starter_is_killed(run: Path, tmp_path: Path) -> None:
    """Who comes next cannot overtake the launch: it waits, and finds the record."""
    slow = tmp_path / "slow-python"
    slow.write_text(f'#!/bin/sh\nsleep 0.5\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    starter = start_and_kill(run, 0.1, f"import sys; sys.executable = {str(slow)!r}\n" + STARTER)
    with processes.locked(run, patience_s=5):
        record = processes.read_record(run, "part")
    assert starter.returncode == -signal.SIGKILL
    assert record is not None
    assert processes.alive(record)


def test_the_wait_for_the_lock_is_told_once_and_ends(run: Path) -> None:
    """Who waits hears so once, and after its patience gets one sentence."""
    told: list[str] = []
    again = processes.locked(run, patience_s=0.3, waiting=lambda: told.append("waiting"))
    with processes.locked(run, patience_s=1), pytest.raises(Conflict, match="Wait for it"), again:
        pytest.fail("the lock was free")
    assert told == ["waiting"]


def test_a_damaged_record_counts_as_none(run: Path) -> None:
    """A half-written or foreign file does not stop the end of the rest."""
    (run / "part.json").write_text(json.dumps({"pid": psutil.Process().pid}))
    assert processes.read_record(run, "part") is None
    assert processes.read_records(run) == []


def test_the_last_line_of_a_log_says_something_and_no_secret(tmp_path: Path) -> None:
    """Rulers and empty lines are passed over; secrets are masked."""
    log = tmp_path / "x.log"
    log.write_text("first\nkey=hunter2 refused\n\n-----\n")
    assert processes.last_line(log, ["hunter2"]) == "key=*** refused"
    assert processes.last_line(tmp_path / "none.log") == "it left no log."
