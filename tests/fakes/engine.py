"""A small server that speaks the OpenAI protocol as vLLM does, and breaks it in chosen ways.

It promises what the payload promises: ``/v1/chat/completions`` and ``/v1/completions``, plain and streaming,
``/v1/models`` and ``/health``, with ``x-slipway-release`` and ``x-slipway-commit`` on every answer.  A
request keeps the release it started on, as an open stream does in a real cluster.  Tests reach it over real
sockets, so that a cut, a reset or a hang is what a client of a real engine would meet.

    engine = Engine(answer=lambda messages: "Paris.", release="chat-r1")
    with serving(engine) as url:
        ...
        engine.fault = Fault.CUT

Words stand for tokens: ``max_tokens`` counts them, and each is one event of a stream.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes import asgi
from tests.fakes.completions import (
    CHAT,
    TEXT,
    UNLIMITED_TOKENS,
    Endpoint,
    Generation,
    Messages,
    error_body,
    event,
    generate,
)


class Fault(StrEnum):
    """One way to misbehave.  Those said of streams leave plain requests alone."""

    NONE = "none"
    CUT = "cut"  # the connection is closed in the middle of the body
    RESET = "reset"  # TCP reset before any answer
    RESET_MIDWAY = "reset midway"  # TCP reset in the middle of a body
    HANG = "hang"  # no answer at all
    HANG_MIDWAY = "hang midway"  # a stream stops in the middle and stays open
    STATUS_500 = "500"
    STATUS_503 = "503"
    REDIRECT = "redirect"
    ERROR_BODY = "error body"  # status 200, and an error for a body
    ERROR_EVENT = "error event"  # a stream carries an error as vLLM reports one
    GARBAGE = "garbage"  # status 200, and a body or event that is not JSON
    NO_DONE = "no [DONE]"  # a stream ends in order, but without its last line
    NO_FINISH = "no finish_reason"
    ABORT = "abort"  # the engine gave the generation up: finish_reason abort
    NO_HEADERS = "no headers"  # neither release nor commit is named
    WRONG_HEADERS = "wrong headers"  # the names are no release and no commit
    SLOW_GAP = "slow gap"  # ``gap_s`` without an event in the middle of a stream
    EMPTY = "empty"  # no text, finish_reason stop


@dataclass(frozen=True)
class Seen:
    """One request as the engine saw it.  ``connection`` is the client's port: equal means kept alive."""

    path: str
    body: dict[str, Any]
    release: str
    connection: int
    at: float


class EngineCutError(Exception):
    """Ends a body in the middle; uvicorn then closes the connection."""


