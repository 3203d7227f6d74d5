"""Runs the Hub on loopback: one process, one event loop, two listeners that stand for two hosts.

The second listener has its own port, so that clients see another origin and have to drop their token, as they
do between the real Hub and its CDN.
"""

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks._listening import bind
from tasks.errors import MachineError
from tasks.local.hub.access import AccessTokens, SignedLinks
from tasks.local.hub.application import Hub
from tasks.local.hub.content import content_host

LOOPBACK = "127.0.0.1"
LINK_LIFETIME_S = 3600.0
GRACE_S = 5
"""Seconds that open downloads get to finish when the server is told to stop."""


class HubServer(uvicorn.Server):
    """The Hub, bound to its ports on creation and serving once ``run`` is called.

    ``endpoint`` and ``content_endpoint`` are the two base URLs; port 0 takes a free port.  ``middleware``
    wraps the whole application, both listeners, and is the place for faults; it tells the listeners apart by
    ``scope["server"]``.  ``on_ready`` is called once, when both accept connections.  SIGTERM and SIGINT end
    ``run`` in good order.  Raises ``MachineError`` when a port is taken.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        content_port: int = 0,
        tokens: AccessTokens | None = None,
        link_lifetime_s: float = LINK_LIFETIME_S,
        middleware: Callable[[ASGIApp], ASGIApp] | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        hub = _bind(port)
        try:
            content = _bind(content_port)
        except MachineError:
            hub.close()
            raise
        self._bound = [hub, content]
        self._on_ready = on_ready
        self.endpoint, self.content_endpoint = _address(hub), _address(content)
        links = SignedLinks(self.content_endpoint, lifetime_s=link_lifetime_s)
        routes = Hub(root, endpoint=self.endpoint, tokens=tokens or AccessTokens(), links=links).application()
        application: ASGIApp = _ByListener({_port(hub): routes, _port(content): content_host(root, links)})
        config = uvicorn.Config(
            middleware(application) if middleware else application,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,  # it would write signed links down
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve both listeners until told to stop."""
        await super().serve(sockets=sockets or self._bound)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets=sockets)
        self._on_ready()

    def handle_exit(self, _sig: int, _frame: object) -> None:
        """End the loop; uvicorn's own handler would raise the signal again and spoil the exit status."""
        self.should_exit = True


class _ByListener:
    """Hands a request to the application of the port it came in on."""

    def __init__(self, applications: dict[int, ASGIApp]) -> None:
        self._applications = applications

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._applications[scope["server"][1]](scope, receive, send)


def _bind(port: int) -> socket.socket:
    return bind(LOOPBACK, port, who="The Hub", remedy="Choose another port, or 0 for a free one.")


def _port(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def _address(bound: socket.socket) -> str:
    return f"http://{LOOPBACK}:{_port(bound)}"
