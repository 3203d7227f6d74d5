"""What proxies that break requests on order share: the connections, the orders, and the memory of what was asked.

A proxy derives ``Exchange``, which says what becomes of one request, and ``Orders``, which says whose it is.
"""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, NoReturn, Protocol, TypeVar

PIECE = 64 * 2**10
"""Bytes read and passed on at once."""
SERVER_TIMEOUT_S = 60.0
STOP_DEADLINE_S = 10.0


@dataclass(frozen=True)
class LoseReply:
    """Pass the request on, and close the connection where its reply should come."""


@dataclass(frozen=True)
class Delay:
    """Wait so many seconds, then pass the request on."""

    seconds: float


class Broken(Protocol):
    """One request as it came, with the fault that it is to meet."""

    fault: Any


SeenT = TypeVar("SeenT", bound=Broken)


@dataclass
class Rule(Generic[SeenT]):
    """One fault for requests that fit: ``skip`` of them pass first, then ``times`` are broken; with None all are."""

    fault: Any
    fits: Callable[[SeenT], bool]
    times: int | None
    skip: int


@dataclass
class Orders(Generic[SeenT]):
    """What goes wrong, and what was asked; for any thread, while a proxy serves."""

    requests: list[SeenT] = field(default_factory=list)
    _rules: list[Rule[SeenT]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Break nothing more and forget what was asked."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def next(self, method: str, target: str) -> SeenT:
        """Note a request, with the fault that it is to meet."""
        seen = self.seen(method, target)
        with self._lock:
            seen.fault = self._choose(seen)
            self.requests.append(seen)
        return seen

    def seen(self, method: str, target: str) -> SeenT:
        """Return a request as it is noted."""
        raise NotImplementedError

    def order(self, fault: Any, fits: Callable[[SeenT], bool], times: int | None, skip: int) -> None:
        """Break requests that fit, after the faults that were ordered before."""
        with self._lock:
            self._rules.append(Rule(fault, fits, times, skip))

    def those(self, fits: Callable[[SeenT], bool]) -> list[SeenT]:
        """Return the requests so far that fit."""
        with self._lock:
            return [seen for seen in self.requests if fits(seen)]

    def _choose(self, seen: SeenT) -> Any:
        for rule in self._rules:
            if rule.times == 0 or not rule.fits(seen):
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            if rule.times is not None:
                rule.times -= 1
            return rule.fault
        return None


class Proxy(ThreadingHTTPServer):
    """The server of connections, each with a thread of its own, all of which end with it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, exchange: type["Exchange"], orders: Orders[Any]) -> None:
        super().__init__(("127.0.0.1", 0), exchange)
        self.orders = orders
        self.ending = threading.Event()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()

    def enter(self, connection: socket.socket) -> None:
        """Know of a connection, to be cut at the end."""
        with self._guard:
            self._open.add(connection)

    def leave(self, connection: socket.socket) -> None:
        """Forget a connection that ends by itself."""
        with self._guard:
            self._open.discard(connection)

    def cut_all(self) -> None:
        """End every connection, so that its thread ends."""
        self.ending.set()
        with self._guard:
            for connection in self._open:
                hang_up(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that break off are what this is for."""


@contextmanager
def serving(exchange: type["Exchange"], orders: Orders[Any]) -> Iterator[str]:
    """Run a proxy until the block is left; yields its URL."""
    proxy = Proxy(exchange, orders)
    thread = threading.Thread(target=proxy.serve_forever, args=[0.01], name=exchange.__module__, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.cut_all()
        proxy.server_close()  # which waits for the threads
        thread.join(STOP_DEADLINE_S)


class CutError(Exception):
    """The connection to the client is to end now."""


class Exchange(BaseHTTPRequestHandler):
    """The requests of one client connection, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy
    connection: socket.socket

    def setup(self) -> None:
        """Begin with a connection."""
        super().setup()
        self.server.enter(self.connection)

    def finish(self) -> None:
        """End with a connection."""
        self.server.leave(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def exchange(self, seen: Any) -> None:
        """Answer one request, as the fault that it meets has it."""
        raise NotImplementedError

    def _serve(self) -> None:
        seen = self.server.orders.next(self.command, self.path)
        try:
            self.exchange(seen)
        except (CutError, OSError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server names them

    def stall(self) -> NoReturn:
        """Wait until the client has gone, or all ends."""
        while self.connection.recv(PIECE):
            pass
        raise CutError


def hang_up(connection: socket.socket) -> None:
    """End a connection that another thread may be reading."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
