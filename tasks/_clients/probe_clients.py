"""The probe's clients, in their loop: plain requests on schedule, and streams that are held open.

Plain requests are open-loop: each is started when it is due, whatever became of those before, so that a server that
stalls meets the requests that real clients would have sent meanwhile.  One that could not be started in time, or
found ``MOST_IN_FLIGHT`` before it, is not started late but counts as not achieved.  Streams are closed-loop: each
client reads one to its end and asks for the next.  Every other request and stream keeps its connection, the others
take a new one each time, because the two meet a switch differently.  There are no retries and no excluded window.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from tasks._clients.answers import Answer, ask
from tasks._clients.requests import Beat, Kind, Outcome, Request

POLL_S = 0.2
POLL_DEADLINE_S = 5.0
AFTER_FAILURE_S = 0.2
LOOK_S = 0.1
"""Seconds between two looks at how late the loop is and how many streams are open."""
BEAT_S = 1.0
MOST_IN_FLIGHT = 200
"""Plain requests under way at once."""
LATE_S = 1.0
"""A plain request that is due is not started later than that."""


@dataclass
class Load:
    """What is to be asked; ``streams`` and ``tokens`` may change while it is.  See ``tasks._clients.probe.Probe``."""

    address: str
    body: dict[str, Any]
    prompts: tuple[str, ...]
    tokens: dict[Kind, int]
    rate: float
    streams: int
    deadline_s: float
    pause_s: float
    first_id: int
    await_live: bool


class Clients:
    """The clients of one ``load``; what ends, and each beat, is given to ``keep``.

    ``run`` is their life; ``stop`` and ``look_again`` are called in its loop.
    """

    def __init__(self, load: Load, keep: Callable[[Request | Beat], None]) -> None:
        self._load, self._keep = load, keep
        self._next_id = load.first_id
        self._answers: dict[int, Answer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._streaming: set[int] = set()
        self._resting = self._plain = 0
        self._changed, self._stopped = asyncio.Event(), asyncio.Event()
        self._grace_s: float | None = None
        self._failure: BaseException | None = None
        self._beat, self._beaten, self._spent_s = Beat(at=datetime.now(UTC), first=True), 0.0, 0.0
        self.is_live = not load.await_live

    def stop(self, grace_s: float | None) -> None:
        """Start no more requests; cut those in flight after ``grace_s``, or leave them their own deadlines.

        Called again with no grace, it cuts what an earlier call still waits for.
        """
        if self._stopped.is_set() and grace_s == 0:
            for task in self._tasks:
                task.cancel()
        self._grace_s = grace_s
        self._stopped.set()
        self._changed.set()

    def look_again(self) -> None:
        """Follow a changed load."""
        self._changed.set()

    def open_streams(self) -> int:
        """Return how many streams have had their first token and are still open."""
        return sum(answer.is_open for answer in self._streams())

    async def run(self) -> None:
        """Ask until ``stop``; raises what broke the clients themselves."""
        self._beaten = time.monotonic()
        self._flush()
        heart = asyncio.create_task(self._watch())
        heart.add_done_callback(self._ended)
        none = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        all_ = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)
        try:
            trust = httpx.create_ssl_context(trust_env=False)
            async with _http(none, trust) as new, _http(all_, trust) as kept:
                await self._until_live(new)
                await self._supervise({False: new, True: kept})
        finally:
            heart.cancel()
            self._flush()
        if self._failure is not None:
            raise self._failure

    async def _until_live(self, client: httpx.AsyncClient) -> None:
        """Wait until the address answers with a release, or until the stop."""
        looking, stop = asyncio.create_task(self._look(client)), asyncio.create_task(self._stopped.wait())
        await asyncio.wait({looking, stop}, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            looking.result()
        looking.cancel()
        stop.cancel()
        await asyncio.gather(looking, stop, return_exceptions=True)

    async def _look(self, client: httpx.AsyncClient) -> None:
        while not self.is_live:
            with suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(POLL_DEADLINE_S):
                    response = await client.get(f"{self._load.address}/v1/models")
                self.is_live = response.is_success and "x-slipway-release" in response.headers
            if not self.is_live:
                await asyncio.sleep(POLL_S)

    async def _supervise(self, http: Mapping[bool, httpx.AsyncClient]) -> None:
        """Keep as many streams as are wanted until the stop, then see the last requests to their end."""
        self._begin(self._ask_on_schedule(http))
        while not self._stopped.is_set():
            self._changed.clear()
            for index in set(range(self._load.streams)) - self._streaming:
                self._streaming.add(index)
                self._begin(self._hold_open(http, index))
            await self._changed.wait()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` beside the rest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Note the end of a task; a failure of the probe itself ends it all."""
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self.stop(0)

    async def _ask_on_schedule(self, http: Mapping[bool, httpx.AsyncClient]) -> None:
        """Start plain requests when they are due."""
        began, number = time.monotonic(), 0
        while self._load.rate:
            due = began + number / self._load.rate
            await self._rest(due - time.monotonic())
            if self._stopped.is_set():
                return
            in_time = time.monotonic() - due <= LATE_S and self._plain < MOST_IN_FLIGHT
            self._note(due=1, made=int(in_time))
            if in_time:
                self._plain += 1
                self._begin(self._ask_once(http, keeps_alive=number % 2 == 1))
            number += 1

    async def _ask_once(self, http: Mapping[bool, httpx.AsyncClient], *, keeps_alive: bool) -> None:
        try:
            await self._ask(http[keeps_alive], keeps_alive, Kind.PLAIN)
        finally:
            self._plain -= 1

    async def _hold_open(self, http: Mapping[bool, httpx.AsyncClient], index: int) -> None:
        """Be one client: ask for a stream, read it, again, for as long as this client is wanted."""
        keeps_alive = index % 2 == 1
        try:
            while index < self._load.streams and not self._stopped.is_set():
                outcome = await self._ask(http[keeps_alive], keeps_alive, Kind.STREAM)
                least_s = 0.0 if outcome is Outcome.OK else AFTER_FAILURE_S
                self._resting += 1
                await self._rest(max(self._load.pause_s, least_s))
                self._resting -= 1
        finally:
            self._streaming.discard(index)
            self._changed.set()

    async def _rest(self, seconds: float) -> None:
        """Wait that long, or until the stop."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _ask(self, http: httpx.AsyncClient, keeps_alive: bool, kind: Kind) -> Outcome:
        load, number = self._load, self._next_id
        self._next_id += 1
        body = load.body | {
            "messages": [{"role": "user", "content": load.prompts[number % len(load.prompts)]}],
            "stream": kind is Kind.STREAM,
            "max_tokens": load.tokens[kind],
        }
        at, answer = datetime.now(UTC), Answer(kind, time.monotonic())
        self._answers[number] = answer
        try:
            await ask(http, f"{load.address}/v1/chat/completions", body, answer, load.deadline_s)
        finally:
            del self._answers[number]
            read = asdict(answer)
            read.pop("done")
            self._keep(Request(id=number, kept_alive=keeps_alive, at=at, **read))
        return answer.outcome

    def _streams(self) -> list[Answer]:
        return [answer for answer in list(self._answers.values()) if answer.kind is Kind.STREAM]

    async def _watch(self) -> None:
        """Measure how late the loop is, and how much of what was asked is open; give a beat each second."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_S)
            passed = time.monotonic() - before
            self._beat = self._beat.model_copy(update={"stall_s": round(max(self._beat.stall_s, passed - LOOK_S), 4)})
            if self.is_live and not self._stopped.is_set():
                asked = max(self._load.streams - self._resting, 0)
                self._note(asked_s=passed * asked, open_s=passed * min(len(self._streams()), asked))
            if before + passed - self._beaten >= BEAT_S:
                self._flush()

    def _note(self, **more: float) -> None:
        sums = {name: getattr(self._beat, name) + value for name, value in more.items()}
        self._beat = self._beat.model_copy(update=sums)

    def _flush(self) -> None:
        """Give the beat that this moment ends, and begin the next."""
        now, spent = time.monotonic(), time.thread_time()
        sums = {"asked_s": round(self._beat.asked_s, 3), "open_s": round(self._beat.open_s, 3)}
        took = {"cpu_s": round(spent - self._spent_s, 4), "wall_s": round(now - self._beaten, 4)}
        self._keep(self._beat.model_copy(update={"at": datetime.now(UTC)} | sums | took))
        self._beaten, self._spent_s = now, spent
        self._beat = Beat(at=datetime.now(UTC))


def _http(limits: httpx.Limits, trust: ssl.SSLContext) -> httpx.AsyncClient:
    """Return a client without limits of its own: each request has one deadline."""
    return httpx.AsyncClient(timeout=None, trust_env=False, limits=limits, verify=trust)  # noqa: S113
