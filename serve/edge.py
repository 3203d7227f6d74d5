"""What every request and answer of a release passes: the paths that exist, and the headers that say who answered.

Plain ASGI, so that a stream is passed on piece by piece.  Both wrap vLLM's whole application, its error handling
included: an answer without the release's headers did not come from the release.

Only listed paths exist.  vLLM's API key covers ``/v1`` and little else, and it adds routes from version to
version (``/invocations`` serves chat unguarded); what is not listed answers 404.

Every request gets an id that begins with the release, ``chat-r7-3f2b...``, so that the id alone tells later who
answered.  vLLM takes it from the request's ``x-request-id`` and shows it in its log and in the ``id`` of each
completion; ``x-slipway-request`` says it on every answer, errors included.  Behind the release is the client's own
id, or Serve's.  Serve adds an ``x-request-id`` of its own to the answer, without the release; a second header of that
name would be read as part of the first.
"""

import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIXES = ("/v1/",)
PATHS = frozenset({"/health", "/metrics", "/version"})
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
PLAIN_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)
"""Ids that are taken as they come; any other could forge a line of a log, and gets a new one."""


class AllowedPaths:
    """Answers 404 for every path that is not listed."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request for a listed path."""
        if scope["type"] == "lifespan" or _allowed(_route(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            await _not_found(send)


class ReleaseHeaders:
    """Adds release, commit and the request's id to every answer, and while draining asks clients to reconnect.

    ``Connection: close`` is what moves a kept-alive client to the release that now has the address: without it
    the client stays on this one until it is cut.
    """

    def __init__(self, app: App, release: str, commit: str) -> None:
        self._app, self._release = app, release.encode("latin-1")
        self._headers = [
            (b"x-slipway-release", self._release),
            (b"x-slipway-commit", commit.encode("latin-1")),
        ]
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its id and mark the start of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        others = [(name, value) for name, value in scope.get("headers", ()) if name.lower() != b"x-request-id"]
        named = self._named(scope.get("headers", ()))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._mark(message.get("headers", ()), named)}
            await send(message)

        await self._app({**scope, "headers": [*others, (b"x-request-id", named)]}, receive, marked)

    def _named(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the id of a request: the release, then the id that it came with or a new one."""
        told = next((value for name, value in headers if name.lower() == b"x-request-id"), b"")
        given = told if PLAIN_ID.fullmatch(told) else uuid.uuid4().hex.encode()
        return self._release + b"-" + given

    def _mark(self, headers: Iterable[tuple[bytes, bytes]], named: bytes) -> list[tuple[bytes, bytes]]:
        draining = [(b"connection", b"close")] if self.draining else []
        own = [*self._headers, (b"x-slipway-request", named), *draining]
        names = {name for name, _ in own}
        return [*((name, value) for name, value in headers if name.lower() not in names), *own]


def _route(scope: Scope) -> str:
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _allowed(path: str) -> bool:
    return path in PATHS or path.startswith(PREFIXES)


async def _not_found(send: Send) -> None:
    error = {"message": "There is nothing at this path.", "type": "NotFoundError", "code": 404}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
