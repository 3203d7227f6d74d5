"""A model to publish on the embedded Hub, and faults to switch on in front of it."""

import asyncio
import hashlib
import json
import random
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import LINK_LIFETIME_S
from tasks.local.hub.publishing import publish
from tasks.local.hub.repositories import large_blob_path
from tests.fakes.hub_server import serving

T = TypeVar("T")

MODEL = "acme/tiny"
TOKEN = "hf_canary_of_no_worth"
LOOK_S = 0.02
HEADER_BYTES = 128
"""Of a shard: eight bytes of length, then JSON padded with spaces."""


Answer = tuple[int, dict[str, str]]
"""A status, and headers; the body is empty."""


@dataclass
class Faults:
    """What goes wrong, by a part of ``METHOD /path RANGE``; each entry of a queue is used up by one request.

    ``RANGE`` is the header, ``bytes=0-99``, or ``whole``.  Changed by tests while the Hub serves.  Of several
    entries that fit a request, each kind gives its first.
    """

    answers: dict[str, deque[Answer | None]] = field(default_factory=dict)
    """What to answer instead; None lets a request through."""

    refusals: dict[str, Answer] = field(default_factory=dict)
    """What to answer instead; to every request."""

    before: dict[str, deque[Callable[[], object]]] = field(default_factory=dict)
    """What happens when a request has come, before it is looked at: a branch moves, a file is deleted."""

    renamed: dict[str, str] = field(default_factory=dict)
    """New names of repositories by their old ones, whose addresses lead to the new ones with 307."""

    cuts: dict[str, deque[int]] = field(default_factory=dict)
    """Bytes of a body after which the connection breaks, whatever length was declared."""

    stalls: dict[str, deque[int]] = field(default_factory=dict)
    """Bytes of a body after which nothing more comes; with 0 nothing ever does, not even a status."""

    damage: dict[str, deque[int]] = field(default_factory=dict)
    """Bytes of a body before the one that is wrong."""

    shortened: dict[str, deque[int]] = field(default_factory=dict)
    """Bytes that a body has, and declares, instead of all."""

    pause: dict[str, float] = field(default_factory=dict)
    """Seconds before each piece of a body; for every request."""

    rates: dict[str, float] = field(default_factory=dict)
    """Bytes per second of a body; for every request."""

    rangeless: set[str] = field(default_factory=set)
    """Where a range is answered with 200 and the whole."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and ``Range`` header of every request so far."""

    dropped: threading.Event = field(default_factory=threading.Event)

    def drop(self) -> None:
        """Break the connections that stall, and let none stall any more."""
        self.stalls.clear()
        self.dropped.set()

    def clear(self) -> None:
        """Let nothing go wrong any more; what was asked stays known."""
        for queues in (self.answers, self.before, self.cuts, self.stalls, self.damage, self.shortened):
            queues.clear()
        for lasting in (self.refusals, self.renamed, self.pause, self.rates, self.rangeless):
            lasting.clear()

    def asked(self, part: str) -> list[str]:
        """Return the ranges asked for of paths that hold ``part``; an empty one is the whole."""
        return [span for path, span in list(self.requests) if part in path]

    def around(self, inner: ASGIApp) -> ASGIApp:
        """Return the application with these faults in front of it."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            span = dict(scope["headers"]).get(b"range", b"").decode()
            place = f"{scope['method']} {scope['path']} {span or 'whole'}"
            self.requests.append((scope["path"], span))
            if happening := _next(self.before, place):
                await run_in_threadpool(happening)
            if instead := self._instead(place, scope):
                await _answer(instead, send)
                return
            if any(part in place for part in list(self.rangeless)):
                scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
            body = _Body(
                receive,
                send,
                dropped=self.dropped,
                cut=_next(self.cuts, place),
                stall=_next(self.stalls, place),
                damage=_next(self.damage, place),
                shortened=_next(self.shortened, place),
                pause=_first(self.pause, place) or 0.0,
                rate=_first(self.rates, place),
            )
            if body.stall == 0:
                await body.gone()
            await inner(scope, receive, body.send)

        return faulty

    def _instead(self, place: str, scope: Scope) -> Answer | None:
        if instead := _next(self.answers, place) or _first(self.refusals, place):
            return instead
        for old, new in list(self.renamed.items()):
            address = scope["raw_path"].decode()
            if address.startswith((f"/{old}/", f"/api/models/{old}")):
                query = scope["query_string"].decode()
                return 307, {"location": address.replace(old, new, 1) + (f"?{query}" if query else "")}
        return None


class _Body:
    """One answer on its way, with what goes wrong on it."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        dropped: threading.Event,
        cut: int | None,
        stall: int | None,
        damage: int | None,
        shortened: int | None,
        pause: float,
        rate: float | None,
    ) -> None:
        self._receive, self._send, self._dropped = receive, send, dropped
        self._cut, self.stall, self._damage, self._shortened = cut, stall, damage, shortened
        self._pause, self._rate = pause, rate
        self._sent = 0

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": self._declared(message["headers"])})
            return
        await asyncio.sleep(self._pause)
        piece, more = message.get("body", b""), message.get("more_body", False)
        if self._shortened is not None:
            piece = piece[: max(0, self._shortened - self._sent)]
        for start in range(0, len(piece), step := self._step(piece)):
            await self._pass(piece[start : start + step])
        if not more:
            await self._send({"type": "http.response.body"})

    async def gone(self) -> None:
        """Say nothing until the client has gone, or is to be."""
        client = asyncio.create_task(self._client_gone())
        try:
            while not client.done() and not self._dropped.is_set():
                await asyncio.wait([client], timeout=LOOK_S)
        finally:
            client.cancel()
        raise ConnectionResetError

    async def _client_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _pass(self, piece: bytes) -> None:
        end = self._sent + len(piece)
        if self._damage is not None and self._sent <= self._damage < end:
            at = self._damage - self._sent
            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        limit = min(n for n in (end, self._cut, self.stall) if n is not None)
        await self._send({"type": "http.response.body", "body": piece[: limit - self._sent], "more_body": True})
        self._sent = limit
        if limit < end and limit == self._cut:
            raise ConnectionResetError
        if limit < end:
            await self.gone()
        if self._rate:
            await asyncio.sleep(len(piece) / self._rate)

    def _step(self, piece: bytes) -> int:
        """Return how many bytes travel at once: at a chosen rate, a tenth of a second's."""
        return max(1, int(self._rate * 0.1)) if self._rate else max(1, len(piece))

    def _declared(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers with the length that the body will have; one that is shorter stays as it is."""
        if self._shortened is None:
            return list(headers)
        return [
            (name, str(min(self._shortened, int(value))).encode() if name.lower() == b"content-length" else value)
            for name, value in headers
        ]


def _first(faults: dict[str, T], place: str) -> T | None:
    return next((fault for part, fault in list(faults.items()) if part in place), None)


def _next(faults: dict[str, deque[T]], place: str) -> T | None:
    return next((queue.popleft() for part, queue in list(faults.items()) if part in place and queue), None)


async def _answer(answer: Answer, send: Send) -> None:
    status, extra = answer
    headers = [(name.encode(), value.encode()) for name, value in {**extra, "content-length": "0"}.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body"})


@dataclass
class RunningHub:
    """A Hub that answers at ``endpoint``, its repositories under ``root``."""

    endpoint: str
    root: Path
    faults: Faults

    def publish(self, folder: Path, **options: bool | str | None) -> str:
        """Make ``folder`` the head of ``MODEL`` and return the commit."""
        return publish(self.root, MODEL, folder, message="test", **options)  # type: ignore[arg-type]

    def blob(self, file: Path) -> Path:
        """Return where the Hub keeps the bytes of a published large file."""
        return large_blob_path(self.root, hashlib.sha256(file.read_bytes()).hexdigest())


@contextmanager
def running_hub(root: Path, *, link_lifetime_s: float = LINK_LIFETIME_S) -> Iterator[RunningHub]:
    """Serve ``root`` until the block is left; ``TOKEN`` opens what is gated or private."""
    faults, tokens = Faults(), AccessTokens({TOKEN: "*"})
    with serving(root, tokens=tokens, link_lifetime_s=link_lifetime_s, middleware=faults.around) as server:
        yield RunningHub(server.endpoint, root, faults)


def write_model(folder: Path, *, seed: int = 0, sizes: tuple[int, ...] = (3_000_000, 70_000)) -> Path:
    """Write a model with shards of ``sizes`` bytes, and things beside it that must not be mirrored.

    Equal seeds and sizes give equal bytes.  A shard has 128 bytes at least.
    """
    rng = random.Random(seed)  # noqa: S311 - filler
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes, 1):
        shard = safetensors(f"weight.{number}", rng.randbytes(size - HEADER_BYTES))
        (folder / f"model-{number}-of-{len(sizes)}.safetensors").write_bytes(shard)
    for name in ("config.json", "tokenizer.json", "onnx/config.json"):
        (folder / name).write_text(json.dumps({"name": name, "seed": seed}))
    (folder / "README.md").write_text("A model.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "onnx/model.onnx").write_bytes(b"onnx")
    return folder


def safetensors(name: str, data: bytes) -> bytes:
    """Return a valid safetensors file of one tensor of bytes; its length and header take ``HEADER_BYTES``."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({name: tensor}).encode().ljust(HEADER_BYTES - 8)
    assert len(header) == HEADER_BYTES - 8
    return struct.pack("<Q", len(header)) + header + data
