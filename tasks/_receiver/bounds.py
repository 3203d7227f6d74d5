"""The receiver's server: what a connection may take before it has said anything, and how the server ends.

uvicorn bounds neither how long nor how large the head of a request may be, nor how many connections there are, and
keeps requests that are sent ahead of answers in memory.  Here a connection has ``MESSAGE_S`` for each whole request
and ``HEAD_BYTES`` for its head, and may not send ahead.  When there are too many, the one that has been quiet for
longest goes: those that only hold a connection make room for those that say something.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tasks._listening import bind

MESSAGE_S = 15.0
"""Seconds from one whole request to the next, or from the connection to the first."""
HEAD_BYTES = 32 * 1024
OVERHEAD, LEFT = 8, 4 * 1024 * 1024
"""Bytes on the wire for each byte of a body in the smallest chunks, and some; and what may come after the answer."""
GRACE_S = 25
"""Seconds that calls in hand have to be answered when the server is told to stop; Kubernetes gives 30."""
BACKLOG = 1024


class Bounds:
    """What all connections of a server share: ``quiet`` holds those that are not being answered, oldest first."""

    def __init__(self, *, connections: int, body_bytes: int) -> None:
        self.connections, self.message_bytes = connections, HEAD_BYTES + OVERHEAD * body_bytes + LEFT
        self.quiet: dict[BoundedProtocol, None] = {}

    def make_room(self) -> None:
        """Close the connection that has been quiet for longest."""
        quietest = next(iter(self.quiet), None)
        if quietest is not None:
            del self.quiet[quietest]
            quietest.transport.abort()

    def protocol(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "BoundedProtocol":
        """Return the protocol of a new connection, by uvicorn's names."""
        return BoundedProtocol(self, config, server_state, app_state, _loop)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when it takes too much, too long, or a place that others need."""

    def __init__(
        self,
        bounds: Bounds,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._bounds = bounds
        self._taken, self._in_head = 0, True
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, that of the quietest one where there is none."""
        super().connection_made(transport)
        self._rest()
        self._timer = self.loop.call_later(MESSAGE_S, self._late)
        if len(self.connections) > self._bounds.connections:
            self._bounds.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place to others."""
        super().connection_lost(exc)
        self._bounds.quiet.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on, unless it has become too much."""
        self._taken += len(data)
        super().data_received(data)
        if self._taken > (HEAD_BYTES if self._in_head else self._bounds.message_bytes):
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin to answer; a request that was sent ahead of the answer to another ends the connection."""
        self._in_head = False
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        self._bounds.quiet.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, unless nobody will read it."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Count anew for the next request."""
        self._taken, self._in_head = 0, True
        self._since = self.loop.time()
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Be quiet again."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._rest()

    def _rest(self) -> None:
        self._since = self.loop.time()
        self._bounds.quiet[self] = None

    def _late(self) -> None:
        """Close a connection whose next request has not come whole in time; one that is being answered stays."""
        left = self._since + MESSAGE_S - self.loop.time()
        if left <= 0 and self in self._bounds.quiet:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(max(left, 1.0), self._late)


class ReceiverServer(uvicorn.Server):
    """The receiver, bound to its port on creation and serving once ``run`` is called; port 0 takes a free one.

    ``on_ready`` is told its base URL when it accepts connections.  SIGTERM and SIGINT end ``run`` when the calls in
    hand are answered, or ``GRACE_S`` later.  Raises ``MachineError`` when the port is taken.
    """

    def __init__(
        self, application: ASGIApp, host: str, port: int, bounds: Bounds, on_ready: Callable[[str], None]
    ) -> None:
        self._on_ready = on_ready
        self._bound = bind(
            host,
            port,
            who="The receiver",
            remedy="Set SLIPWAY_RECEIVER__PORT to another port, or to 0 for a free one.",
        )
        named = f"[{host}]" if ":" in host else host
        self._address = f"http://{named}:{self._bound.getsockname()[1]}"
        config = uvicorn.Config(
            application,
            http=bounds.protocol,  # type: ignore[arg-type]  # makes a protocol as the class of one would
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,  # the application writes one line for each genuine call; forged ones are counted
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(MESSAGE_S),
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        await super().serve(sockets=sockets or [self._bound])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets=sockets)
        self._on_ready(self._address)

    def handle_exit(self, _sig: int, _frame: object) -> None:
        """End the loop; uvicorn's own handler would raise the signal again and spoil the exit status."""
        self.should_exit = True
