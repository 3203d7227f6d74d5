"""Free TCP ports on 127.0.0.1.

Taken from below the kernel's range for outgoing connections (32768 and up by default), because a port from
that range may be given to somebody's connection between choosing and listening.
"""

import contextlib
import random
import socket
from collections.abc import Collection

import psutil

from tasks.errors import MachineError

HOST = "127.0.0.1"
_RANGE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(*, taken: Collection[int] = (), beside: int = 0) -> int:
    """Return a free port, whose neighbour ``beside`` higher is free too; ``MachineError`` where none is left."""
    for port in random.sample(_RANGE, len(_RANGE)):
        both = {port, port + beside}
        if max(both) < _RANGE.stop and not both & set(taken) and all(map(is_free, both)):
            return port
    raise MachineError(
        f"No port between {_RANGE.start} and {_RANGE.stop} is free.", remedy="Stop what listens on them."
    )


def demand(name: str, port: int) -> int:
    """Return a port that a person asked for; raises ``MachineError`` naming its holder where known."""
    if is_free(port):
        return port
    raise MachineError(
        f"Port {port}, asked for {name}, is taken{_holder(port)}.",
        remedy="Stop that program, or leave the port out and a free one is chosen.",
    )


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address = tuple(connection.laddr)
            if connection.status == psutil.CONN_LISTEN and address[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
