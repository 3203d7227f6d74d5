"""The receiver as an ASGI application: ``POST /webhook``, and pages for those who watch it.

What a call costs follows from what its caller has shown.  Without a secret: a look at its headers and one answer, the
same whatever was wrong; its body is not read.  With one: a bounded body within a bounded time, while not too many
others are in hand.  Only what concerns a service reaches ``Desk``.

| answer | when |
|---|---|
| 202 | a run looks at the ref: a new one, one that has not begun, or the one that was asked for this commit before |
| 200 | understood, and nothing to do: another ref, a deletion, an event of another kind |
| 401 | no secret, or a wrong one |
| 404 | no service serves this model, or the Hub does not know the ref |
| 408, 413, 422 | the body came too slowly, is too large, or says nothing that can be used |
| 429 | too many genuine calls at once; ``Retry-After`` says when to call again |
| 503 | Prefect (or, where the commit is not told, the Hub) does not answer |

Nobody needs to call again: what is missed here is found by the schedule of ``refresh``.  Hugging Face does not.
"""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tasks._receiver.counts import CONTENT_TYPE, Counts
from tasks._receiver.desk import Asked, Desk
from tasks._receiver.keys import Keys
from tasks._receiver.payload import Said, read_payload
from tasks._receiver.services import Services
from tasks.errors import BadInput, NotFound, SlipwayError

PATH = "/webhook"
RETRY_AFTER_S = 5
BODY_S = 10.0
"""The longest that a body may take; those of Hugging Face are a few kilobytes."""
LINGER_S = 1.0
ANSWER_S = 20.0
"""The longest that Prefect is waited for; a run may still come of a call that was told 503."""

log = logging.getLogger("slipway.receiver")


