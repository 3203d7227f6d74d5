"""HTTP servers within a loop that runs already, on addresses of their own, which can end by TCP resets."""

import asyncio
import secrets
import socket
import struct
from ipaddress import IPv4Network

import uvicorn
from starlette.types import ASGIApp

from tests.fakes.asgi import PromptServer


def begin(application: ASGIApp, bound: list[socket.socket]) -> tuple[PromptServer, asyncio.Task[None]]:
    """Begin to serve on sockets that listen; returns the server and what ends when it has stopped."""
    config = uvicorn.Config(
        application,
        interface="asgi3",
        log_config=None,
        lifespan="off",
        ws="none",
        http="h11",
        timeout_keep_alive=600,
    )
    server = PromptServer(config)
    return server, asyncio.create_task(server.serve(sockets=bound))


async def end(server: PromptServer, serving: asyncio.Task[None]) -> None:
    """Stop a server, even one that has only just begun, and reset what came in while it stopped.

    asyncio takes three turns of its loop from accepting a connection to telling the server of it.
    """
    await started(server, serving)
    server.stop()
    await serving
    for _ in range(3):
        await asyncio.sleep(0)
        for connection in list(server.server_state.connections):
            reset(connection.transport)


async def started(server: PromptServer, serving: asyncio.Task[None]) -> None:
    """Wait until a server answers."""
    while not server.ready.is_set() and not serving.done():  # noqa: ASYNC110 - its event is one of threads
        await asyncio.sleep(0)


def bind(ip: str, network: IPv4Network, ports: tuple[int, ...]) -> tuple[str, list[socket.socket]]:
    """Return an address, and sockets that listen on its ports: ``ip``, or one of the network that is free."""
    while True:
        host = ip or str(network[1 + secrets.randbelow(network.num_addresses - 2)])
        bound: list[socket.socket] = []
        try:
            bound.extend(socket.create_server((host, port)) for port in ports)
        except OSError:
            for one in bound:
                one.close()
            if ip:
                raise
            continue
        return host, bound


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset: a linger of zero seconds."""
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
