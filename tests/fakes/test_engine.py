"""The fake engine does what it says: right answers are right, and each fault is the one that was ordered."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.engine import Engine, Fault, serving

ANSWER = "The capital of France is Paris."


@pytest.fixture
def engine() -> Engine:
    """An engine that has not been broken yet."""
    return Engine()


@pytest.fixture
def client(engine: Engine) -> Iterator[httpx.Client]:
    """A client of the engine, over a real socket."""
    with serving(engine) as url, httpx.Client(base_url=url, timeout=2) as client:
        yield client


def chat(stream: bool = False, **more: object) -> dict[str, object]:
    """Return the body of a chat request."""
    return {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **more}


def events(response: httpx.Response) -> list[str]:
    """Return the data of each event of a stream."""
    return [line.removeprefix("data: ") for line in response.text.splitlines() if line]


def test_plain_answer(client: httpx.Client) -> None:
    """A plain chat completion holds the text, the reason it ended, and the release that gave it."""
    response = client.post("/v1/chat/completions", json=chat())

    assert response.json()["choices"][0]["message"]["content"] == ANSWER
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    assert response.headers["x-slipway-release"] == "chat-r1"
    assert response.headers["x-slipway-commit"] == "1" * 40


def test_streamed_answer(client: httpx.Client) -> None:
    """A stream carries one token per event, then the finish reason, the usage asked for, and [DONE]."""
    asked = chat(stream=True, max_tokens=3, stream_options={"include_usage": True})
    seen = events(client.post("/v1/chat/completions", json=asked))
    chunks = [json.loads(line) for line in seen[:-1]]

    assert seen[-1] == "[DONE]"
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks[:-1]) == "The capital of"


def test_text_completion(client: httpx.Client) -> None:
    """The older endpoint gives the same answer under its own names."""
    response = client.post("/v1/completions", json={"model": "chat", "prompt": "Hi"})

    assert response.json()["choices"][0]["text"] == ANSWER


def test_models(client: httpx.Client) -> None:
    """The list of models names the service and carries the release."""
    response = client.get("/v1/models")

    assert [card["id"] for card in response.json()["data"]] == ["chat"]
    assert response.headers["x-slipway-release"] == "chat-r1"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"model": "chat"}, 400), (chat() | {"model": "other"}, 404)],
    ids=["no messages", "model"],
)
def test_bad_request(client: httpx.Client, body: dict[str, object], status: int) -> None:
    """What the engine cannot answer is an error in vLLM's words."""
    response = client.post("/v1/chat/completions", json=body)

    assert response.status_code == status
    assert response.json()["error"]["code"] == status


def test_stream_keeps_its_release(engine: Engine, client: httpx.Client) -> None:
    """A stream that is open when the release changes ends whole, on the release it began on."""
    engine.delay_s = 0.02
    with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        engine.switch("chat-r2", "2" * 40)
        rest = list(lines)

    assert response.headers["x-slipway-release"] == "chat-r1"
    assert rest[-2] == "data: [DONE]"
    assert client.get("/v1/models").headers["x-slipway-release"] == "chat-r2"


def test_sticky_until_draining(engine: Engine, client: httpx.Client) -> None:
    """A kept-alive connection stays on its release until that one drains, then the next one is new."""
    engine.sticky = True
    client.get("/v1/models")
    engine.switch("chat-r2", "2" * 40)
    stuck = client.get("/v1/models")
    engine.draining = {"chat-r1"}
    last = client.get("/v1/models")
    moved = client.get("/v1/models")

    releases = [r.headers["x-slipway-release"] for r in (stuck, last, moved)]
    assert releases == ["chat-r1", "chat-r1", "chat-r2"]
    assert last.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.CUT, httpx.RemoteProtocolError),
        (Fault.RESET, httpx.ReadError),
        (Fault.RESET_MIDWAY, httpx.ReadError),
        (Fault.HANG, httpx.ReadTimeout),
        (Fault.HANG_MIDWAY, httpx.ReadTimeout),
    ],
)
def test_broken_connection(engine: Engine, client: httpx.Client, fault: Fault, error: type[httpx.HTTPError]) -> None:
    """Faults of the connection reach a client as that connection's own error."""
    engine.fault = fault
    with pytest.raises(error):
        client.post("/v1/chat/completions", json=chat(stream=True), timeout=0.2)


