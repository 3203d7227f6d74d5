"""A socket to listen on, opened before a server starts, so that a port that is taken is a clear error."""

import socket

from tasks.errors import MachineError


def bind(host: str, port: int, *, who: str, remedy: str) -> socket.socket:
    """Return a socket bound to ``port`` (0: a free one), not listening yet; ``who`` is named where that fails.

    Raises ``MachineError``.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off only for a socket that names it.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise MachineError(f"{who} cannot listen on {host}:{port}: {error.strerror}.", remedy=remedy) from error
    return bound
