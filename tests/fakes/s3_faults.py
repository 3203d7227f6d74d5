"""Faults in front of a real S3 server: an HTTP proxy that passes requests on, and breaks those it was told to.

    with s3_faults(settings) as (faulty, faults):
        faults.add(Answer(503, "SlowDown"), "PUT", "partNumber=2")
        open_store(faulty)...

The ``Host`` header is passed on as it came: it is part of what a client signs.  ``Expect: 100-continue`` is answered
here, so that the whole body of a request is read whatever becomes of it.  Each request to the server has a connection
of its own; those of clients stay open, as S3's do.
"""

import http.client
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn
from urllib.parse import urlsplit

from tasks.settings import StoreSettings
from tests.fakes.breaking_proxy import PIECE, SERVER_TIMEOUT_S, CutError, Delay, Exchange, LoseReply, Orders, serving


@dataclass(frozen=True)
class Answer:
    """Answer with ``status`` and S3's error ``code`` instead of passing the request on.

    With status 200 that is how S3 reports that a completion failed after it had begun to answer.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Reset:
    """Reset the connection: after so many bytes of the request's body, which is not passed on, or of the reply's.

    With 0 not even the status comes.
    """

    request: int | None = None
    reply: int | None = None


@dataclass(frozen=True)
class Stall:
    """Say nothing until the client has gone; the request is passed on first if ``applied``.

    With ``reply`` it is passed on too, and that many bytes of the reply's body come first.
    """

    applied: bool = False
    reply: int | None = None


@dataclass(frozen=True)
class Damage:
    """Flip a bit of a body at a byte of it: of the request's, or of the reply's."""

    request: int | None = None
    reply: int | None = None


@dataclass(frozen=True)
class Shorten:
    """Close the connection after so many bytes of the reply's body, whatever length was declared."""

    reply: int


Fault = Answer | Reset | LoseReply | Stall | Delay | Damage | Shorten


@dataclass
class Seen:
    """One request as it came.  ``sent`` and ``received`` are bytes of bodies, as the client sees it.

    ``status`` is 0 while there is no reply; ``fault`` is what was done to it, ``stalls`` says that it waits for ever.
    """

    method: str
    path: str
    query: str
    fault: Fault | None
    sent: int = 0
    received: int = 0
    status: int = 0
    stalls: bool = False

    @property
    def place(self) -> str:
        """Return path and query, as they came."""
        return f"{self.path}?{self.query}"


@dataclass
class S3Faults(Orders[Seen]):
    """What goes wrong, and what was asked; for any thread, while the proxy serves."""

    upstream: str = field(kw_only=True)

    def add(self, fault: Fault, method: str = "", part: str = "", *, times: int | None = 1, skip: int = 0) -> None:
        """Break requests of ``method`` whose path and query hold ``part``; empty ones fit all.

        ``skip`` requests pass first, then ``times`` are broken; with None all are.
        """
        self.order(fault, partial(_fits, method, part), times, skip)

    def asked(self, method: str = "", part: str = "") -> list[Seen]:
        """Return the requests so far that fit."""
        return self.those(partial(_fits, method, part))

    def seen(self, method: str, target: str) -> Seen:
        """Return a request as it is noted."""
        address = urlsplit(target)
        return Seen(method, address.path, address.query, None)


def _fits(method: str, part: str, seen: Seen) -> bool:
    return seen.method.startswith(method) and part in seen.place


@contextmanager
def s3_faults(settings: StoreSettings) -> Iterator[tuple[StoreSettings, S3Faults]]:
    """Run the proxy until the block is left; yields the settings that lead through it, and its faults."""
    assert settings.endpoint
    faults = S3Faults(upstream=urlsplit(settings.endpoint).netloc)
    with serving(_Exchange, faults) as url:
        yield settings.model_copy(update={"endpoint": url}), faults


