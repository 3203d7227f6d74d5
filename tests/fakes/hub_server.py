"""The real embedded Hub, run in a thread of the test process for as long as a block lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import LINK_LIFETIME_S, HubServer
from tests.fakes.asgi import PromptServer, running


class _PromptHub(PromptServer, HubServer):
    """The Hub as it is, but for how it ends."""


@contextmanager
def serving(
    root: Path,
    *,
    tokens: AccessTokens | None = None,
    link_lifetime_s: float = LINK_LIFETIME_S,
    middleware: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Iterator[HubServer]:
    """Serve ``root`` on two free ports; the block gets the server with both addresses."""
    server = _PromptHub(root, tokens=tokens, link_lifetime_s=link_lifetime_s, middleware=middleware)
    with running(server):
        yield server
