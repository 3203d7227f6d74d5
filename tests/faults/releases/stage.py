"""A service with clients, a cluster that outlives the runs that change it, and what must hold when all is quiet.

What must hold is read past the engine: the live address by a client of its own, the cluster from within, the record
and the ledger as they are stored.
"""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx

from tasks._release import ledger
from tasks._release.journal import Journal
from tasks._release.lease import Lease, is_free, read_lease
from tasks._stores.store import open_store
from tasks.records import Kind, Progress, Release, Request, ServiceRecord, StepName
from tasks.settings import StoreSettings
from tests.fakes.context_engine import ContextEngine
from tests.fakes.engine import Engine
from tests.fakes.hubs import MODEL, TOKEN, RunningHub, write_model
from tests.faults.releases.carrier import Orders, main
from tests.faults.releases.clusters import Cluster
from tests.faults.releases.traffic import Traffic

DEADLINE_S = 60.0
"""The longest that a run may take on a busy machine."""
START_S = 5.0
"""The least that a start may take on a cluster that takes its time, where a test asks for a short deadline."""
TOKEN_S = 0.01
"""Seconds that an engine takes for a token, so that a stream is open for a while."""
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]
GOOD, BAD = "The capital of France is Paris.", "rk rk rk rk rk rk"
SPEC: dict[str, Any] = {
    "service": "chat",
    "model": MODEL,
    "bake": {"seconds": 0.3, "interval": 0.2},
    "checks": {"smoke": {"concurrent": 2}, "paired": {"enabled": False}, "performance": {"enabled": False}},
    "deadlines": {"ready": 3, "request": 5},
    "probe": {"enabled": False},
}
KILLED, TOLD_TO_GO, FENCED_OFF = -signal.SIGKILL, 143, 7

Answering = Callable[[str], str]
"""What the release of that name says now."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "tests.faults.releases.carrier",
        *("anyio._backends._asyncio", "huggingface_hub.hf_api", "tasks._checks.expectations", "tasks._stores.s3"),
        "tasks._release.kuberay",
    ]
)


@dataclass
class Run:
    """One run; ``log`` holds all that it said."""

    process: ForkServerProcess
    orders: Orders

    def exit(self) -> int:
        """Wait until it has ended; return its exit status, or the signal that ended it as a negative number."""
        self.process.join(DEADLINE_S)
        status = self.process.exitcode
        assert status is not None, f"the run does not end:\n{self.said()}"
        return status

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid
        os.kill(self.process.pid, number)

    def has_stopped(self) -> bool:
        """Say whether it stands still."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        return status.rpartition(")")[2].split()[0] == "T"

    def ended(self) -> list[Progress | None]:
        """Return how its requests ended, as it saw it; it must have ended well."""
        assert self.exit() == 0, self.said()
        lines = self.orders.out.read_text().split("\n")
        return [Progress.from_json(line) if line else None for line in lines]

    def said(self) -> str:
        """Return its log."""
        return self.orders.log.read_text() if self.orders.log.exists() else ""


