"""Clients of the live address while a release happens: what each of them got, and from which release.

Requests start at a fixed rate whatever became of those before, every other one on a new connection, and streams are
held open all the time.  Nothing is retried, so that what a client would have lost is seen.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

RATE = 20
"""Plain requests started each second."""
STREAMS = 2
TIMEOUT_S = 10.0
BODY = {"model": "chat", "messages": [{"role": "user", "content": "The capital of France?"}]}


@dataclass(frozen=True)
class Got:
    """One request and its end; ``fault`` is empty where the answer was whole.  Seconds are of the monotonic clock."""

    began: float
    ended: float
    stream: bool
    release: str
    fault: str


@dataclass
class Traffic:
    """What was asked of ``address``, from the beginning; grows while it is on."""

    address: str
    got: list[Got] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def lost(self) -> list[Got]:
        """Return every request that was not answered whole."""
        return [one for one in list(self.got) if one.fault]

    def releases(self) -> set[str]:
        """Return every release that answered."""
        return {one.release for one in list(self.got) if one.release}

    async def _flow(self) -> None:
        async with _client(kept=True) as kept, _client(kept=False) as fresh, asyncio.TaskGroup() as group:
            for _ in range(STREAMS):
                group.create_task(self._hold_streams(kept))
            begun, number = time.monotonic(), 0
            while not self._over.is_set():
                group.create_task(self._ask(fresh if number % 2 else kept, stream=False))
                number += 1
                await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))

    async def _hold_streams(self, client: httpx.AsyncClient) -> None:
        while not self._over.is_set():
            await self._ask(client, stream=True)

    async def _ask(self, client: httpx.AsyncClient, *, stream: bool) -> None:
        began, release, fault, text = time.monotonic(), "", "", ""
        body = {**BODY, "stream": stream}
        try:
            async with client.stream("POST", f"{self.address}/v1/chat/completions", json=body) as response:
                release = response.headers.get("x-slipway-release", "")
                text = (await response.aread()).decode()
                fault = "" if response.status_code == HTTPStatus.OK else f"status {response.status_code}"
        except httpx.HTTPError as error:
            fault = type(error).__name__
        fault = fault or ("" if is_whole(text, stream=stream) else "truncated")
        self.got.append(Got(began, time.monotonic(), stream, release, fault))


@contextmanager
def flowing(address: str) -> Iterator[Traffic]:
    """Keep clients at the live address busy until the block is left; those under way are waited for."""
    traffic = Traffic(address)
    thread = threading.Thread(target=lambda: asyncio.run(traffic._flow()), name="traffic", daemon=True)
    thread.start()
    try:
        yield traffic
    finally:
        traffic._over.set()
        thread.join(TIMEOUT_S + 5)
        assert not thread.is_alive(), "a client was left waiting"


@asynccontextmanager
async def _client(*, kept: bool) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_keepalive_connections=None if kept else 0)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
        yield client


def is_whole(text: str, *, stream: bool) -> bool:
    """Say whether an answer has its end: a finish reason, and the last line of a stream."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line] if stream else [text, "[DONE]"]
    try:
        choices = [json.loads(event)["choices"] for event in events if event != "[DONE]"]
    except (ValueError, LookupError, TypeError):
        return False
    finishes = [choice[0]["finish_reason"] for choice in choices if choice]
    return events[-1] == "[DONE]" and finishes[-1:] in (["stop"], ["length"])
