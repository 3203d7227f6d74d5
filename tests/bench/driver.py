"""Clients of a live address that are none of Slipway's: what each of them got, when, and from which release.

Requests start at a fixed rate whatever became of those before, every other one on a new connection.  Streams are
held open all the time.  Looks are the lightest request, for the list of models: on new connections many times a
second, and on connections that stay open and are used once a second, so that a change of the address is seen at once.
Nothing is retried.  Times are of the machine's clock of the day, in seconds, as those of the record are.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import httpx

from tests.faults.releases.traffic import is_whole

PROMPT = "What is the capital of France?"
START_S = 10.0
KEPT_FOR_S = 60.0
"""How long a client keeps a connection that it does not use."""


class Way(StrEnum):
    """How a client asks; those that look are judged for where the address leads, too."""

    NEW = "plain, new connection"
    KEPT = "plain, kept-alive connection"
    STREAM = "stream"
    LONG = "long stream"
    LOOK_NEW = "look, new connection"
    LOOK_IDLE = "look, idle kept-alive connection"


@dataclass(frozen=True)
class Load:
    """How much is asked: plain requests a second, streams held open, looks, and the tokens of each answer."""

    rate: float
    tokens: int
    streams: int
    stream_tokens: int
    pause_s: float
    looks: float
    idle: int = 4
    idle_s: float = 1.0
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Answer:
    """One request and its end.  ``answered`` is when its headers came, None where they never did.

    ``fault`` is empty for a whole answer; one with ``truncated`` had begun well.
    """

    way: Way
    began: float
    answered: float | None
    ended: float
    release: str
    fault: str = ""
    truncated: bool = False


@dataclass
class Driver:
    """What was asked of ``address`` for the model ``service``, from the beginning; grows while it is on."""

    address: str
    service: str
    load: Load
    answers: list[Answer] = field(default_factory=list)
    long_open: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _begun: threading.Event = field(default_factory=threading.Event)

    def seen(self) -> list[Answer]:
        """Return what has ended so far."""
        return list(self.answers)

    def open_long(self, count: int, tokens: int) -> None:
        """Begin ``count`` streams of ``tokens`` each; may be called from any thread while the driver is on."""
        self.long_open += count
        for _ in range(count):
            self._loop.call_soon_threadsafe(lambda: self._group.create_task(self._hold_long(tokens)))

    async def flow(self) -> None:
        """Ask until told to stop, and wait for the answers that are on their way."""
        self._loop = asyncio.get_running_loop()
        async with (
            self._client(kept=True) as self._kept,
            self._client(kept=False) as self._fresh,
            asyncio.TaskGroup() as self._group,
        ):
            self._begun.set()
            for _ in range(self.load.streams):
                self._group.create_task(self._hold_streams())
            for number in range(self.load.idle):
                self._group.create_task(self._look_idly(number / self.load.idle))
            self._group.create_task(self._look_anew())
            await self._ask_plainly()

    def stop(self) -> None:
        """Ask nothing more."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def _ask_plainly(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._over.is_set():
            way = Way.NEW if number % 2 else Way.KEPT
            self._group.create_task(self._complete(self._fresh if number % 2 else self._kept, way, self.load.tokens))
            number += 1
            await self._pause(begun + number / self.load.rate - time.monotonic())

    async def _look_anew(self) -> None:
        while not self._over.is_set():
            self._group.create_task(self._look(self._fresh, Way.LOOK_NEW))
            await self._pause(1 / self.load.looks)

    async def _look_idly(self, first_s: float) -> None:
        async with self._client(kept=True) as client:
            await self._pause(first_s)
            while not self._over.is_set():
                await self._look(client, Way.LOOK_IDLE)
                await self._pause(self.load.idle_s)

    async def _hold_streams(self) -> None:
        while not self._over.is_set():
            await self._complete(self._kept, Way.STREAM, self.load.stream_tokens)
            await self._pause(self.load.pause_s)

    async def _hold_long(self, tokens: int) -> None:
        try:
            await self._complete(self._fresh, Way.LONG, tokens)
        finally:
            self.long_open -= 1

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until it is over."""
        try:
            await asyncio.wait_for(self._over.wait(), max(seconds, 0.001))
        except TimeoutError:
            return

    async def _look(self, client: httpx.AsyncClient, way: Way) -> None:
        await self._ask(client, way, "GET", "/v1/models", None)

    async def _complete(self, client: httpx.AsyncClient, way: Way, tokens: int) -> None:
        streams = way in (Way.STREAM, Way.LONG)
        body = {
            "model": self.service,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": tokens,
            "stream": streams,
            **({"ignore_eos": True} if streams else {}),
        }
        await self._ask(client, way, "POST", "/v1/chat/completions", body)

    async def _ask(
        self, client: httpx.AsyncClient, way: Way, method: str, path: str, body: dict[str, Any] | None
    ) -> None:
        began, answered, release, fault, text = time.time(), None, "", "", ""
        try:
            async with client.stream(method, f"{self.address}{path}", json=body) as response:
                answered = time.time()
                release = response.headers.get("x-slipway-release", "")
                fault = "" if response.status_code == HTTPStatus.OK else f"status {response.status_code}"
                text = (await response.aread()).decode(errors="replace")
        except httpx.HTTPError as error:
            fault = fault or type(error).__name__
        good = fault == "" and answered is not None
        if good and body is not None and not is_whole(text, stream=body["stream"]):
            fault = "has no end"
        truncated = answered is not None and fault != "" and not fault.startswith("status")
        self.answers.append(Answer(way, began, answered, time.time(), release, fault, truncated))

    def _client(self, *, kept: bool) -> httpx.AsyncClient:
        limits = httpx.Limits(max_keepalive_connections=None if kept else 0, keepalive_expiry=KEPT_FOR_S)
        return httpx.AsyncClient(timeout=self.load.timeout_s, limits=limits, trust_env=False)


@contextmanager
def driving(address: str, service: str, load: Load) -> Iterator[Driver]:
    """Keep clients at ``address`` busy until the block is left; those under way are waited for."""
    driver = Driver(address, service, load)
    thread = threading.Thread(target=lambda: asyncio.run(driver.flow()), name="driver", daemon=True)
    thread.start()
    if not driver._begun.wait(START_S):
        raise RuntimeError("the driver does not begin")
    try:
        yield driver
    finally:
        driver.stop()
        thread.join(load.timeout_s + START_S)