class Answer(Exception):
    """Ends a call with a status and a sentence."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


class Watched(Protocol):
    """What tells whether Prefect answers; empty when it does."""

    trouble: str


class Receiver:
    """Answers calls; ``body_bytes`` and ``calls`` bound what genuine ones may take of memory."""

    def __init__(
        self, keys: Keys, services: Services, desk: Desk, counts: Counts, *, prefect: Watched, limits: tuple[int, int]
    ) -> None:
        self._keys, self._services, self._desk, self._counts = keys, services, desk, counts
        self._prefect = prefect
        self._body_bytes, self._calls = limits
        self._in_hand = 0
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        self._pages = Starlette(routes=[Route(path, page) for path, page in pages.items()])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] != PATH:
            await self._pages(scope, receive, send)
        elif not self._keys.fit(scope["headers"]):
            self._counts.refuse()
            await send(_LEAVE if _is_long(scope["headers"], self._body_bytes) else _REFUSED)
            await send(_NO_BODY)
        else:
            await self._called(scope, receive, send)

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a genuine call, so that the answer is seen also by who still sends a body that nobody wants."""
        self._counts.genuine()
        headers = {}
        try:
            status, told = await self._answer(scope, receive)
        except Answer as answer:
            status, told = answer.status, {"error": answer.said}
            unread = status in _UNREAD and _is_long(scope["headers"], self._body_bytes)
            headers = {"connection": "close"} if unread or status in _CUT else {}
            headers |= {"retry-after": str(RETRY_AFTER_S)} if status in _LATER else {}
            log.info("a genuine call was answered %d: %s", status, answer.said)
        self._counts.answered(status)
        response = JSONResponse(told, status, headers)
        await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": status in _CUT})
        if status in _CUT:
            await _listen(receive)
            await send({"type": "http.response.body"})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Any]]:
        if scope["method"] != "POST":
            raise Answer(405, "A webhook is called with POST.")
        with self._counted():
            said = _read(await self._body(scope, receive))
            if not self._services.knows(said.model):
                raise Answer(404, "No service here serves this model.")
            asked = await self._asked(said)
        for one in asked:
            if one.new:
                self._counts.started(one.service)
        log.info("%s: %s %s: %s", said.sender, said.model, _refs(said), _runs(asked) or "nothing to do")
        if not asked:
            return 200, {"runs": [], "ignored": said.why or "no service follows a ref that moved"}
        return 202, {"runs": [one.model_dump(mode="json") for one in asked]}

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._in_hand >= self._calls:
            raise Answer(429, "Too many calls are in hand.")
        self._in_hand += 1
        self._counts.in_hand.set(self._in_hand)
        try:
            yield
        finally:
            self._in_hand -= 1
            self._counts.in_hand.set(self._in_hand)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if _declared(scope["headers"]) > self._body_bytes:
            raise Answer(413, f"A body has at most {self._body_bytes} bytes.")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > self._body_bytes:
                        raise Answer(413, f"A body has at most {self._body_bytes} bytes.")
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise Answer(408, f"A body comes within {BODY_S:g} seconds.") from None

    async def _asked(self, said: Said) -> tuple[Asked, ...]:
        """Return the runs that will look at what moved; one for each service, whatever of its refs moved."""
        calls = {}
        for moved in said.moved:
            for service in self._services.following(said.model, moved.ref):
                calls[service] = moved.commit
        try:
            async with asyncio.timeout(ANSWER_S):
                return tuple(await asyncio.gather(*(self._desk.ask(*call) for call in calls.items())))
        except NotFound as error:
            raise Answer(404, str(error)) from error
        except SlipwayError as error:
            log.error("no run can be asked for: %s", error)  # noqa: TRY400 - the sentence says it all
            raise Answer(503, "No run can be asked for now; the schedule will look.") from error
        except TimeoutError:
            log.error("no run can be asked for: no answer within %g seconds", ANSWER_S)  # noqa: TRY400
            raise Answer(503, "No run could be asked for in time; the schedule will look.") from None

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        """Say whether calls can lead to something; a broken spec keeps only its own service from changing."""
        ready = not self._prefect.trouble and self._services.count > 0
        told = {
            "ready": ready,
            "prefect": self._prefect.trouble or "answers",
            "services": self._services.count,
            "broken_specs": sorted(self._services.trouble),
            "secrets": "kept from before: they cannot be read now" if self._keys.trouble else "good",
        }
        return JSONResponse(told, 200 if ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self._counts.page(), media_type=CONTENT_TYPE)


_UNREAD, _CUT = frozenset({405, 429}), frozenset({408, 413})
_LATER = frozenset({429, 503})
_SORRY = json.dumps({"error": "The secret is missing or wrong."}).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_SORRY)).encode()),
    (b"www-authenticate", b"Bearer"),
]
_REFUSED = {"type": "http.response.start", "status": 401, "headers": _HEADERS}
_LEAVE = {"type": "http.response.start", "status": 401, "headers": [*_HEADERS, (b"connection", b"close")]}
_NO_BODY = {"type": "http.response.body", "body": _SORRY}


def _read(body: bytes) -> Said:
    try:
        return read_payload(body)
    except BadInput as error:
        raise Answer(422, str(error)) from error


async def _listen(receive: Receive) -> None:
    """Let a caller who is still sending see the answer: closing at once would reset the connection before that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive())["type"] != "http.disconnect":
                pass


def _is_long(headers: Iterable[tuple[bytes, bytes]], most: int) -> bool:
    """Return whether the body of a refused call is not worth waiting for, to keep its connection."""
    return not 0 <= _declared(headers) <= most


def _declared(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the declared length of a body: 0 where there is none, -1 where it comes in chunks of unknown number."""
    length = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return -1
        if name == b"content-length":
            length = int(value) if value.isdigit() else -1
    return length


def _refs(said: Said) -> str:
    return ", ".join(repr(moved.ref) for moved in said.moved[:5])


def _runs(asked: tuple[Asked, ...]) -> str:
    return ", ".join(f"{one.service} {'starts' if one.new else 'has'} run {one.run}" for one in asked)