def test_broken_stream(engine: Engine, client: httpx.Client) -> None:
    """Faults inside a stream leave out or replace exactly what they name."""
    seen = {}
    for fault in (Fault.NO_DONE, Fault.NO_FINISH, Fault.ERROR_EVENT, Fault.ABORT, Fault.EMPTY):
        engine.fault = fault
        seen[fault] = events(client.post("/v1/chat/completions", json=chat(stream=True)))
    finishes = {fault: [f'"finish_reason": "{r}"' for r in ("stop", "abort")] for fault in seen}
    ended = {fault: [f in "".join(lines) for f in finishes[fault]] for fault, lines in seen.items()}

    assert "[DONE]" not in seen[Fault.NO_DONE]
    assert ended[Fault.NO_DONE] == [True, False]
    assert ended[Fault.NO_FINISH] == [False, False]
    assert ended[Fault.ABORT] == [False, True]
    assert '"error"' in seen[Fault.ERROR_EVENT][-2]
    assert len(seen[Fault.EMPTY]) == 3


def test_healthy_requests_come_first(engine: Engine, client: httpx.Client) -> None:
    """A fault waits for the requests that were to be answered before it."""
    engine.fault, engine.healthy_requests = Fault.STATUS_503, 2
    statuses = [client.post("/v1/chat/completions", json=chat()).status_code for _ in range(4)]

    assert statuses == [200, 200, 503, 503]
    assert [seen.path for seen in engine.seen] == ["/v1/chat/completions"] * 4


def test_ends_as_asked(client: httpx.Client) -> None:
    """A stop string ends the text before it; without an end of its own the text goes on to the limit."""
    stopped = client.post("/v1/chat/completions", json=chat(stop=["France"])).json()["choices"][0]
    forced = client.post("/v1/chat/completions", json=chat(ignore_eos=True, max_tokens=8)).json()["choices"][0]

    assert ("The capital of", "stop") == (stopped["message"]["content"], stopped["finish_reason"])
    assert (f"{ANSWER}The capital", "length") == (forced["message"]["content"], forced["finish_reason"])


def test_tool_call_and_json(engine: Engine, client: httpx.Client) -> None:
    """A tool that is offered is called with the ordered arguments, or not; JSON that is asked for is given."""
    tools = chat(tools=[{"type": "function", "function": {"name": "weather"}}])
    called = client.post("/v1/chat/completions", json=tools).json()["choices"][0]
    engine.tool_arguments = None
    said = client.post("/v1/chat/completions", json=tools).json()["choices"][0]
    given = client.post("/v1/chat/completions", json=chat(response_format={"type": "json_object"})).json()["choices"][
        0
    ]

    assert "tool_calls" == called["finish_reason"]
    assert {"name": "weather", "arguments": '{"city": "Paris"}'} == called["message"]["tool_calls"][0]["function"]
    assert (ANSWER, "stop") == (said["message"]["content"], said["finish_reason"])
    assert engine.json_text == given["message"]["content"]


@pytest.mark.slow
def test_a_crowd_is_slow(engine: Engine, client: httpx.Client) -> None:
    """Each other open request adds its time to every token."""
    engine.crowd_s, engine.delay_s = 0.15, 0.01
    began = time.monotonic()
    client.post("/v1/chat/completions", json=chat(max_tokens=2))
    alone, began = time.monotonic() - began, time.monotonic()
    with client.stream(
        "POST", "/v1/chat/completions", json=chat(stream=True, ignore_eos=True, max_tokens=400)
    ) as other:
        lines = other.iter_lines()
        next(lines)
        client.post("/v1/chat/completions", json=chat(max_tokens=2))

    assert time.monotonic() - began >= 0.3 > alone
