"""The real embedded Hub, run in a thread of the test process for as long as a block lasts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import LINK_LIFETIME_S, HubServer

_START_S = 10.0
_STOP_S = 15.0


@contextmanager
def serving(
    root: Path,
    *,
    tokens: AccessTokens | None = None,
    link_lifetime_s: float = LINK_LIFETIME_S,
    middleware: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Iterator[HubServer]:
    """Serve ``root`` on two free ports; the block gets the server with both addresses."""
    ready = threading.Event()
    server = HubServer(
        root, tokens=tokens, link_lifetime_s=link_lifetime_s, middleware=middleware, on_ready=ready.set
    )
    thread = threading.Thread(target=server.run, name="hub", daemon=True)
    thread.start()
    try:
        assert ready.wait(_START_S), "the Hub did not start"
        yield server
    finally:
        server.should_exit = True
        thread.join(_STOP_S)
        assert not thread.is_alive(), "the Hub did not stop"
