"""Faults in front of a real API server: an HTTP proxy that passes requests on, and breaks those it was told to.

    with faulty(plane) as proxy:
        proxy.add(LoseReply(), *WRITES, part="rayservices")
        Api(Access(kubeconfig=proxy.kubeconfig(user, namespace), ...))

It speaks plain HTTP to its clients, whose tokens it passes on: who may do what is still for the API server to say.
(kubectl is not among them: it sends no token over plain HTTP.)
Each request to that has a connection of its own; those of clients stay open, but for the ones that carried a watch.
"""

import contextlib
import http.client
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.fakes.breaking_proxy import (
    PIECE,
    SERVER_TIMEOUT_S,
    CutError,
    Delay,
    Exchange,
    LoseReply,
    hang_up,
    serving,
)
from tests.kube.control_plane import ControlPlane
from tests.kube.fault_kinds import (
    EXPIRED,
    Answer,
    Duplicated,
    End,
    Faulty,
    Gone,
    OnlyBookmarks,
    Reordered,
    Seen,
    Silence,
    Stall,
    status_of,
)


@contextmanager
def faulty(plane: ControlPlane) -> Iterator[Faulty]:
    """Run the proxy until the block is left."""
    faults = Faulty(plane=plane)
    with serving(_Exchange, faults) as faults.url:
        yield faults


class _Exchange(Exchange):
    @property
    def _plane(self) -> ControlPlane:
        assert isinstance(self.server.orders, Faulty)
        return self.server.orders.plane

    def exchange(self, seen: Seen) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        match seen.fault:
            case Answer() as answer:
                return self._answer(seen, answer)
            case Stall(applied=False):
                self.stall()
            case Delay(seconds):
                self.server.ending.wait(seconds)
        port, trust = self._plane.port, self._plane.trust
        upstream = http.client.HTTPSConnection("127.0.0.1", port, timeout=SERVER_TIMEOUT_S, context=trust)
        try:
            headers = _without({"connection", "host"}, self.headers.items())
            upstream.request(self.command, self.path, body or None, headers)
            reply = upstream.getresponse()
            if isinstance(seen.fault, LoseReply):
                raise CutError
            if isinstance(seen.fault, Stall):
                self.stall()
            if seen.verb == "watch" and reply.status == http.client.OK:
                return self._relay_watch(seen, upstream.sock, reply)
            self._relay(seen, reply)
        finally:
            upstream.close()

    def _answer(self, seen: Seen, answer: Answer) -> None:
        headers = {"Content-Type": "application/json"}
        if answer.retry_after is not None:
            headers["Retry-After"] = str(answer.retry_after)
        self._reply(seen, answer.status, headers, json.dumps(status_of(answer)).encode())

    def _relay(self, seen: Seen, reply: http.client.HTTPResponse) -> None:
        headers = _without({"transfer-encoding", "connection", "content-length"}, reply.getheaders())
        self._reply(seen, reply.status, headers, reply.read())

    def _reply(self, seen: Seen, status: int, headers: dict[str, str], body: bytes) -> None:
        seen.status = status  # before the client can know it, and look here
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _relay_watch(self, seen: Seen, upstream: socket.socket, reply: http.client.HTTPResponse) -> None:
        """Pass a watch's events on as they come, as the fault has them, until either side ends it."""
        upstream.settimeout(None)
        raw = socket.socket(fileno=os.dup(upstream.fileno()))
        follower = threading.Thread(target=self._hang_up_with_client, args=[raw], name="client of a watch")
        follower.start()
        try:
            seen.status = reply.status
            self.send_response_only(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in self._twisted(seen, iter(reply.readline, b"")):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            self.close_connection = True
            hang_up(self.connection)
            follower.join()
            raw.close()

    def _hang_up_with_client(self, upstream: socket.socket) -> None:
        """End the watch at the API server when its client has gone."""
        with contextlib.suppress(OSError):
            while self.connection.recv(PIECE):
                pass
        hang_up(upstream)

    def _twisted(self, seen: Seen, events: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the events of a watch, as its fault has them."""
        match seen.fault:
            case Gone(after) | End(after) | Silence(after):
                yield from itertools.islice(events, after)
                yield from self._ended(seen.fault, events)
            case OnlyBookmarks() as fault:
                yield from self._bookmarks(seen, fault)
                yield from events
            case Duplicated():
                for event in events:
                    yield from (event, event)
            case Reordered(size):
                group: list[bytes] = []
                for event in events:
                    group.append(event)
                    if len(group) == size:
                        yield from reversed(group)
                        group.clear()
                yield from reversed(group)
            case _:
                yield from events

    def _ended(self, fault: Gone | End | Silence, events: Iterator[bytes]) -> Iterator[bytes]:
        match fault:
            case Gone():
                yield json.dumps({"type": "ERROR", "object": status_of(EXPIRED)}).encode() + b"\n"
            case End(clean=False):
                event = next(events, b"")
                yield event[: len(event) // 2]
                raise CutError
            case Silence():
                self.stall()

    def _bookmarks(self, seen: Seen, fault: OnlyBookmarks) -> Iterator[bytes]:
        address = urlsplit(seen.place)
        found = self._plane.admin.get(f"{address.path}?limit=1").raise_for_status().json()
        begun = parse_qs(address.query).get("resourceVersion", [found["metadata"]["resourceVersion"]])[0]
        bookmarked = {
            "kind": found["kind"].removesuffix("List"),
            "apiVersion": found["apiVersion"],
            "metadata": {"resourceVersion": begun},
        }
        until = time.monotonic() + fault.seconds
        while time.monotonic() < until and not self.server.ending.wait(fault.every_s):
            yield json.dumps({"type": "BOOKMARK", "object": bookmarked}).encode() + b"\n"


def _without(names: set[str], headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in names}
