"""How vLLM words a completion: the bodies and stream events of its two OpenAI endpoints.

Words stand for tokens.  A stream opens with the role, carries one token per event, and ends with an empty
event that holds the ``finish_reason``, the usage where it was asked for, and ``[DONE]``.
"""

import json
import re
import time
from dataclasses import dataclass
from typing import Any

Messages = list[dict[str, Any]]

UNLIMITED_TOKENS = 10_000


@dataclass(frozen=True)
class Endpoint:
    """One of the two completion endpoints; they differ in names and in where the text is."""

    path: str
    whole_name: str
    chunk_name: str
    is_chat: bool

    def messages(self, body: dict[str, Any]) -> Messages:
        """Return what was asked; raises ``KeyError`` or ``TypeError`` where the body lacks it."""
        return list(body["messages"]) if self.is_chat else [{"role": "user", "content": body["prompt"]}]

    def whole(self, text: str) -> dict[str, Any]:
        """Return the text as a choice of a plain answer holds it."""
        return {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}

    def part(self, text: str, **more: str) -> dict[str, Any]:
        """Return the text as a choice of a stream's event holds it."""
        return {"delta": {**more, "content": text}} if self.is_chat else {"text": text}


CHAT = Endpoint("/v1/chat/completions", "chat.completion", "chat.completion.chunk", is_chat=True)
TEXT = Endpoint("/v1/completions", "text_completion", "text_completion", is_chat=False)


@dataclass(frozen=True)
class Generation:
    """One answer: the tokens said, and how it ends."""

    endpoint: Endpoint
    base: dict[str, Any]
    tokens: list[str]
    finish: str
    usage: dict[str, int]

    def event(self, part: dict[str, Any], finish: str | None = None) -> str:
        """Return one event of the stream."""
        choice = part | {"index": 0, "finish_reason": finish}
        return event(self.base | {"object": self.endpoint.chunk_name, "choices": [choice]})

    def whole(self, finish: str | None) -> bytes:
        """Return the body of the plain answer."""
        choice = self.endpoint.whole("".join(self.tokens)) | {"index": 0, "finish_reason": finish}
        more = {"object": self.endpoint.whole_name, "choices": [choice], "usage": self.usage}
        return json.dumps(self.base | more).encode()


def generate(endpoint: Endpoint, body: dict[str, Any], messages: Messages, text: str) -> Generation:
    """Return ``text`` as the answer to ``body``, cut at its ``max_tokens``."""
    tokens = re.findall(r"\s*\S+", text)
    limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or UNLIMITED_TOKENS)
    finish = "length" if len(tokens) > limit else "stop"
    tokens, asked = tokens[:limit], len(str(messages).split())
    usage = {"prompt_tokens": asked, "completion_tokens": len(tokens), "total_tokens": asked + len(tokens)}
    base = {"id": f"cmpl-{time.monotonic_ns():x}", "created": int(time.time()), "model": body["model"]}
    return Generation(endpoint, base, tokens, finish, usage)


def event(value: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    """Return an error as vLLM words it, in a body and in a stream alike."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
