"""Whatever a server does, asking it gives an answer that says what happened."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tasks._clients.completions import Answer, ask, ask_each
from tests.fakes.engine import Engine, Fault, serving

TEXT = "The capital of France is Paris."


@dataclass
class RawEngine(Engine):
    """Answers every request with the same bytes."""

    content: bytes = b""
    media_type: str = "application/json"

    def application(self) -> Starlette:
        """Return an application with one answer."""
        headers = {"x-slipway-release": self.release, "x-slipway-commit": self.commit}

        def answer(_request: Request) -> Response:
            return Response(self.content, media_type=self.media_type, headers=headers)

        return Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Engine, str]]:
    """One engine for all faults, with its address."""
    engine = Engine()
    with serving(engine) as url:
        yield engine, url


@pytest.fixture
def engine(shared: tuple[Engine, str]) -> Iterator[Engine]:
    """The shared engine, put right again afterwards."""
    engine, _ = shared
    yield engine
    engine.fault, engine.answer, engine.delay_s = Fault.NONE, lambda _messages: TEXT, 0.0


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[RawEngine, str]]:
    """A server of any bytes, with its address."""
    engine = RawEngine()
    with serving(engine) as url:
        yield engine, url


def question(url: str, *, stream: bool, timeout_s: float = 5) -> Answer:
    """Ask for the capital of France."""
    return ask(url, "chat", "What?", max_tokens=16, timeout_s=timeout_s, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_whole_answer(shared: tuple[Engine, str], engine: Engine, stream: bool) -> None:
    """Text, ending, length, times and origin are kept; sampling is greedy and seeded."""
    answer = question(shared[1], stream=stream)

    assert (answer.text, answer.finish_reason, answer.completion_tokens) == (TEXT, "stop", 6)
    assert (answer.status, answer.error) == (200, None)
    assert (answer.release, answer.commit) == ("chat-r1", "1" * 40)
    assert (answer.first_token_s is not None) == stream
    assert 0 <= (answer.first_token_s or 0) <= answer.latency_s
    assert engine.seen[-1].body["temperature"] == 0
    assert "seed" in engine.seen[-1].body
    assert Answer.from_json(answer.to_json()) == answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.CUT,
        Fault.RESET,
        Fault.RESET_MIDWAY,
        Fault.STATUS_500,
        Fault.STATUS_503,
        Fault.REDIRECT,
        Fault.ERROR_BODY,
        Fault.GARBAGE,
        Fault.NO_FINISH,
        Fault.ABORT,
        Fault.NO_HEADERS,
        Fault.WRONG_HEADERS,
    ],
    ids=str,
)
def test_a_broken_answer_has_an_error(shared: tuple[Engine, str], engine: Engine, fault: Fault, stream: bool) -> None:
    """Each way to break an answer ends in an answer with one line of why."""
    engine.fault = fault
    answer = question(shared[1], stream=stream)

    assert answer.error
    assert "\n" not in answer.error


@pytest.mark.parametrize("fault", [Fault.ERROR_EVENT, Fault.NO_DONE], ids=str)
def test_a_stream_that_does_not_end_well_has_an_error(
    shared: tuple[Engine, str], engine: Engine, fault: Fault
) -> None:
    """A stream needs its last line, and no error on the way; what came before is kept as evidence."""
    engine.fault = fault
    answer = question(shared[1], stream=True)

    assert answer.error
    assert answer.text


@pytest.mark.parametrize(("fault", "stream"), [(Fault.HANG, False), (Fault.HANG_MIDWAY, True)])
def test_the_deadline_bounds_the_whole_request(
    shared: tuple[Engine, str], engine: Engine, fault: Fault, stream: bool
) -> None:
    """A server that hangs, at once or later, costs no more than the time it was given."""
    engine.fault = fault
    started = time.monotonic()
    answer = question(shared[1], stream=stream, timeout_s=0.3)

    assert "0.3 s" in (answer.error or "")
    assert time.monotonic() - started < 2


def test_nobody_there() -> None:
    """An address at which nothing listens is an answer with an error, without a status."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = question(f"http://127.0.0.1:{port}", stream=False)

    assert answer.status is None
    assert answer.error


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'{"choices": null}',
        b'{"choices": ["text"]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}',
        b'{"choices": [], "usage": {"completion_tokens": "many"}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=range(11),
)
@pytest.mark.parametrize("stream", [False, True])
def test_shapes_that_no_protocol_has(raw: tuple[RawEngine, str], content: bytes, stream: bool) -> None:
    """JSON of another shape is a broken answer, not an exception."""
    engine, url = raw
    engine.content = b"data: " + content + b"\n\ndata: [DONE]\n\n" if stream else content
    engine.media_type = "text/event-stream" if stream else "application/json"
    answer = question(url, stream=stream)

    assert answer.error
    assert answer.to_json()


def test_answers_come_in_the_order_of_the_prompts(shared: tuple[Engine, str], engine: Engine) -> None:
    """Asked at once, answers are still told apart, and no more are open than were allowed."""
    engine.answer = lambda messages: messages[-1]["content"]
    prompts = [f"number {number}" for number in range(8)]
    answers = ask_each(shared[1], "chat", prompts, max_tokens=8, timeout_s=5, stream=True, concurrency=4)

    assert [answer.text for answer in answers] == [answer.prompt for answer in answers] == prompts


@pytest.mark.parametrize(("concurrency", "least_s"), [(1, 0.36), (2, 0.18)])
def test_concurrency_is_bounded(shared: tuple[Engine, str], engine: Engine, concurrency: int, least_s: float) -> None:
    """Six answers of 60 ms each take three or six times as long, two or one at a time."""
    engine.answer, engine.delay_s = lambda _messages: "word", 0.06
    started = time.monotonic()
    ask_each(shared[1], "chat", list("abcdef"), max_tokens=4, timeout_s=5, stream=False, concurrency=concurrency)

    assert least_s <= time.monotonic() - started < 2