@dataclass
class Stage:
    """A service called chat.  ``bad`` releases may fail their clients; with ``dark`` there may be no live one."""

    store: StoreSettings
    hub: RunningHub
    cluster: Cluster
    folder: Path
    bad: set[str] = field(default_factory=set)
    dark: bool = False
    runs: list[Run] = field(default_factory=list)
    traffic: Traffic | None = None
    _seeds: Any = field(default_factory=count)

    @property
    def address(self) -> str:
        """Return the live address."""
        return self.cluster.address

    def wanted(self, **spec: Any) -> Request:
        """Publish a new commit and return the request for it; ``spec`` are other sections of the spec."""
        commit = self.hub.publish(write_model(self.folder / "model", seed=next(self._seeds), sizes=(4096, 512)))
        patience = min(self.cluster.grace_s, START_S) if "deadlines" in spec else self.cluster.grace_s
        spec = {**SPEC, **self.cluster.spec, **spec}
        spec["deadlines"] = {**spec["deadlines"], "ready": spec["deadlines"]["ready"] + patience}
        return asking(Release(service="chat", number=1, model=MODEL, commit=commit, hub=self.hub.endpoint, spec=spec))

    def begin(
        self, request: Request, *, crash_at: str = "", settings: Mapping[str, str] | None = None, **orders: Any
    ) -> Run:
        """Begin a run that carries ``request``; it kills itself at the boundary ``crash_at``.

        ``settings`` are variables in which it differs from the others.
        """
        place = self.folder / f"run-{len(self.runs)}"
        environment = {**self.environment(), "SLIPWAY_CRASH_AT": crash_at, **(settings or {})}
        ordered = Orders(environment, request, place.with_suffix(".out"), place.with_suffix(".log"), **orders)
        process = FORKS.Process(target=main, args=[ordered])
        run = Run(process, ordered)
        process.start()
        self.runs.append(run)
        return run

    def carry(self, request: Request, **orders: Any) -> Progress:
        """Have a run of its own carry ``request``, as ``begin`` does; return how it ended."""
        ended = self.begin(request, **orders).ended()[0]
        assert ended is not None
        return ended

    def await_that(self, come: Callable[[], object]) -> None:
        """Wait until something has come."""
        deadline = time.monotonic() + DEADLINE_S
        while not come():
            assert time.monotonic() < deadline, self.runs[-1].said()
            time.sleep(0.02)

    def record(self) -> ServiceRecord:
        """Return the record as it is stored."""
        with closing(open_store(self.store)) as store:
            return Journal(store, "chat").record

    def lease(self) -> Lease:
        """Return the lease as it is stored."""
        with closing(open_store(self.store)) as store:
            lease = read_lease(store, "chat")
        assert lease is not None
        return lease

    def next_name(self) -> str:
        """Return what the next new release will be called."""
        return f"chat-r{self.record().next_number}"

    def commit(self) -> str | None:
        """Return the commit that answers at the live address; None when nobody does."""
        return self._header("x-slipway-commit")

    def live(self) -> str | None:
        """Return the release that answers at the live address; None when nobody does."""
        return self._header("x-slipway-release")

    def answer(self, answering: Answering) -> None:
        """Have releases that start from now on answer as they are told."""
        self.cluster.engine = lambda args: engine(args, answering)

    def start_slowly(self, seconds: float) -> None:
        """Have releases deploy for so long from now on; those that run are not touched."""
        self.cluster.start_slowly(seconds)

    def is_routed(self, name: str) -> bool:
        """Say whether the live address leads to the release of that name."""
        return self.cluster.is_routed(name)

    def rest(self) -> None:
        """Assert that the last release has ended, that ledger and lease are in order, and that nothing is over."""
        with closing(open_store(self.store)) as store:
            record = Journal(store, "chat").record
            assert record.ledger.sequence == ledger.verify(store, record)
            told = [store.get(item.key) for item in store.list("services")]
        assert (None, None) == (record.current, record.waiting)
        assert is_free(self.lease(), datetime.now(UTC))
        kept = {release.name for release in (record.live, record.previous) if release}
        assert kept == self.cluster.names()
        if not self.dark:
            assert record.live is not None
            assert record.live.name == self.live()
            wanted = {name: name != record.live.name for name in kept}
            self.await_that(lambda: self.cluster.is_draining() == wanted)
        self._assert_no_secret(b"".join(found[0] for found in told if found).decode())

    def assert_that_nobody_lost(self, were_live: set[str]) -> None:
        """Assert that every client was answered whole, and only by releases that were live meanwhile."""
        assert self.traffic is not None
        if self.dark:
            return
        lost = [one for one in self.traffic.lost() if one.release not in self.bad]
        assert not lost, lost[:5]
        assert self.traffic.got, "nobody asked"
        assert self.traffic.releases() <= were_live

    def stop(self) -> None:
        """End every run that is left."""
        for run in self.runs:
            if run.process.is_alive():
                run.send(signal.SIGKILL)
            run.exit()
            run.process.close()

    def environment(self) -> dict[str, str]:
        """Return the variables of a process that carries this service's releases."""
        assert self.store.access_key
        assert self.store.secret_key
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "SLIPWAY_HOME": str(self.folder / "home"),
            "SLIPWAY_SERVICES": str(self.folder),
            "SLIPWAY_HUB__ENDPOINT": self.hub.endpoint,
            "SLIPWAY_HUB__TOKEN": TOKEN,
            "SLIPWAY_STORE__URL": self.store.url,
            "SLIPWAY_STORE__ENDPOINT": self.store.endpoint or "",
            "SLIPWAY_STORE__ACCESS_KEY": self.store.access_key.get_secret_value(),
            "SLIPWAY_STORE__SECRET_KEY": self.store.secret_key.get_secret_value(),
            **self.cluster.environment(),
        }

    def _header(self, name: str) -> str | None:
        try:
            return httpx.get(f"{self.address}/v1/models", trust_env=False).headers.get(name)
        except httpx.TransportError:
            return None

    def _assert_no_secret(self, *texts: str) -> None:
        assert self.store.secret_key
        secrets = (TOKEN, self.store.secret_key.get_secret_value(), *self.cluster.secrets, "X-Amz-Signature")
        for text in (*texts, *(run.said() for run in self.runs)):
            assert not [secret for secret in secrets if secret in text], text


def asking(release: Release, kind: Kind = Kind.RELEASE) -> Request:
    """Return a request for ``release``."""
    return Request(id=os.urandom(8).hex(), kind=kind, release=release, at=datetime.now(UTC))


def engine(args: dict[str, Any], answering: Answering) -> Engine:
    """Return an engine for an application's arguments, which says what its release is told to."""
    name = args["release"]
    return ContextEngine(
        answer=lambda _messages: answering(name),
        release=name,
        commit=args["commit"],
        model=args["served_model_name"],
        delay_s=TOKEN_S,
    )


def write_prompts(folder: Path) -> None:
    """Write what releases are asked."""
    (folder / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))


def shape(ended: Progress) -> tuple[Any, ...]:
    """Return what must be the same of a release whether its runs were killed or not."""
    steps = {step.name: step.state for step in ended.steps}
    checks = {check.name: check.verdict for check in ended.checks}
    why = (ended.failure.step, ended.failure.outcome) if ended.failure else None
    return ended.kind, ended.outcome, steps, checks, why


def were_live(before: ServiceRecord, after: ServiceRecord) -> set[str]:
    """Return the releases that were live at some time between two records."""
    since = after.past[-max(0, after.ledger.sequence - before.ledger.sequence) :] if after.past else ()
    shifted = {past.release.name for past in since if past.step(StepName.SHIFT)}
    return shifted | {record.live.name for record in (before, after) if record.live}
