"""Programs that outlive the command that started them, and that can always be found and ended again.

Each runs in a session of its own, with its output in ``logs/<name>.log`` and its identity in
``run/<name>.json``: pid, start time in clock ticks, and boot id, so that a pid used again is not taken for it.
Everything a program starts inherits ``SLIPWAY_STACK``, a random id of the stack; that mark, the recorded
sessions and their descendants are what ``end`` goes by, never a name.  (``SPT_NOENV`` keeps Ray's and vLLM's
process titles from overwriting the mark in ``/proc/<pid>/environ``.)
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil
from pydantic import ValidationError

from tasks._clock import Clock
from tasks.errors import Conflict, MachineError
from tasks.records import Value

STACK_MARK, COMPONENT_MARK = "SLIPWAY_STACK", "SLIPWAY_COMPONENT"
_LAUNCH = Path(__file__).with_name("launch.py")
_CLOCK = Clock()
_POLL_S = 0.1


class Program(Value):
    """What to run: ``environment`` is all that it sees; ``command`` holds no secret."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    fingerprint: str


class ProcessRecord(Value):
    """Who a started program is: enough to tell it from any later process with its pid."""

    name: str
    command: tuple[str, ...]
    fingerprint: str
    pid: int
    start_ticks: int
    boot: str


@contextlib.contextmanager
def locked(run: Path, *, patience_s: float, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the stack's lock and yield its descriptor; ``Conflict`` after ``patience_s`` seconds."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("w") as handle:
        _take(handle, patience_s, waiting)
        yield handle.fileno()


def start(run: Path, logs: Path, program: Program, mark: str, lock: int) -> ProcessRecord:
    """Start a program and return its record; raises ``MachineError`` where it cannot be run at all."""
    logs.mkdir(parents=True, exist_ok=True)
    record = run / f"{program.name}.json"
    fields = {"name": program.name, "command": program.command, "fingerprint": program.fingerprint}
    marks = {STACK_MARK: mark, COMPONENT_MARK: program.name, "SPT_NOENV": "1"}
    launcher = [sys.executable, "-I", "-S", str(_LAUNCH), str(record), str(lock), json.dumps(fields)]
    with (logs / f"{program.name}.log").open("wb") as log:
        done = subprocess.run(
            [*launcher, *program.command],
            cwd=program.folder,
            env={**program.environment, **marks},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            check=False,
        )
    found = read_record(run, program.name)
    if done.returncode or found is None:
        raise MachineError(
            f"The {program.name} component cannot be started: {last_line(logs / f'{program.name}.log')}",
            remedy="Run `make install`, then try again.",
        )
    return found


def read_record(run: Path, name: str) -> ProcessRecord | None:
    """Return the record of a program that was started, alive or not; a damaged one counts as none."""
    try:
        return ProcessRecord.from_json((run / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def read_records(run: Path) -> list[ProcessRecord]:
    """Return the records of all programs that were started and not ended."""
    found = (read_record(run, path.stem) for path in sorted(run.glob("*.json")))
    return [record for record in found if record is not None]


def alive(record: ProcessRecord) -> bool:
    """Tell whether this very process still runs; a zombie does not."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return _start_ticks(record.pid) == record.start_ticks and boot == record.boot
    except OSError:
        return False


def members(run: Path, mark: str, names: Collection[str] | None = None) -> list[psutil.Process]:
    """Return the live processes of the stack, or of some parts: recorded, descended, or marked."""
    sessions = {record.pid for record in _chosen(run, names) if alive(record)}
    marked = f"{STACK_MARK}={mark}".encode()
    parts = None if names is None else {f"{COMPONENT_MARK}={name}".encode() for name in names}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            seen = _environment(process.pid)
            ours = marked in seen and (parts is None or bool(parts & seen))
            if ours or os.getsid(process.pid) in sessions:
                found[process.pid] = process
                found.update({child.pid: child for child in process.children(recursive=True)})
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _start_ticks(process.pid) is not None]


def end(run: Path, mark: str, names: Collection[str] | None = None, *, grace_s: float = 15) -> int:
    """End the stack, or some of its parts, and forget their records; return how many processes were ended.

    First SIGTERM to what was recorded, so that each program ends its own children in order; after ``grace_s``
    seconds, or as soon as only stragglers are left, SIGKILL, until nothing is found any more.
    """
    records = _chosen(run, names)
    ended = {process.pid for process in members(run, mark, names)}
    for record in records:
        if alive(record):
            _signal_group(record.pid)
    for _ in _CLOCK.ticks(grace_s, _POLL_S):
        if not any(alive(record) for record in records):
            break
    while left := members(run, mark, names):
        ended |= {process.pid for process in left}
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_POLL_S)
    for record in records:
        (run / f"{record.name}.json").unlink(missing_ok=True)
    return len(ended)


def last_line(log: Path, secrets: Sequence[str] = ()) -> str:
    """Return the last line of a log that says something, at most 300 characters, with the secrets masked."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - 65536))
            lines = [line.strip() for line in handle.read().decode(errors="replace").splitlines()]
    except OSError:
        return "it left no log."
    said = [line for line in lines if any(character.isalnum() for character in line)]
    text = said[-1][:300] if said else "it said nothing."
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _take(handle: IO[str], patience_s: float, waiting: Callable[[], None]) -> None:
    for attempt, _ in enumerate(_CLOCK.ticks(patience_s, _POLL_S)):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == 0:
                waiting()
    raise Conflict(
        f"Another `slipway up` or `slipway down` has held this stack for {patience_s:.0f} s.",
        remedy="Wait for it, or stop it with Ctrl-C.",
    )


def _chosen(run: Path, names: Collection[str] | None) -> list[ProcessRecord]:
    return [record for record in read_records(run) if names is None or record.name in names]


def _environment(pid: int) -> set[bytes]:
    return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def _start_ticks(pid: int) -> int | None:
    """Return when the process began, or nothing once it is over: a zombie whose last thread has ended too.

    The threads of a killed program hold its ports for some milliseconds after it became a zombie.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        over = state in {"Z", "X"} and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return None
    return None if over else int(rest[18])


def _signal_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