@dataclass
class Engine:
    """What the server answers; every public field may be changed while it serves.

    ``first_s`` is the time before the answer, ``delay_s`` that before each token, ``crowd_s`` what every other open
    request adds to that, ``gap_s`` the pause of ``Fault.SLOW_GAP``, all in seconds.  ``tool_arguments`` is what a
    plain request with tools gets called, ``None`` for text instead; ``json_text`` the answer where JSON is asked for.
    It reads only the last ``memory`` words of a message and nothing of the ``ignored`` fields of a body; ``strays``
    are the releases that some completions name, by how many came before.
    So many ``healthy_requests`` are answered before ``fault`` acts.  ``sticky`` lets a connection stay on the
    release that it met first, as behind a Service; releases in ``draining`` answer with ``Connection:
    close``.  ``seen`` is the log of completions.
    """

    answer: Callable[[Messages], str] = lambda _messages: "The capital of France is Paris."
    release: str = "chat-r1"
    commit: str = "1" * 40
    model: str = "chat"
    first_s: float = 0.0
    delay_s: float = 0.0
    crowd_s: float = 0.0
    tool_arguments: str | None = '{"city": "Paris"}'
    json_text: str = '{"answer": "yes"}'
    memory: int = UNLIMITED_TOKENS
    ignored: frozenset[str] = frozenset()
    strays: dict[int, str] = field(default_factory=dict)
    gap_s: float = 0.5
    fault: Fault = Fault.NONE
    healthy_requests: int = 0
    sticky: bool = False
    draining: set[str] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    _open: int = 0
    _met: dict[int, tuple[str, str]] = field(default_factory=dict)
    _server: uvicorn.Server | None = None

    def switch(self, release: str, commit: str) -> None:
        """Let requests that start from now on be answered by another release."""
        self.release, self.commit = release, commit

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/health", lambda _request: Response()),
                Route("/v1/models", self._models),
                Route(CHAT.path, partial(self._complete, CHAT), methods=["POST"]),
                Route(TEXT.path, partial(self._complete, TEXT), methods=["POST"]),
            ]
        )

    def _identity(self, request: Request) -> tuple[str, str]:
        now = (self.strays.get(len(self.seen), self.release), self.commit)
        return self._met.setdefault(_port(request), now) if self.sticky else now

    def _headers(self, release: str, commit: str, fault: Fault) -> dict[str, str]:
        if fault is Fault.NO_HEADERS:
            return {}
        if fault is Fault.WRONG_HEADERS:
            return {"x-slipway-release": "latest", "x-slipway-commit": "main"}
        closing = {"connection": "close"} if release in self.draining else {}
        return {"x-slipway-release": release, "x-slipway-commit": commit} | closing

    def _take_fault(self) -> Fault:
        if self.fault is not Fault.NONE and self.healthy_requests > 0:
            self.healthy_requests -= 1
            return Fault.NONE
        return self.fault

    async def _models(self, request: Request) -> Response:
        card = {"id": self.model, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
        headers = self._headers(*self._identity(request), self.fault)
        return JSONResponse({"object": "list", "data": [card]}, headers=headers)

    async def _complete(self, endpoint: Endpoint, request: Request) -> Response:
        release, commit = self._identity(request)
        fault = self._take_fault()
        headers = self._headers(release, commit, fault)
        try:
            body = await request.json()
            messages = self._remembered(endpoint.messages(body))
        except (ValueError, KeyError, TypeError) as error:
            return _error(400, f"{type(error).__name__}: {error}", "BadRequestError", headers)
        self.seen.append(Seen(request.url.path, body, release, _port(request), time.monotonic()))
        if body.get("model") != self.model:
            return _error(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError", headers)
        early = await self._without_generation(request, fault, headers)
        if early is not None:
            return early
        text = self.json_text if body.get("response_format") else self.answer(messages)
        heard = {key: value for key, value in body.items() if key not in self.ignored}
        generation = generate(endpoint, heard, messages, "" if fault is Fault.EMPTY else text, self._call(body))
        finish = {Fault.ABORT: "abort", Fault.NO_FINISH: None}.get(fault, generation.finish)
        if body.get("stream"):
            events = self._counted(self._events(request, generation, finish, fault))
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        with self._opened():
            await asyncio.sleep(self.first_s + self._token_s * len(generation.tokens))
        content = generation.whole(finish)
        if fault in (Fault.CUT, Fault.RESET_MIDWAY):
            headers["content-length"] = str(len(content))
            half = self._half(request, content, fault)
            return StreamingResponse(half, media_type="application/json", headers=headers)
        return Response(content, media_type="application/json", headers=headers)

    def _remembered(self, messages: Messages) -> Messages:
        if self.memory == UNLIMITED_TOKENS:
            return messages
        return [message | {"content": " ".join(message["content"].split()[-self.memory :])} for message in messages]

    def _call(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """Return the call of the first tool that is offered, if this engine calls any."""
        if not body.get("tools") or self.tool_arguments is None:
            return None
        return body["tools"][0]["function"]["name"], self.tool_arguments

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Count one open request."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @property
    def _token_s(self) -> float:
        return self.delay_s + self.crowd_s * (self._open - 1)

    async def _without_generation(self, request: Request, fault: Fault, headers: dict[str, str]) -> Response | None:
        """Return the answer of a fault that needs no generation, or none."""
        match fault:
            case Fault.STATUS_500 | Fault.STATUS_503 | Fault.ERROR_BODY:
                status = 200 if fault is Fault.ERROR_BODY else int(fault.value)
                return _error(status, "The engine is dead.", "InternalServerError", headers)
            case Fault.REDIRECT:
                return Response(status_code=307, headers=headers | {"location": "/v1/models"})
            case Fault.GARBAGE:
                return Response("<html>Bad gateway</html>", media_type="text/html", headers=headers)
            case Fault.RESET | Fault.HANG:
                if fault is Fault.RESET:
                    self._reset(request)
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                return Response()
        return None

    async def _counted(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        with self._opened():
            async for one in events:
                yield one

    async def _events(
        self, request: Request, generation: Generation, finish: str | None, fault: Fault
    ) -> AsyncIterator[str]:
        part, tokens = generation.endpoint.part, generation.tokens
        if generation.endpoint.is_chat:
            yield generation.event(part("", role="assistant"))
        await asyncio.sleep(self.first_s)
        for number, token in enumerate(tokens):
            await asyncio.sleep(self._token_s)
            if number == len(tokens) // 2:
                if fault is Fault.ERROR_EVENT:
                    yield event(error_body("The engine is dead.", "InternalServerError", 500))
                    break
                await self._midway(request, fault)
            yield generation.event(part(token))
        else:
            yield generation.event(part(""), finish)
        if ((await request.json()).get("stream_options") or {}).get("include_usage"):
            yield event(generation.base | {"choices": [], "usage": generation.usage})
        if fault is not Fault.NO_DONE:
            yield "data: [DONE]\n\n"

    async def _half(self, request: Request, content: bytes, fault: Fault) -> AsyncIterator[bytes]:
        yield content[: len(content) // 2]
        await asyncio.sleep(0.02)
        await self._midway(request, fault)

    async def _midway(self, request: Request, fault: Fault) -> None:
        match fault:
            case Fault.CUT:
                raise EngineCutError
            case Fault.RESET_MIDWAY:
                self._reset(request)
                await asyncio.Event().wait()
            case Fault.HANG_MIDWAY:
                await asyncio.Event().wait()
            case Fault.SLOW_GAP:
                await asyncio.sleep(self.gap_s)

    def _reset(self, request: Request) -> None:
        """Close the request's connection with a TCP reset: a linger of zero seconds."""
        assert self._server is not None
        for protocol in list(self._server.server_state.connections):
            if getattr(protocol, "client", None) == tuple(request.scope["client"]):
                raw = protocol.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                protocol.transport.abort()


def _port(request: Request) -> int:
    return int(request.scope["client"][1])


def _error(status: int, message: str, kind: str, headers: dict[str, str]) -> Response:
    return JSONResponse(error_body(message, kind, status), status_code=status, headers=headers)


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """Serve ``engine`` on a free port of the loopback and give its base URL; it ends with the block."""
    with asgi.serving(engine.application()) as (url, engine._server):
        yield url
