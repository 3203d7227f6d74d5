"""``python -m tests.bench.hub``: the embedded Hub's metadata, and its large files sent by the kernel.

The embedded Hub streams through an event loop, which would be the slowest part of everything measured.  Here its
own routes answer for metadata and small files, and send a client on to a second port, where ``sendfile`` moves the
bytes without Python touching them.  Requests and bytes are counted by path; ``/stats`` of the second port tells them.

Bytes count when the kernel takes them.  Of a connection that breaks, only those that the other side's kernel has
acknowledged stay counted: the rest has not left this side.
"""

import argparse
import json
import os
import re
import socket
import sys
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.local.hub.access import AccessTokens, SignedLinks
from tasks.local.hub.application import Hub
from tasks.local.hub.repositories import large_blob_path

HOST = "127.0.0.1"
PIECE_BYTES = 2**20
LINK_LIFETIME_S = 3600.0


class Counts:
    """Requests and bytes of bodies by path, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests, self._bytes = Counter[str](), Counter[str]()

    def add(self, path: str, *, requests: int = 0, size: int = 0) -> None:
        """Count ``requests`` and ``size`` bytes for ``path``."""
        with self._lock:
            self._requests[path] += requests
            self._bytes[path] += size

    def to_json(self) -> bytes:
        """Return what was counted so far."""
        with self._lock:
            return json.dumps({"requests": self._requests, "bytes": self._bytes}).encode()


class QuickServer(ThreadingHTTPServer):
    """A thread for each connection, and room for many that come at once."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up: some are killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class ContentHandler(BaseHTTPRequestHandler):
    """Large files by signed link, whole or by one range, and the counts."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root: ClassVar[Path]
    links: ClassVar[SignedLinks]
    counts: ClassVar[Counts]

    def do_GET(self) -> None:
        """Send what is asked for."""
        url = urlsplit(self.path)
        if url.path == "/stats":
            self._answer(HTTPStatus.OK, self.counts.to_json())
            return
        self.counts.add(url.path, requests=1)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        sha256 = url.path.rpartition("/")[2]
        if "authorization" in self.headers:
            self._answer(HTTPStatus.BAD_REQUEST, b"Only one kind of authorization is allowed.")
        elif not self.links.hold(sha256, query.get("expires", ""), query.get("signature", "")):
            self._answer(HTTPStatus.FORBIDDEN, b"This link is not valid, or has expired.")
        else:
            self._send_file(url.path, sha256)

    do_HEAD = do_GET  # noqa: N815 - http.server names it

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def _send_file(self, path: str, sha256: str) -> None:
        with large_blob_path(self.root, sha256).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            span = span_of(self.headers.get("range", ""), size)
            if span is None:
                self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {"Content-Range": f"bytes */{size}"})
                return
            start, end = span
            partial = "range" in self.headers
            headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
            if partial:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self._head(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK, headers)
            if self.command == "GET":
                self._send_span(path, file.fileno(), start, end)

    def _send_span(self, path: str, file: int, start: int, end: int) -> None:
        acknowledged, first = _acknowledged(self.connection), start
        try:
            while start < end:
                sent = os.sendfile(self.connection.fileno(), file, start, min(PIECE_BYTES, end - start))
                self.counts.add(path, size=sent)
                start += sent
        except ConnectionError:
            arrived = max(0, _acknowledged(self.connection) - acknowledged)
            self.counts.add(path, size=min(0, arrived - (start - first)))
            raise

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _acknowledged(connection: socket.socket) -> int:
    """Return the bytes that the other side's kernel has acknowledged so far (``tcpi_bytes_acked`` of Linux)."""
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    return int.from_bytes(information[120:128], sys.byteorder)


def span_of(header: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last that a ``Range`` header asks for; None if there are none."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if match is None or not any(match.groups()):
        return 0, size
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else None


def counted(inner: ASGIApp, counts: Counts) -> ASGIApp:
    """Return the application with its requests and bytes counted."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        counts.add(scope["path"], requests=1)

        async def watched(message: Message) -> None:
            counts.add(scope["path"], size=len(message.get("body", b"")))
            await send(message)

        await inner(scope, receive, watched)

    return application


def content_server(root: Path, counts: Counts) -> tuple[ThreadingHTTPServer, SignedLinks]:
    """Return the second port's server, not yet serving, and the links that it honours."""
    server = QuickServer((HOST, 0), ContentHandler)
    links = SignedLinks(f"http://{HOST}:{server.server_port}", lifetime_s=LINK_LIFETIME_S)
    server.RequestHandlerClass = type("Handler", (ContentHandler,), {"root": root, "links": links, "counts": counts})
    return server, links


def main() -> None:
    """Serve until killed, after one line of JSON that says where."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hub")
    parser.add_argument("--root", type=Path, required=True, help="folder of repositories")
    root = parser.parse_args().root
    counts = Counts()
    content, links = content_server(root, counts)
    threading.Thread(target=content.serve_forever, daemon=True).start()
    # The protocol is named because asyncio turns Nagle's algorithm off only for a socket that names it.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind((HOST, 0))
    bound.listen(128)
    endpoint = f"http://{HOST}:{bound.getsockname()[1]}"
    hub = Hub(root, endpoint=endpoint, tokens=AccessTokens(), links=links).application()
    config = uvicorn.Config(counted(hub, counts), lifespan="off", ws="none", log_config=None, access_log=False)
    sys.stdout.write(json.dumps({"endpoint": endpoint, "stats": f"http://{HOST}:{content.server_port}/stats"}) + "\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
