"""Serves an ASGI application from a thread of the test process, and stops at once.

uvicorn looks every tenth of a second whether it should end, and then waits for its connections.  A test that has
seen what it wanted needs neither, and there are hundreds of them: here the server waits to be told, and cuts what
is still open.  How the product's own server ends in good order is seen where that runs as a process.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"
START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 15.0


class PromptServer(uvicorn.Server):
    """A server that begins and ends without a poll; stands before another server class as a mixin."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ready = threading.Event()
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """End ``run``, from any thread, once ``ready`` is set."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._told.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so.

        asyncio turns Nagle's algorithm off where the socket names its protocol, which those of ``create_server``
        do not; with it, an answer in two writes waits 40 ms for the acknowledgement of the first.
        """
        self._loop = asyncio.get_running_loop()
        for bound in sockets or []:
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        await self.on_tick(0)
        await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn names it
        """Accept no more, cut what is open, and cancel what was being answered."""
        for listener in self.servers:
            for bound in listener.sockets:
                asyncio.get_running_loop().remove_reader(bound.fileno())
        await _turns(3)  # a connection just accepted is known after two, and lost if its listener closes before
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns(1)  # a connection that was cut is closed in the next


async def _turns(count: int) -> None:
    """Let the loop turn ``count`` times."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def running(server: PromptServer, *bound: socket.socket) -> Iterator[None]:
    """Run ``server`` until the block is left, on the ``bound`` sockets or on those that it has itself."""
    thread = threading.Thread(target=server.run, args=[list(bound) or None], name="server", daemon=True)
    thread.start()
    assert server.ready.wait(START_DEADLINE_S), "the server did not start"
    try:
        yield
    finally:
        server.stop()
        thread.join(STOP_DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serving(application: ASGIApp) -> Iterator[tuple[str, PromptServer]]:
    """Serve ``application`` on a free port of the loopback; gives its base URL and the server."""
    config = uvicorn.Config(
        application, log_config=None, lifespan="off", ws="none", http="h11", timeout_keep_alive=600
    )
    server, bound = PromptServer(config), socket.create_server((LOOPBACK, 0))
    with running(server, bound):
        yield f"http://{LOOPBACK}:{bound.getsockname()[1]}", server
