"""Fault 30: forged, replayed, endless, slow and malformed calls of the webhook, over real sockets."""

import json
import logging
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tasks._receiver import application, bounds
from tasks._receiver.bounds import ReceiverServer
from tests.fakes.webhooks import NEXT_SECRET, ROOT, SECRET, Running, body, payload, receiving, sha

DEADLINE_S = 20.0

pytestmark = pytest.mark.slow
GOOD = f"X-Webhook-Secret: {SECRET}\r\n"
FORGED = {
    "none": "",
    "empty": "X-Webhook-Secret:\r\n",
    "wrong": "X-Webhook-Secret: something-else-of-that-length\r\n",
    "prefix": f"X-Webhook-Secret: {SECRET[:-1]}\r\n",
    "longer": f"X-Webhook-Secret: {SECRET}x\r\n",
    "both at once": f"X-Webhook-Secret: {SECRET} {NEXT_SECRET}\r\n",
    "another scheme": f"Authorization: Basic {SECRET}\r\n",
    "a megabyte": f"X-Webhook-Secret: {'x' * 30_000}\r\n",
}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    """Return a running receiver with small bounds."""
    with receiving(tmp_path, body_bytes=4096, connections=16) as running:
        yield running


@contextmanager
def connected(receiver: Running) -> Iterator[socket.socket]:
    """Open a connection."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=DEADLINE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def head(headers: str = GOOD, length: int | None = 0) -> bytes:
    """Return the head of a request; without a length its body comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /webhook HTTP/1.1\r\nHost: x\r\n{headers}{framing}\r\n\r\n".encode()


def answer(sock: socket.socket) -> bytes:
    """Return what comes until the answer is whole or the connection ends."""
    got = b""
    while b"}" not in got:
        try:
            part = sock.recv(65_536)
        except ConnectionError:
            break
        if not part:
            break
        got += part
    return got


def exchange(receiver: Running, *parts: bytes) -> bytes:
    """Send the parts on a connection of their own and return the answer."""
    with connected(receiver) as sock:
        for part in parts:
            try:
                sock.sendall(part)
            except ConnectionError:
                break
        return answer(sock)


def status(got: bytes) -> int:
    """Return the status of an answer, 0 where there is none."""
    return int(got.split(b" ", 2)[1]) if got else 0


def serves(receiver: Running, number: int = 99) -> bool:
    """Return whether a genuine call is served."""
    told = body(sha(number))
    return status(exchange(receiver, head(length=len(told)), told)) == 202


def test_forged_calls_are_all_answered_alike(receiver: Running) -> None:
    """Whatever was wrong with the secret, the answer is the same to the byte, and nothing is asked of anybody."""
    told = body(sha(1))
    answers = {name: exchange(receiver, head(headers, len(told)), told) for name, headers in FORGED.items()}

    assert 1 == len({got.partition(b"\r\ncontent-type")[2] for got in answers.values()}), answers
    assert {401} == set(map(status, answers.values()))
    assert [] == receiver.prefect.asked


def test_a_forged_call_is_refused_before_its_body_is_read(receiver: Running) -> None:
    """The answer comes with the head, whatever body is declared, and the connection is not held for a long one."""
    for length in (10, 100_000_000, None):
        with connected(receiver) as sock:
            sock.sendall(head("", length))
            got = answer(sock)
            assert 401 == status(got)
            assert (length != 10) is (b"connection: close" in got)


@pytest.mark.parametrize("length", [100_000_000, None], ids=["declared", "undeclared"])
def test_a_body_of_100_mb_is_refused_unread(receiver: Running, length: int | None) -> None:
    """With the right secret too: at its declaration, or a little after the bound."""
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sent = 0
    with connected(receiver) as sock:
        sock.sendall(head(length=length))
        while sent < 100_000_000 and not select.select([sock], [], [], 0)[0]:
            sock.sendall(chunk)
            sent += len(chunk)
        assert 413 == status(answer(sock))

    assert sent < 32_000_000, "the receiver read on"
    assert serves(receiver)


def test_a_body_in_chunks_without_end_is_cut(receiver: Running) -> None:
    """Small ones, and a trailer that never ends, are bounded as what they take on the wire."""
    for part in (b"1\r\nx\r\n" * 1000, b"1;" + b"e" * 1000 + b"\r\nx\r\n", b"0\r\nt: " + b"x" * 1000):
        with connected(receiver) as sock:
            sock.sendall(head(length=None))
            with _until_cut():
                for _ in range(100_000):
                    sock.sendall(part)
            assert status(answer(sock)) in (0, 413)
    assert serves(receiver)


@contextmanager
def _until_cut() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        return
    pytest.fail("the receiver read on without end")


def test_a_head_without_end_is_cut(receiver: Running) -> None:
    """Headers are bounded before anybody has shown a secret."""
    with connected(receiver) as sock, _until_cut():
        sock.sendall(b"POST /webhook HTTP/1.1\r\n")
        for number in range(100_000):
            sock.sendall(f"X-{number}: {'x' * 100}\r\n".encode())
    assert serves(receiver)


def test_requests_sent_ahead_are_cut(receiver: Running) -> None:
    """What waits for its turn on one connection would take memory for each."""
    one = head("", 2) + b"{}"
    with connected(receiver) as sock, _until_cut():
        for _ in range(2000):
            sock.sendall(one * 50)
    assert serves(receiver)


