"""The probe against a real server that misbehaves: nothing is missed, nothing is blamed wrongly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import _probe
from tasks._probe import Probe
from tasks._receipt import receipt
from tasks._requests import Kind, Outcome, Request, read_journal
from tasks.errors import Unreachable
from tasks.records import Verdict
from tests.fakes.engine import Engine, Fault, serving

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
    """Return a probe of two streams, one on a kept connection, and one plain client."""
    settings: dict[str, Any] = {"model": "chat", "prompts": ["Hi"], "streams": 2, "plain": 1, "deadline_s": 10}
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
    with probe(url, plain=0) as clients:
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
    monkeypatch.setattr(_probe, "AFTER_FAILURE_S", 0.01)
    engine, url = shared
    deadline_s = 1 if fault in (Fault.HANG, Fault.HANG_MIDWAY) else DEADLINE_S
    one = {"streams": int(kind is Kind.STREAM), "plain": int(kind is Kind.PLAIN)}
    with probe(url, deadline_s=deadline_s, **one) as clients:
        until(lambda: len(clients.requests) >= 1)
        engine.fault = fault
        until(lambda: any(request.note for request in clients.requests))
        engine.fault = Fault.NONE
        count = len(clients.requests)
        until(lambda: len(clients.requests) >= count + 2)
        ended = clients.stop()
    odd = [request for request in ended if request.note]

    assert {request.outcome for request in odd} == {outcome}
    assert all(request.note.startswith(note) for request in odd), odd[0].note
    assert (ended[0].outcome, ended[-1].outcome) == (OK, OK)


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
    with probe(url, plain=0) as clients:
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
    with probe(url, streams=4, plain=2) as clients:
        clients.wait_until_open(2, DEADLINE_S)
        clients.set_streams(0)
        clients.set_plain(0)
        until(lambda: len(clients.requests) >= 6)
        moment = time.monotonic()
        clients.set_plain(1)
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


def test_stop_waits_for_what_is_in_flight(engine: Engine, url: str) -> None:
    """Requests in flight at the stop end by themselves and are counted."""
    engine.delay_s = 0.04
    with probe(url, streams=4, plain=0) as clients:
        clients.wait_until_open(4, DEADLINE_S)
        assert clients.requests == ()
        ended = clients.stop()

    assert [request.outcome for request in ended] == [OK] * 4


def test_stop_with_a_short_grace(engine: Engine, url: str) -> None:
    """What the grace was too short for is counted as lost, not left out; so it is when the block fails."""
    engine.fault = Fault.HANG_MIDWAY
    clients = probe(url, streams=3, plain=0, deadline_s=60).start()
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
        assert len(read_journal(path)) >= 3
        ended = clients.stop()

    assert read_journal(path) == ended


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
    with probe(url, streams=1, plain=0, **more) as clients:
        until(lambda: len(clients.requests) >= 4)
        clients.stop()
    bodies = [seen.body for seen in engine.seen[:4]]

    assert [body["messages"][0]["content"] for body in bodies] == ["b", "c", "a", "b"]
    assert {(body["temperature"], body["min_tokens"], body["model"]) for body in bodies} == {(0.0, 3, "chat")}


@pytest.mark.slow
def test_cost_at_twenty_streams(engine: Engine, url: str) -> None:
    """With 20 streams of ten tokens a second the probe asks 95 % of what it should, for 5 % of one core."""
    engine.delay_s, engine.answer = 0.1, lambda _messages: "word " * 30
    with probe(url, streams=20, plain=0, deadline_s=30) as clients:
        clients.wait_until_open(20, DEADLINE_S)
        until(lambda: len(clients.requests) >= 20)
        ended = clients.stop()
    report = clients.report

    assert {request.outcome for request in ended} == {OK}
    assert report.achieved >= 0.95
    assert report.cpu_s / report.wall_s <= 0.05
