"""What every request and answer of a release passes: the paths that exist, and the headers that say who answered.

Plain ASGI, so that a stream is passed on piece by piece.  Both wrap vLLM's whole application, its error handling
included: an answer without the release's headers did not come from the release.

Only listed paths exist.  vLLM's API key covers ``/v1`` and little else, and it adds routes from version to
version (``/invocations`` serves chat unguarded); what is not listed answers 404.
"""

import json
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
    """Adds the release and its commit to every answer, and while draining asks clients to reconnect.

    ``Connection: close`` is what moves a kept-alive client to the release that now has the address: without it
    the client stays on this one until it is cut.
    """

    def __init__(self, app: App, release: str, commit: str) -> None:
        self._app = app
        self._headers = [
            (b"x-slipway-release", release.encode("latin-1")),
            (b"x-slipway-commit", commit.encode("latin-1")),
        ]
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and mark the start of its answer."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._mark(message.get("headers", ()))}
            await send(message)

        await self._app(scope, receive, marked if scope["type"] == "http" else send)

    def _mark(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = [*self._headers, *([(b"connection", b"close")] if self.draining else [])]
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
