"""``python -m tests.bench.flood PORT RATE SECONDS CONNECTIONS KIND``: forged calls, whatever becomes of them.

A process of its own, so that neither the receiver nor who calls it in earnest pays for it.  ``kept`` connections are
used again, ``new`` ones are made for each call.  A call that no connection is free for is counted as not sent: the
receiver or this machine cannot take more.  Prints what became of the calls as one JSON document.
"""

import argparse
import json
import selectors
import socket
import sys
import time

BODY = b'{"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "model", "name": "acme/tiny"}}'
HEAD = b"POST /webhook HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
CALL = HEAD % len(BODY) + b"X-Webhook-Secret: the-secret-of-a-forger\r\n\r\n" + BODY
TURN_S = 0.001


class Flood:
    """Connections that make forged calls."""

    def __init__(self, port: int, connections: int, *, new: bool) -> None:
        self._port, self._free, self._new = port, connections, new
        self._answers = selectors.DefaultSelector()
        self._quiet: list[socket.socket] = []
        self._at: dict[socket.socket, float] = {}
        self.sent = self.refused = self.lost = self.held_back = 0
        self.seconds: list[float] = []

    def send(self, calls: int, now: float) -> None:
        """Make as many calls as there are connections for."""
        for made in range(calls):
            sock = self._quiet.pop() if self._quiet else self._connect()
            if sock is None:
                self.held_back += calls - made
                return
            self._at[sock] = now
            self.sent += 1
            try:
                sock.send(CALL)
            except OSError:
                self._drop(sock)

    def listen(self) -> None:
        """Take the answers that have come."""
        for key, _ in self._answers.select(TURN_S):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                got = sock.recv(4096)
            except OSError:
                got = b""
            if got and not got.endswith(b"}"):
                continue  # the rest of an answer is on its way
            if not got:
                self._drop(sock)
                continue
            self.refused += 1
            self.seconds.append(time.monotonic() - self._at.pop(sock))
            if self._new:
                self._close(sock)
            else:
                self._quiet.append(sock)

    def close(self) -> None:
        """Close every connection."""
        for key in list(self._answers.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._answers.close()

    def _connect(self) -> socket.socket | None:
        if not self._free:
            return None
        sock = socket.socket()
        try:
            sock.settimeout(1)
            sock.connect(("127.0.0.1", self._port))
        except OSError:
            sock.close()
            return None
        sock.setblocking(False)
        self._answers.register(sock, selectors.EVENT_READ)
        self._free -= 1
        return sock

    def _drop(self, sock: socket.socket) -> None:
        self.lost += self._at.pop(sock, None) is not None
        if sock in self._quiet:
            self._quiet.remove(sock)
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._answers.unregister(sock)
        sock.close()
        self._free += 1


def main() -> None:
    """Call until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flood")
    for name, kind in (("port", int), ("rate", float), ("seconds", float), ("connections", int), ("kind", str)):
        parser.add_argument(name, type=kind)
    asked = parser.parse_args()
    flood = Flood(asked.port, asked.connections, new=asked.kind == "new")
    start = time.monotonic()
    while (passed := time.monotonic() - start) < asked.seconds:
        flood.send(int(passed * asked.rate) - flood.sent - flood.held_back, time.monotonic())
        flood.listen()
    flood.close()
    ordered = sorted(flood.seconds) or [0.0]
    told = {name: getattr(flood, name) for name in ("sent", "refused", "lost", "held_back")}
    told |= {"per_second": flood.refused / passed, "p50_s": ordered[len(ordered) // 2], "worst_s": ordered[-1]}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
