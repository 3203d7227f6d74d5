"""What every answer of a release carries, and which paths exist."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from serve.edge import AllowedPaths, App, Message, ReleaseHeaders, Scope

COMMIT = "0123456789abcdef0123456789abcdef01234567"


async def _plain(_: Request) -> Response:
    return PlainTextResponse("plain", headers={"connection": "keep-alive", "x-slipway-release": "forged"})


async def _stream(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"data: 1\n\n", b"data: [DONE]\n\n"):
            yield piece

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def _named(request: Request) -> Response:
    return PlainTextResponse(", ".join(request.headers.getlist("x-request-id")))


async def _broken(_: Request) -> Response:
    raise RuntimeError("the engine died")


def engine() -> Starlette:
    """Return an application with what a model server has: answers, streams, errors and too many routes."""
    routes = {"/v1/plain": _plain, "/v1/stream": _stream, "/v1/broken": _broken, "/v1/id": _named, "/health": _plain}
    more = {"/invocations": _plain, "/v1": _plain, "/collective_rpc": _plain, "/docs": _plain}
    return Starlette(
        routes=[Route(path, answer, methods=["GET", "POST"]) for path, answer in {**routes, **more}.items()]
    )


def ask(
    app: App, path: str, *, method: str = "GET", root_path: str = "", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send one request as Serve's proxy does: the route prefix in both the path and the root path."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)

    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://release") as client:
            return await client.request(method, root_path + path, headers=headers)

    return asyncio.run(sent())


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/plain", 200), ("/v1/stream", 200), ("/v1/broken", 500), ("/v1/none", 404), ("/x", 404)]
)
def test_every_answer_says_which_release_gave_it(path: str, status: int) -> None:
    """Errors and refusals too: an answer without the headers did not come from a release."""
    answer = ask(ReleaseHeaders(AllowedPaths(engine()), "chat-r7", COMMIT), path)

    assert answer.status_code == status
    assert answer.headers.get_list("x-slipway-release") == ["chat-r7"]
    assert answer.headers.get_list("x-slipway-commit") == [COMMIT]


def test_the_id_of_a_request_begins_with_the_release() -> None:
    """The client's own id stays in it, and the engine is told the same one that the answer says."""
    answer = ask(
        ReleaseHeaders(AllowedPaths(engine()), "chat-r7", COMMIT), "/v1/id", headers={"X-Request-ID": "abc-1.2"}
    )

    assert answer.text == "chat-r7-abc-1.2"
    assert answer.headers.get_list("x-slipway-request") == ["chat-r7-abc-1.2"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "a;b"])
def test_an_id_that_could_forge_a_line_is_replaced(given: str) -> None:
    """So is none at all, and no two of ours are equal."""
    app = ReleaseHeaders(AllowedPaths(engine()), "chat-r7", COMMIT)
    first, second = (ask(app, "/v1/id", headers={"x-request-id": given}) for _ in range(2))

    assert re.fullmatch("chat-r7-[0-9a-f]{32}", first.text)
    assert first.text == first.headers["x-slipway-request"] != second.text


def test_draining_asks_clients_to_reconnect_and_can_be_undone() -> None:
    """The same answers, with one header more, as long as the switch is on."""
    app = ReleaseHeaders(engine(), "chat-r7", COMMIT)
    before = ask(app, "/v1/plain")
    app.draining = True
    during, streamed = ask(app, "/v1/plain"), ask(app, "/v1/stream")
    app.draining = False
    after = ask(app, "/v1/plain")

    assert [a.headers["connection"] for a in (before, after)] == ["keep-alive"] * 2
    assert [a.headers.get_list("connection") for a in (during, streamed)] == [["close"]] * 2
    assert (during.text, streamed.text) == ("plain", "data: 1\n\ndata: [DONE]\n\n")


def test_a_stream_is_passed_on_piece_by_piece() -> None:
    """The first piece leaves before the second exists."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        assert sent[-1]["body"] == b"1"
        await send({"type": "http.response.body", "body": b"2"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "path": "/v1/x", "root_path": ""}
    asyncio.run(ReleaseHeaders(AllowedPaths(app), "chat-r7", COMMIT)(scope, receive, send))

    assert [message.get("body") for message in sent] == [None, b"1", b"2"]


@pytest.mark.parametrize("root_path", ["", "/chat", "/chat-r7"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/v1/plain", True),
        ("/health", True),
        ("/invocations", False),
        ("/collective_rpc", False),
        ("/docs", False),
        ("/v1", False),
        ("/health/x", False),
    ],
)
def test_only_listed_paths_exist(path: str, there: bool, method: str, root_path: str) -> None:
    """The unguarded extras of a model server answer 404 under every prefix."""
    answer = ask(AllowedPaths(engine()), path, method=method, root_path=root_path)

    assert answer.status_code == (200 if there else 404)


def test_a_prefix_of_the_name_is_not_the_prefix() -> None:
    """``/chat`` does not strip ``/chat-r7``, and a path cannot climb out of its prefix."""
    assert ask(AllowedPaths(engine()), "-r7/health", root_path="/chat").status_code == 404
    assert ask(AllowedPaths(engine()), "//invocations", root_path="/chat").status_code == 404


def test_a_websocket_elsewhere_is_closed() -> None:
    """A path that does not exist for requests does not exist for sockets."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(AllowedPaths(engine())({"type": "websocket", "path": "/debug"}, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1008}]
