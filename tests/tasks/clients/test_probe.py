"""The probe against a real server that misbehaves: nothing is missed, nothing is blamed wrongly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._clients import probe_clients
from tasks._clients.probe import Probe
from tasks._clients.receipt import receipt
from tasks._clients.requests import Kind, Outcome, Request, read_journal
from tasks.errors import Unreachable
from tasks.records import Verdict
from tests.fakes.engine import Engine, Fault, serving

pytestmark = pytest.mark.slow

DEADLINE_S = 15.0
OK, LOST, TRUNCATED = Outcome.OK, Outcome.LOST, Outcome.TRUNCATED


@pytest.fixture
def engine() -> Engine:
    """An engine that has not been broken yet; ten tokens take about a fiftieth of a second."""
    return Engine(answer=lambda _messages: "a b c d e f g h i j", delay_s=0.002)


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    """The engine's address."""
    with serving(engine) as url:
        yield url


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Engine, str]]:
    """One engine for the many ways to misbehave, with its address; each test puts it right again."""
    engine = Engine(answer=lambda _messages: "a b c d e f g h i j", delay_s=0.002)
    with serving(engine) as url:
        yield engine, url


def probe(url: str, **more: Any) -> Probe:
    """Return a probe of two streams, one on a kept connection, and twenty plain requests a second."""
    settings: dict[str, Any] = {"model": "chat", "prompts": ["Hi"], "streams": 2, "rate": 20, "deadline_s": 10}
    return Probe(url, **(settings | more))


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most ``DEADLINE_S``."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def of_kind(requests: tuple[Request, ...], kind: Kind) -> list[Request]:
    """Return the requests of one kind."""
    return [request for request in requests if request.kind is kind]


def test_whole_answers(engine: Engine, url: str) -> None:
    """Healthy requests are ok, with their release, moments in order, and every token counted."""
    with probe(url) as clients:
        until(lambda: len(clients.requests) >= 9)
        ended = clients.stop()
    stream = of_kind(ended, Kind.STREAM)[0]

    assert {(request.outcome, request.note) for request in ended} == {(OK, "")}
    assert {request.kind for request in ended} == set(Kind)
    assert (stream.release, stream.commit, stream.status) == ("chat-r1", "1" * 40, 200)
    assert (stream.chunks, stream.finish_reason) == (10, "stop")
    moments = [stream.started, stream.answered or 0, stream.first or 0, stream.last or 0, stream.ended]
    assert moments == sorted(moments)
    assert [seen.body["messages"][0]["content"] for seen in engine.seen] == ["Hi"] * len(ended)
    assert sorted(request.id for request in ended) == list(range(len(engine.seen)))


def test_half_keep_their_connection(engine: Engine, url: str) -> None:
    """One of two streams asks again on the same connection, the other on a new one each time."""
    with probe(url, rate=0) as clients:
        until(lambda: len(clients.requests) >= 8)
        ended = clients.stop()
    kept = sum(request.kept_alive for request in ended)
    connections = {seen.connection for seen in engine.seen}

    assert 3 <= kept <= len(ended) - 3
    assert len(connections) == len(ended) - kept + 1


