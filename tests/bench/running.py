"""One measured run of one contender: an empty folder, counters before and after, everything stored read back."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.bench.contenders import Contender, Job
from tests.bench.data import Published, warm
from tests.bench.measuring import Command, Failed, Usage, await_quiet, last_line, measure, rounded
from tests.bench.servers import SINK, Counted, Server, Target, target
from tests.bench.verifying import Findings, verify


@dataclass(frozen=True)
class Bench:
    """What all runs share: where files may lie, the Hub, how long to wait for quiet, whom to tell."""

    home: Path
    hub: Server
    patience_s: float
    say: Callable[[str], None]

    def job(self, published: Published, store: Target, folder: Path) -> Job:
        """Return the job to move ``published`` into ``store``."""
        return Job(published, self.hub.endpoint, store.settings, folder)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for one run, and its log beside it; both are removed."""
        outer = Path(mkdtemp(prefix="run-", dir=self.home))
        inner = outer / "folder"
        inner.mkdir()
        try:
            yield inner
        finally:
            shutil.rmtree(outer, ignore_errors=True)

    @contextmanager
    def target(self, kind: str) -> Iterator[Target]:
        """Give an empty store for one run."""
        outer = Path(mkdtemp(prefix="store-", dir=self.home))
        try:
            with target(kind, outer / "data") as store:
                yield store
        finally:
            shutil.rmtree(outer, ignore_errors=True)


@dataclass(frozen=True)
class Run:
    """One run as it was measured; ``usage`` is missing, and ``error`` says why, where it failed.

    ``verified`` is None where the store throws bytes away.  ``asked`` is what the Hub was asked for, ``stored`` what
    the store was, where it counts.
    """

    workload: str
    contender: str
    store: str
    size: int
    quiet: Mapping[str, float]
    usage: Usage | None
    asked: Counted
    hub_cpu_s: float
    stored: Counted | None
    findings: Findings | None
    error: str = ""

    @property
    def verified(self) -> bool | None:
        """Say whether every stored byte was read back and right."""
        return None if self.findings is None else not self.findings.wrong

    @property
    def good(self) -> bool:
        """Say whether the run may be judged at all."""
        return self.usage is not None and self.verified is not False

    def to_json(self) -> dict[str, Any]:
        """Return the run for the report."""
        return {
            "workload": self.workload,
            "contender": self.contender,
            "store": self.store,
            "bytes": self.size,
            **(rounded(self.usage) if self.usage else {"error": self.error}),
            "hub_bytes": self.asked.bytes.total(),
            "hub_requests": self.asked.requests.total(),
            "hub_cpu_s": round(self.hub_cpu_s, 3),
            "store_requests": self.stored.requests.total() if self.stored else None,
            "verified": self.verified,
            "wrong": self.findings.wrong if self.findings else (),
            "left_over": self.findings.left if self.findings else (),
            "before": self.quiet,
        }


def run(
    bench: Bench,
    workload: str,
    contender: Contender,
    job: Job,
    store: Target,
    *,
    also: Mapping[str, Published] | None = None,
) -> Run:
    """Let ``contender`` do ``job`` and measure it; ``also`` is what the store holds besides, by prefix."""
    warm(job.published)
    commands = contender.commands(job)
    quiet = await_quiet(bench.patience_s)
    before, stored_before = bench.hub.counted(), _stored(store)
    cpu_before = bench.hub.cpu_s()
    usage, error = _measured(commands, job.folder.with_name("log"))
    hub_cpu_s = bench.hub.cpu_s() - cpu_before
    stored = _stored(store)
    findings = None
    if store.kind != SINK:
        findings = verify(store.settings, {**(also or {}), contender.keys(job): job.published})
    done = Run(
        workload,
        contender.name,
        store.kind,
        job.published.size,
        quiet,
        usage,
        bench.hub.counted().since(before),
        hub_cpu_s,
        stored.since(stored_before) if stored and stored_before else None,
        findings,
        error,
    )
    bench.say(sentence(done))
    return done


def compare(
    bench: Bench, workload: str, published: Published, kind: str, contenders: Mapping[Contender, int]
) -> list[Run]:
    """Let each contender move ``published`` as often as it says, in turns, each time into an empty store."""
    runs = []
    for repetition in range(max(contenders.values(), default=0)):
        present = [contender for contender, times in contenders.items() if repetition < times]
        for contender in present[repetition % len(present) :] + present[: repetition % len(present)]:
            with bench.target(kind) as store, bench.scratch() as folder:
                runs.append(run(bench, workload, contender, bench.job(published, store, folder), store))
    return runs


def sentence(run: Run) -> str:
    """Return what a person wants to know of a run while waiting for the next."""
    if run.usage is None:
        return f"{run.workload:16} {run.contender:15} failed: {last_line(run.error)}"
    verdict = {None: "", True: ", verified", False: ", WRONG BYTES STORED"}[run.verified]
    rate = run.size / run.usage.seconds / 1e6
    return f"{run.workload:16} {run.contender:15} {run.usage.seconds:6.2f} s {rate:5.0f} MB/s{verdict}"


def _measured(commands: Sequence[Command], log: Path) -> tuple[Usage | None, str]:
    try:
        return measure(commands, log), ""
    except Failed as error:
        return None, str(error)


def _stored(store: Target) -> Counted | None:
    return store.server.counted() if store.server else None
