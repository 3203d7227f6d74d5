"""How vLLM words a completion: the bodies and stream events of its two OpenAI endpoints.

Words stand for tokens.  A stream opens with the role, carries one token per event, and ends with an empty
event that holds the ``finish_reason``, the usage where it was asked for, and ``[DONE]``.  ``stop`` ends a text before
the string it names, ``ignore_eos`` says the text again and again up to ``max_tokens``.
"""

import json
import re
import time
from dataclasses import dataclass
from itertools import cycle, islice
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

    def whole(self, text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the text, or the tool calls in its place, as a choice of a plain answer holds them."""
        if not self.is_chat:
            return {"text": text}
        return {"message": {"role": "assistant", "content": None if calls else text, "tool_calls": calls}}

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
    calls: list[dict[str, Any]]

    def event(self, part: dict[str, Any], finish: str | None = None) -> str:
        """Return one event of the stream."""
        choice = part | {"index": 0, "finish_reason": finish}
        return event(self.base | {"object": self.endpoint.chunk_name, "choices": [choice]})

    def whole(self, finish: str | None) -> bytes:
        """Return the body of the plain answer."""
        choice = self.endpoint.whole("".join(self.tokens), self.calls) | {"index": 0, "finish_reason": finish}
        more = {"object": self.endpoint.whole_name, "choices": [choice], "usage": self.usage}
        return json.dumps(self.base | more).encode()


def generate(
    endpoint: Endpoint, body: dict[str, Any], messages: Messages, text: str, call: tuple[str, str] | None = None
) -> Generation:
    """Return ``text`` as the answer to ``body``, cut at its ``max_tokens``; or the ``call`` of a tool, as asked."""
    text = _before_stop(text, body.get("stop") or [])
    tokens = re.findall(r"\s*\S+", text)
    limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or UNLIMITED_TOKENS)
    if body.get("ignore_eos"):
        tokens = list(islice(cycle(tokens), limit))
    finish = "length" if len(tokens) > limit or body.get("ignore_eos") else "stop"
    tokens, asked = tokens[:limit], len(str(messages).split())
    usage = {"prompt_tokens": asked, "completion_tokens": len(tokens), "total_tokens": asked + len(tokens)}
    base = {"id": f"cmpl-{time.monotonic_ns():x}", "created": int(time.time()), "model": body["model"]}
    if call is None:
        return Generation(endpoint, base, tokens, finish, usage, [])
    function = {"name": call[0], "arguments": call[1]}
    calls = [{"id": "call-0", "type": "function", "function": function}]
    return Generation(endpoint, base, [], "tool_calls", usage, calls)


def _before_stop(text: str, stops: list[str]) -> str:
    return min((text.partition(stop)[0] for stop in stops), key=len, default=text)


def event(value: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def error_body(message: str, kind: str, code: int) -> dict[str, Any]:
    """Return an error as vLLM words it, in a body and in a stream alike."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