@pytest.mark.parametrize(
    ("fault", "kind", "outcome", "note"),
    [
        (Fault.CUT, Kind.STREAM, TRUNCATED, "cut after 5 chunks: RemoteProtocolError"),
        (Fault.CUT, Kind.PLAIN, TRUNCATED, "cut after 0 chunks: RemoteProtocolError"),
        (Fault.RESET_MIDWAY, Kind.STREAM, TRUNCATED, "cut after 5 chunks: ReadError"),
        (Fault.RESET_MIDWAY, Kind.PLAIN, TRUNCATED, "cut after 0 chunks: ReadError"),
        (Fault.NO_DONE, Kind.STREAM, TRUNCATED, "no [DONE]"),
        (Fault.NO_FINISH, Kind.STREAM, TRUNCATED, "no finish_reason"),
        (Fault.NO_FINISH, Kind.PLAIN, TRUNCATED, "no finish_reason"),
        (Fault.ABORT, Kind.STREAM, TRUNCATED, "finish_reason abort"),
        (Fault.RESET, Kind.STREAM, LOST, "ReadError"),
        (Fault.RESET, Kind.PLAIN, LOST, "ReadError"),
        (Fault.HANG, Kind.PLAIN, LOST, "no end within 1 s"),
        (Fault.HANG_MIDWAY, Kind.STREAM, LOST, "no end within 1 s"),
        (Fault.STATUS_500, Kind.STREAM, LOST, "HTTP 500: "),
        (Fault.STATUS_503, Kind.PLAIN, LOST, "HTTP 503: "),
        (Fault.REDIRECT, Kind.PLAIN, LOST, "HTTP 307: "),
        (Fault.ERROR_EVENT, Kind.STREAM, LOST, "an error for an answer: "),
        (Fault.ERROR_BODY, Kind.STREAM, LOST, "not a stream: "),
        (Fault.ERROR_BODY, Kind.PLAIN, LOST, "an error for an answer: "),
        (Fault.GARBAGE, Kind.STREAM, LOST, "not a stream: <html>"),
        (Fault.GARBAGE, Kind.PLAIN, LOST, "not JSON: <html>"),
        (Fault.NO_HEADERS, Kind.STREAM, LOST, "no header x-slipway-release"),
        (Fault.WRONG_HEADERS, Kind.PLAIN, LOST, "header x-slipway-release is latest"),
        (Fault.EMPTY, Kind.STREAM, OK, "empty text"),
        (Fault.EMPTY, Kind.PLAIN, OK, "empty text"),
    ],
    ids=str,
)
def test_judgement(
    shared: tuple[Engine, str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: Kind,
    outcome: Outcome,
    note: str,
) -> None:
    """Each way to misbehave is judged as a client would, and says why; requests around it stay ok."""
    monkeypatch.setattr(probe_clients, "AFTER_FAILURE_S", 0.01)
    engine, url = shared
    deadline_s = 1 if fault in (Fault.HANG, Fault.HANG_MIDWAY) else DEADLINE_S
    one = {"streams": int(kind is Kind.STREAM), "rate": 20 * (kind is Kind.PLAIN)}
    with probe(url, deadline_s=deadline_s, **one) as clients:
        until(lambda: len(clients.requests) >= 1)
        engine.fault = fault
        until(lambda: any(request.note for request in clients.requests))
        engine.fault = Fault.NONE
        moment = time.monotonic()
        until(lambda: sum(request.started > moment for request in clients.requests) >= 2)
        ended = clients.stop()
    odd = [request for request in ended if request.note]

    assert {request.outcome for request in odd} == {outcome}
    assert all(request.note.startswith(note) for request in odd), odd[0].note
    assert {ended[0].outcome, *(request.outcome for request in ended if request.started > moment)} == {OK}


def test_refused_connections_are_lost() -> None:
    """A server that goes away is a loss for every request meant for it, at a bounded rate."""
    engine = Engine()
    with serving(engine) as url:
        clients = probe(url).start()
        until(lambda: len(clients.requests) >= 3)
    until(lambda: sum("ConnectError" in request.note for request in clients.requests) >= 6)
    ended = clients.stop()
    refused = [request for request in ended if "ConnectError" in request.note]

    assert {request.outcome for request in refused} == {LOST}
    assert {request.release for request in refused} == {None}
    assert receipt(ended).verdict is Verdict.FAIL


def test_slow_gap_is_measured(engine: Engine, url: str) -> None:
    """A pause inside a stream is no loss, and the receipt shows how long it was."""
    engine.fault, engine.gap_s = Fault.SLOW_GAP, 0.2
    with probe(url, rate=0) as clients:
        until(lambda: len(clients.requests) >= 2)
        ended = clients.stop()

    assert {request.outcome for request in ended} == {OK}
    assert 0.2 <= receipt(ended).slowest_gap_s < 1


def test_line_separators_inside_tokens(engine: Engine, url: str) -> None:
    """Unicode's own line separators inside a token do not tear an event apart."""
    engine.answer = lambda _messages: "a\u2028b \u0085c d\u2029e"
    with probe(url) as clients:
        until(lambda: len(clients.requests) >= 3)

    assert {(request.outcome, request.note) for request in clients.requests} == {(OK, "")}


def test_switch_with_streams_open_across_it(engine: Engine, url: str) -> None:
    """Thirty streams open across a switch finish on the old release; the receipt shows the one switch."""
    with probe(url, streams=1) as clients:
        clients.wait_until_live(DEADLINE_S)
        until(lambda: len(clients.requests) >= 3)
        engine.delay_s, engine.answer = 0.03, lambda _messages: "word " * 60
        clients.set_streams(34, max_tokens=40)
        clients.wait_until_open(30, DEADLINE_S)
        engine.switch("chat-r2", "2" * 40)
        clients.set_streams(2)
        until(lambda: any(request.release == "chat-r2" for request in clients.requests))
        ended = clients.stop()
    seen = receipt(ended, clients.report)

    assert (seen.lost, seen.truncated, seen.requests) == (0, 0, len(engine.seen))
    assert [(s.from_release, s.to_release) for s in seen.switches] == [("chat-r1", "chat-r2")]
    assert seen.streams_open_across >= 30
    assert seen.by_release.keys() == {"chat-r1", "chat-r2"}
    assert {seen.body["max_tokens"] for seen in engine.seen} == {4, 64, 40}


def test_fewer_clients(url: str) -> None:
    """Clients that are no longer wanted end their request and ask no more."""
    with probe(url, streams=4) as clients:
        clients.wait_until_open(2, DEADLINE_S)
        clients.set_streams(0)
        until(lambda: len(of_kind(clients.requests, Kind.STREAM)) >= 4 and not clients.open_streams())
        moment = time.monotonic()
        until(lambda: sum(request.started > moment for request in clients.requests) >= 3)
        ended = clients.stop()

    assert {request.outcome for request in ended} == {OK}
    assert {request.kind for request in ended if request.started > moment} == {Kind.PLAIN}


def test_waiting_for_the_first_release_is_no_loss() -> None:
    """Until the address first answers with a release nothing is asked, so nothing can be lost."""
    engine = Engine(fault=Fault.NO_HEADERS)
    with serving(engine) as url, probe(url) as clients:
        with pytest.raises(Unreachable, match="did not answer with a release within"):
            clients.wait_until_live(0.3)
        assert engine.seen == []
        engine.fault = Fault.NONE
        clients.wait_until_live(DEADLINE_S)
        until(lambda: len(clients.requests) >= 3)
        ended = clients.stop()

    assert {request.outcome for request in ended} == {OK}


def test_never_live() -> None:
    """A probe of an address where nothing listens stops at once, with an empty receipt that proves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    clients = probe(f"http://127.0.0.1:{port}").start()
    ended = clients.stop()

    assert ended == ()
    assert receipt(ended, clients.report).verdict is Verdict.INCONCLUSIVE


def test_an_address_that_hangs() -> None:
    """A probe that waits for an answer to its first look stops at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = probe(f"http://127.0.0.1:{listener.getsockname()[1]}").start()
        connection, _ = listener.accept()
        with connection:
            began = time.monotonic()
            assert clients.stop() == ()

    assert time.monotonic() - began < 2


def test_stop_waits_for_what_is_in_flight(engine: Engine, url: str) -> None:
    """Requests in flight at the stop end by themselves and are counted."""
    engine.delay_s = 0.04
    with probe(url, streams=4, rate=0) as clients:
        clients.wait_until_open(4, DEADLINE_S)
        assert clients.requests == ()
        ended = clients.stop()

    assert [request.outcome for request in ended] == [OK] * 4


def test_stop_with_a_short_grace(engine: Engine, url: str) -> None:
    """What the grace was too short for is counted as lost, not left out; so it is when the block fails."""
    engine.fault = Fault.HANG_MIDWAY
    clients = probe(url, streams=3, rate=0, deadline_s=60).start()
    clients.wait_until_open(3, DEADLINE_S)
    began = time.monotonic()
    with pytest.raises(Unreachable), clients:
        clients.wait_until_open(4, timeout_s=0)
    ended = clients.requests

    assert time.monotonic() - began < DEADLINE_S
    assert [(r.outcome, r.note) for r in ended] == [(LOST, "still open when the probe's time was over")] * 3


def test_journal_holds_every_request(url: str, tmp_path: Path) -> None:
    """Each ended request is on disk before the next one is, so that a killed probe keeps them."""
    path = tmp_path / "probe.jsonl"
    with probe(url, journal=path) as clients:
        until(lambda: len(clients.requests) >= 4)  # the last may be a moment from the disk
        assert len(read_journal(path).requests) >= 3
        ended = clients.stop()
    kept = read_journal(path)

    assert kept.requests == ended
    assert [beat.first for beat in kept.beats] == [True] + [False] * (len(kept.beats) - 1)
    assert sum(beat.made for beat in kept.beats) == len(of_kind(ended, Kind.PLAIN)) == clients.report.made


def test_journal_that_cannot_be_written(tmp_path: Path) -> None:
    """A journal in a folder that does not exist is an error of the start, not of a thread."""
    with pytest.raises(FileNotFoundError):
        probe("http://127.0.0.1:1", journal=tmp_path / "none" / "probe.jsonl").start()


def test_a_broken_probe_is_not_silent(url: str) -> None:
    """What breaks the probe itself is raised at the stop, so that no receipt comes of it."""
    clients = probe(url, prompts=[]).start()
    until(lambda: not any(thread.name == "probe" for thread in threading.enumerate()))

    with pytest.raises(ZeroDivisionError):
        clients.stop()


def test_prompts_in_turn(engine: Engine, url: str) -> None:
    """Prompts are asked in turn from the seed-th, greedily, with the body's further fields."""
    more = {"prompts": ["a", "b", "c"], "seed": 1, "options": {"min_tokens": 3}}
    with probe(url, streams=1, rate=0, **more) as clients:
        until(lambda: len(clients.requests) >= 4)
        clients.stop()
    bodies = [seen.body for seen in engine.seen[:4]]

    assert [body["messages"][0]["content"] for body in bodies] == ["b", "c", "a", "b"]
    assert {(body["temperature"], body["min_tokens"], body["model"]) for body in bodies} == {(0.0, 3, "chat")}


def test_a_stalled_server_meets_every_request_that_was_due(engine: Engine, url: str) -> None:
    """Plain requests are started on schedule while none is answered, and all of them count."""
    engine.delay_s = 0.3  # four tokens of a plain answer take 1.2 s
    with probe(url, streams=0, rate=40) as clients:
        clients.wait_until_live(DEADLINE_S)
        until(lambda: len(engine.seen) >= 20)
        assert clients.requests == ()
        ended = clients.stop()
    starts = sorted(request.started for request in ended)

    assert {request.outcome for request in ended} == {OK}
    assert 0.015 <= (starts[-1] - starts[0]) / (len(starts) - 1) <= 0.04
    assert clients.report.achieved == 1


def test_what_is_not_started_is_not_achieved(engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many in flight as there may be, what is due is left out, and the receipt proves nothing."""
    monkeypatch.setattr(probe_clients, "MOST_IN_FLIGHT", 3)
    engine.delay_s = 0.1
    with probe(url, streams=0, rate=50) as clients:
        until(lambda: len(clients.requests) >= 3)
        ended = clients.stop()
    report = clients.report

    assert report.made == len(ended) < report.due
    assert receipt(ended, report).verdict is Verdict.INCONCLUSIVE


def test_abandoned(engine: Engine, url: str, tmp_path: Path) -> None:
    """A probe that is given up ends at once, also while a stop waits, and blames nobody for what was in flight."""
    engine.fault = Fault.HANG_MIDWAY
    clients = probe(url, streams=3, rate=0, deadline_s=60, journal=tmp_path / "probe.jsonl").start()
    clients.wait_until_open(3, DEADLINE_S)
    stopping = threading.Thread(target=clients.stop)
    stopping.start()
    began = time.monotonic()
    clients.abandon()
    stopping.join(DEADLINE_S)

    assert time.monotonic() - began < 5
    assert "probe" not in {thread.name for thread in threading.enumerate()}
    assert clients.requests == read_journal(tmp_path / "probe.jsonl").requests == ()