class _Exchange(Exchange):
    def exchange(self, seen: Seen) -> None:
        fault = seen.fault
        if isinstance(fault, Delay):
            self.server.ending.wait(fault.seconds)
        if isinstance(fault, Answer) or (isinstance(fault, Stall) and not fault.applied and fault.reply is None):
            for _ in self._body(seen):
                pass
            if isinstance(fault, Stall):
                self._stall(seen)
            self._answer(seen, fault)
            return
        assert isinstance(self.server.orders, S3Faults)
        upstream = http.client.HTTPConnection(self.server.orders.upstream, timeout=SERVER_TIMEOUT_S)
        try:
            self._relay(seen, self._forward(seen, upstream))
        finally:
            upstream.close()

    def _body(self, seen: Seen) -> Iterator[bytes]:
        """Yield the request's body; its length is declared, as that of every request of botocore's with one."""
        left = int(self.headers.get("content-length", 0))
        limit = seen.fault.request if isinstance(seen.fault, Reset) else None
        while left:
            piece = self.rfile.read1(min(left, PIECE))
            if not piece:
                raise CutError
            left -= len(piece)
            seen.sent += len(piece)
            if limit is not None and seen.sent >= limit:
                break
            yield piece
        if limit is not None:
            self._reset()

    def _forward(self, seen: Seen, upstream: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """Send the request on and return the server's reply, of which only the head was read."""
        assert "transfer-encoding" not in self.headers
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"expect", "connection"}:
                upstream.putheader(name, value)
        upstream.endheaders()
        damaged = seen.fault.request if isinstance(seen.fault, Damage) else None
        refused = False
        for piece in _damaged(self._body(seen), damaged):
            try:
                if not refused:
                    upstream.send(piece)
            except OSError:
                refused = True  # and its reply says why; the client's body is read all the same
        return upstream.getresponse()

    def _relay(self, seen: Seen, reply: http.client.HTTPResponse) -> None:
        fault = seen.fault
        limit = fault.reply if isinstance(fault, Reset | Shorten | Stall) else None
        if isinstance(fault, LoseReply) or (isinstance(fault, Stall) and fault.applied) or limit == 0:
            reply.read()
            self._end_early(seen)
        seen.status = reply.status  # before the client can know it, and look here
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() not in {"transfer-encoding", "connection"}:
                self.send_header(name, value)
        if reply.length is None and self.command != "HEAD":
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        for piece in _damaged(_pieces(reply), fault.reply if isinstance(fault, Damage) else None):
            part = piece if limit is None else piece[: limit - seen.received]
            seen.received += len(part)
            self.wfile.write(part)
            if seen.received == limit:
                break
        if limit is not None:
            self._end_early(seen)

    def _end_early(self, seen: Seen) -> NoReturn:
        if isinstance(seen.fault, Stall):
            self._stall(seen)
        if isinstance(seen.fault, Reset):
            self._reset()
        raise CutError

    def _answer(self, seen: Seen, answer: Answer) -> None:
        message = f"<Code>{answer.code}</Code><Message>ordered</Message><Resource>{seen.path}</Resource>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{message}</Error>'.encode()
        seen.status, seen.received = answer.status, 0 if self.command == "HEAD" else len(body)
        self.send_response_only(answer.status)
        for name, value in (*answer.headers, ("Content-Type", "application/xml"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: seen.received])

    def _stall(self, seen: Seen) -> NoReturn:
        """Wait until the client has gone, or all ends."""
        seen.stalls = True
        self.stall()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.leave(self.connection)
        self.rfile.close()
        self.connection.close()
        raise CutError


def _pieces(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := reply.read1(PIECE):
        yield piece


def _damaged(pieces: Iterator[bytes], at: int | None) -> Iterator[bytes]:
    """Yield the pieces with one bit flipped at byte ``at`` of them all."""
    passed = 0
    for piece in pieces:
        if at is not None and passed <= at < passed + len(piece):
            wrong = bytearray(piece)
            wrong[at - passed] ^= 1
            yield bytes(wrong)
        else:
            yield piece
        passed += len(piece)
