"""The fake engine with a context of limited length, which it names and keeps to as vLLM does."""

import json
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.fakes.completions import CHAT, error_body
from tests.fakes.engine import Engine


@dataclass
class ContextEngine(Engine):
    """Words stand for tokens: a longer prompt is refused with ``overflow_status``, or answered if that is 200."""

    max_model_len: int | None = 64
    overflow_status: int = 400

    def application(self) -> Starlette:
        """Return the ASGI application of the engine behind the limit."""
        app = super().application()
        app.user_middleware.append(Middleware(_Limit, engine=self))
        return app


class _Limit:
    def __init__(self, app: ASGIApp, engine: ContextEngine) -> None:
        self._app, self._engine = app, engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self._engine
        headers = {"x-slipway-release": engine.release, "x-slipway-commit": engine.commit}
        if scope["path"] == "/v1/models":
            card = {"id": engine.model, "object": "model", "max_model_len": engine.max_model_len}
            await JSONResponse({"object": "list", "data": [card]}, headers=headers)(scope, receive, send)
            return
        if scope["path"] != CHAT.path:
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        words = sum(len(message["content"].split()) for message in json.loads(body)["messages"])
        if words > (engine.max_model_len or words) and engine.overflow_status != 200:
            error = error_body("The prompt is too long.", "BadRequestError", engine.overflow_status)
            refusal = JSONResponse(error, status_code=engine.overflow_status, headers=headers)
            await refusal(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the whole body first, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
