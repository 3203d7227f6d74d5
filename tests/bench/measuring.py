"""Runs a contender's process tree and measures it; waits for a quiet machine first.

Time is the wall's, from before the first process begins until the last has ended.  Processor time is what the kernel
counted for the whole tree when it was reaped.  Memory is the anonymous and shared pages of all processes together,
looked at twenty times a second: file pages belong to the machine.  Disk is what lies in the run's own folder, which
is the tree's home, working and temporary folder; ``written`` is what the kernel sent towards disks for the tree,
wherever.
"""

import os
import platform
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

SAMPLE_S = 0.05
DISK_EVERY = 4
LIMIT_S = 900.0
QUIET = 0.9
"""Share of all processors that has to be idle before a timed run begins."""


class Failed(Exception):
    """A contender did not end well; the text is the end of what it said."""


@dataclass(frozen=True)
class Command:
    """One process to run, in ``folder``, with this environment and no more."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True)
class Usage:
    """What a run took: seconds, and bytes at the peak (``written``: in all)."""

    seconds: float
    cpu_s: float
    memory: int
    disk: int
    written: int


@dataclass(frozen=True)
class Machine:
    """Where the figures come from."""

    processor: str
    cores: int
    memory: int
    kernel: str
    python: str


def machine() -> Machine:
    """Describe this machine."""
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = os.cpu_count() or 1
    memory = psutil.virtual_memory().total
    return Machine(names[0] if names else "", cores, memory, platform.release(), platform.python_version())


def await_quiet(patience_s: float) -> dict[str, float]:
    """Wait, no longer than ``patience_s``, until the machine is idle; return how it was found then."""
    os.sync()  # what the last run wrote must not be written back at the cost of this one
    begun = time.monotonic()
    while True:
        idle = psutil.cpu_times_percent(interval=0.5).idle / 100
        waited = time.monotonic() - begun
        if idle >= QUIET or waited >= patience_s:
            return {"idle": round(idle, 2), "load": round(os.getloadavg()[0], 2), "waited_s": round(waited, 1)}


def measure(commands: Sequence[Command], log: Path) -> Usage:
    """Run the commands one after another and return what they took together; raises ``Failed``.

    All run in the same folder.  What they say goes to ``log``, outside of it.
    """
    with _sampled(commands[0].folder) as sampler:
        begun = time.monotonic()
        used = [_run(command, log, sampler) for command in commands]
        seconds = time.monotonic() - begun
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in used)
    written = sum(usage.ru_oublock for usage in used) * 512
    return Usage(seconds, cpu_s, sampler.memory, sampler.disk, written)


def start(command: Command, log: Path) -> "subprocess.Popen[bytes]":
    """Start a command as the leader of a session of its own."""
    with log.open("ab") as said:
        return subprocess.Popen(
            command.words,
            cwd=command.folder,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command and what it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(text: str) -> str:
    """Return the last thing that was said, which of a program that failed tells why."""
    return (text.strip().splitlines() or [""])[-1]


def rounded(usage: Usage) -> dict[str, Any]:
    """Return the usage for JSON, seconds to the millisecond."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(usage).items()}


def _run(command: Command, log: Path, sampler: "_Sampler") -> Any:
    process = start(command, log)
    sampler.follow(process.pid)
    try:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        sampler.follow(None)
        if process.returncode is None:
            kill(process)
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise Failed(f"{Path(command.words[0]).name} ended with {process.returncode}: {tail}")
    return usage


class _Sampler:
    """Looks at a process tree and a folder, and keeps the peaks; ends a tree that takes too long."""

    def __init__(self, folder: Path) -> None:
        self.memory = self.disk = 0
        self._folder = folder
        self._pid: int | None = None
        self._deadline = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler", daemon=True)

    def follow(self, pid: int | None) -> None:
        """Look at this tree from now on."""
        self._deadline = time.monotonic() + LIMIT_S
        self._pid = pid

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._done.set()
        self._thread.join()
        self.disk = max(self.disk, _bytes_under(self._folder))

    def _look(self) -> None:
        count = 0
        while not self._done.wait(SAMPLE_S):
            pid = self._pid
            if pid is not None:
                self.memory = max(self.memory, sum(map(_memory_of, _tree(pid))))
                if time.monotonic() > self._deadline:
                    with suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
            if count % DISK_EVERY == 0:
                self.disk = max(self.disk, _bytes_under(self._folder))
            count += 1


@contextmanager
def _sampled(folder: Path) -> Iterator[_Sampler]:
    sampler = _Sampler(folder)
    sampler.begin()
    try:
        yield sampler
    finally:
        sampler.end()


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _tree(int(child))


def _memory_of(pid: int) -> int:
    """Return the anonymous and shared bytes that are in memory for a process; 0 when it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.MULTILINE)))


def _bytes_under(folder: Path) -> int:
    """Return the bytes that the files under ``folder`` take up on the disk."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{path}/{name}").st_blocks * 512
    return total
