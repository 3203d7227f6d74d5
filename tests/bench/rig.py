"""What a stage for the benchmark of releases can do, and how its runs are waited for and watched.

There are two: ``small_rig`` is made of fakes around a real S3 server, ``full_rig`` is the whole embedded stack.
Both publish commits, have runs carry requests to their end in processes of their own, and show the record as it is
stored.  What a rig started it ends when it is left.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tasks.records import Kind, Outcome, ServiceRecord, StepName
from tests.bench.driver import PROMPT, Load
from tests.bench.measuring import Failed
from tests.bench.outcomes import Carried

SERVICE = "chat"
MEMORY_EVERY_S = 0.5
"""Seconds between two looks at a process; its peak is the kernel's, so only one that ends in between is missed."""
RUN_S = 900.0
"""The longest that one run may take."""

Say = Callable[[str], None]


@dataclass
class Peak:
    """The most memory that one process had, in bytes: in all (the kernel's own peak), and of its own pages."""

    all: int = 0
    own: int = 0


class Rig(Protocol):
    """Where releases happen."""

    what: str
    address: str
    load: Load
    long: tuple[int, int]
    """How many long streams, and tokens of each."""

    def record(self) -> ServiceRecord:
        """Return the record as it is stored; for one thread at a time."""
        ...

    def release(self, *, bad: bool = False) -> "Future[Carried]":
        """Publish a commit and begin its release."""
        ...

    def roll_back(self) -> "Future[Carried] | None":
        """Undo what is on its way, or lead back; None where the run on its way does it."""
        ...

    def ask_at_once(self, requests: int) -> list[str]:
        """Publish a commit, have so many ask for it at once, and return the release that each heard of."""
        ...

    def wipe(self) -> str:
        """Empty the target and whatever else but the bucket can be spared; return what that was."""
        ...

    def restore(self) -> "Future[Carried]":
        """Begin to restore the service."""
        ...


def promoted(future: Future[Carried]) -> Carried:
    """Return a release once it has ended; raises ``Failed`` unless it was promoted."""
    carried = future.result(RUN_S)
    if carried.progress.outcome is not Outcome.PROMOTED:
        failure = carried.progress.failure
        raise Failed(f"{carried.progress.release.name} was not promoted: {failure.reason if failure else '?'}")
    return carried


def await_record(
    rig: Rig, shows: Callable[[ServiceRecord], object], deadline_s: float = RUN_S
) -> tuple[float, float]:
    """Return between which two moments, in seconds of the day, the record came to show something."""
    before, end = time.time(), time.monotonic() + deadline_s
    while True:
        begun = time.time()
        if shows(rig.record()):
            return before, time.time()
        if time.monotonic() > end:
            raise Failed(f"the record does not show what was waited for within {deadline_s:.0f} s")
        before = begun
        time.sleep(0.01)


def has_begun(step: StepName) -> Callable[[ServiceRecord], bool]:
    """Return what tells whether the release on its way has come to ``step``."""
    return lambda record: record.current is not None and record.current.step(step) is not None


def leads_back(record: ServiceRecord, sequence: int) -> bool:
    """Say whether a roll back is written that was not there when the ledger had ``sequence`` entries."""
    current, waiting = record.current, record.waiting
    if current is not None and (current.failure is not None or current.kind is Kind.ROLL_BACK):
        return True
    if waiting is not None and waiting.kind is Kind.ROLL_BACK:
        return True
    new = record.past[-(record.ledger.sequence - sequence) :] if record.ledger.sequence > sequence else ()
    return any(one.kind is Kind.ROLL_BACK or one.outcome is Outcome.ROLLED_BACK for one in new)


def answering(address: str) -> str:
    """Return release and commit of what completes a prompt at ``address``; nothing where nothing does."""
    body = {"model": SERVICE, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}
    try:
        response = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30, trust_env=False)
    except httpx.HTTPError:
        return ""
    seen = response.headers
    return f"{seen['x-slipway-release']} {seen['x-slipway-commit']}" if response.is_success else ""


def first_answer(address: str, future: "Future[Carried]") -> str:
    """Return what answers first; nothing where the run is over before."""
    while True:
        over = future.done()
        found = answering(address)
        if found or over:
            return found
        time.sleep(0.1)


@contextmanager
def sampled(pids: Callable[[], Sequence[int]]) -> Iterator[Peak]:
    """Look at the memory of processes until the block is left; give the peak of the largest."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(MEMORY_EVERY_S):
            for pid in pids():
                found = _memory_of(pid)
                peak.all, peak.own = max(peak.all, found.all), max(peak.own, found.own)

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _memory_of(pid: int) -> Peak:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return Peak()
    fields: dict[str, Any] = dict(line.split(":", 1) for line in lines)
    known = {name: int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon") if name in fields}
    return Peak(known.get("VmHWM", 0), known.get("RssAnon", 0))