def test_slow_heads_and_bodies_are_cut_in_time(receiver: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, or nothing at all: a connection has a time for its whole request."""
    monkeypatch.setattr(bounds, "MESSAGE_S", 0.3)
    monkeypatch.setattr(application, "BODY_S", 0.2)
    slow = {
        "silent": b"",
        "head": b"POST /webhook HTTP/1.1\r\nX-A: ",
        "refused": head("", 100),
        "body": head(length=99),
    }
    socks = {name: socket.create_connection(("127.0.0.1", receiver.port)) for name in slow}
    for name, sock in socks.items():
        sock.sendall(slow[name])
    deadline, got = time.monotonic() + DEADLINE_S, dict.fromkeys(slow, b"")
    while socks:
        assert time.monotonic() < deadline, f"still open: {sorted(socks)}"
        time.sleep(0.02)
        for name, sock in list(socks.items()):
            if (part := drip(sock, b"x" if slow[name] else b"")) is None:
                sock.close()
                del socks[name]
            else:
                got[name] += part

    assert {"silent": 0, "head": 0, "refused": 401, "body": 408} == {name: status(one) for name, one in got.items()}
    assert serves(receiver)


def drip(sock: socket.socket, more: bytes) -> bytes | None:
    """Send ``more`` and return what has come; None when the connection has ended."""
    try:
        got = sock.recv(65_536, socket.MSG_DONTWAIT)
        if not got:
            return None
    except BlockingIOError:
        got = b""
    except ConnectionError:
        return None
    try:
        sock.send(more)
    except ConnectionError:
        return got or None
    return got


def test_held_connections_make_room(receiver: Running) -> None:
    """Ten times as many as there may be, all silent: the ones that are quiet for longest go, and calls are served."""
    held = []
    try:
        for number in range(160):
            held.append(socket.create_connection(("127.0.0.1", receiver.port)))
            assert number % 40 or serves(receiver, number)
        assert serves(receiver)
        assert len(receiver.bounds.quiet) <= 16
    finally:
        for sock in held:
            sock.close()


def test_a_call_replayed_hundreds_of_times_makes_one_run(receiver: Running) -> None:
    """Today or a week later, it is the same commit."""
    told = body(sha(1))
    with httpx.Client() as client:
        answers = [client.post(receiver.url, content=told, headers={"x-webhook-secret": SECRET}) for _ in range(300)]

    assert {202} == {one.status_code for one in answers}
    assert 1 == sum(one.json()["runs"][0]["new"] for one in answers)
    assert 1 == len(receiver.prefect.runs)


def test_nothing_of_a_call_reaches_the_log_but_what_is_checked(
    receiver: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """No secret, right or wrong, and no line that a caller made up."""
    caplog.set_level(logging.DEBUG)
    exchange(receiver, head("X-Webhook-Secret: canary-of-a-forger\r\n", 2), b"{}")
    for told in (body(sha(1)), body(sha(1), ref="refs/heads/\nERROR forged"), json.dumps(["CANARY"]).encode()):
        exchange(receiver, head(length=len(told)), told)

    assert "canary" not in caplog.text.lower()
    assert "\nERROR forged" not in caplog.text


def test_a_malformed_request_is_refused(receiver: Running) -> None:
    """What is no HTTP, has two lengths, or ends before its body."""
    twice = f"POST /webhook HTTP/1.1\r\nHost: x\r\n{GOOD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}".encode()
    for told in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GARBAGE\r\n\r\n", twice):
        assert status(exchange(receiver, told)) in (0, 400)
    with connected(receiver) as sock:
        sock.sendall(head(length=100) + b"{")
    assert [] == receiver.prefect.asked
    assert serves(receiver)


def test_what_is_told_out_of_order_asks_for_the_same_flow(receiver: Running) -> None:
    """An old commit after a newer one is one more hint to look; what is released is read at the Hub."""
    told = [payload(sha(2)), payload(sha(1)), payload(sha(2))]
    with httpx.Client(headers={"x-webhook-secret": SECRET}) as client:
        runs = [client.post(receiver.url, json=one).json()["runs"][0] for one in told]

    assert [True, True, False] == [one["new"] for one in runs]
    assert runs[0]["run"] == runs[2]["run"]


@pytest.mark.parametrize("kind", ["kept", "new"])
def test_a_genuine_call_is_served_during_a_flood(tmp_path: Path, kind: str) -> None:
    """Forged calls, as many as come through, each refused; `make bench-webhook` measures how long it takes."""
    with receiving(tmp_path, connections=128) as receiver:
        command = [sys.executable, "-m", "tests.bench.flood", str(receiver.port), "5000", "1.5", "100", kind]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as flood:
            served = []
            while flood.poll() is None:
                served.append(serves(receiver, len(served)))
            assert flood.stdout
            told = json.loads(flood.stdout.read())
        tally = receiver.counts.take_refused()

    assert all(served)
    assert 0 < told["refused"] <= tally
    assert len(served) == len(receiver.prefect.runs)


def test_a_call_in_hand_is_answered_before_the_end(tmp_path: Path) -> None:
    """The server is told to end while Prefect is being asked; the caller gets the run, and then nobody is let in."""
    with receiving(tmp_path, server=ReceiverServer) as receiver, ThreadPoolExecutor(1) as caller:
        receiver.prefect.go_on.clear()
        waiting = caller.submit(serves, receiver)
        assert receiver.prefect.began.wait(DEADLINE_S)
        receiver.server.handle_exit(signal.SIGTERM, None)
        receiver.prefect.go_on.set()
        assert waiting.result(DEADLINE_S)
    with pytest.raises(ConnectionError):
        serves(receiver)
