"""The Hub's second port sends whole files and ranges by the kernel, counts them, and honours signed links alone."""

import hashlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tasks.local.hub.repositories import large_blob_path
from tests.bench.hub import HOST, Counts, content_server, span_of

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = f"/lfs/{SHA256}"
LARGE_BYTES, BUFFER_BYTES = 64 * 2**20, 2**16
MOST_BYTES = 4 * BUFFER_BYTES
DEADLINE_S = 10


@pytest.fixture
def link(tmp_path: Path) -> Iterator[str]:
    """A signed link to a file on a running content host."""
    blob = large_blob_path(tmp_path, SHA256)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    server, links = content_server(tmp_path, Counts())
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield links.sign(SHA256)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def counted(link: str) -> dict[str, dict[str, int]]:
    """Return what the host has counted."""
    host = urlsplit(link)
    with urllib.request.urlopen(f"http://{host.netloc}/stats") as answer:
        counts: dict[str, dict[str, int]] = json.load(answer)
    return counts


def test_a_file_is_sent_whole_and_by_range_and_counted(link: str) -> None:
    """Two requests, and exactly the bytes of both, on one path."""
    with httpx.Client() as client:
        whole = client.get(link)
        part = client.get(link, headers={"Range": "bytes=0-131071"})

    assert (200, DATA) == (whole.status_code, whole.content)
    assert (206, DATA[:131072]) == (part.status_code, part.content)
    assert f"bytes 0-131071/{len(DATA)}" == part.headers["content-range"]
    assert {"requests": {PATH: 2}, "bytes": {PATH: len(DATA) + 131072}} == counted(link)


def test_an_unsigned_link_and_a_leaked_token_are_refused(link: str) -> None:
    """Nothing is sent for either."""
    with httpx.Client() as client:
        unsigned = client.get(link.partition("?")[0])
        leaked = client.get(link, headers={"Authorization": "Bearer hf_canary"})

    assert [403, 400] == [unsigned.status_code, leaked.status_code]
    assert counted(link)["bytes"][PATH] == 0


def test_ranges() -> None:
    """A range is the bytes it names; one that holds none is not satisfiable."""
    headers = ("", "bytes=1-", "bytes=1-2", "bytes=1-99", "bytes=-2", "bytes=9-")

    assert [(0, 9), (1, 9), (1, 3), (1, 9), (7, 9), None] == [span_of(header, 9) for header in headers]


def test_bytes_that_never_left_are_not_counted(link: str, tmp_path: Path) -> None:
    """A client that takes a few bytes and hangs up is counted what its kernel took, not what waited to be sent."""
    with large_blob_path(tmp_path, SHA256).open("r+b") as blob:
        blob.truncate(LARGE_BYTES)
    host = urlsplit(link)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        client.connect((HOST, host.port or 0))
        client.sendall(f"GET {host.path}?{host.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(BUFFER_BYTES, socket.MSG_WAITALL)
    deadline, sent = time.monotonic() + DEADLINE_S, 0
    while not 0 < sent <= MOST_BYTES and time.monotonic() < deadline:
        sent = counted(link)["bytes"][PATH]

    assert 0 < sent <= MOST_BYTES
