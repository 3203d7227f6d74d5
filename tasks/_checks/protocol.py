"""What clients of the OpenAI protocol rely on beyond a plain answer: one check for each ability.

A check asks through ``Client``, which keeps the release that every reply named, and judges the reply by its form
alone.  A request for a tool call leaves the choice to the model, as clients do: with the choice forced, an engine
whose tool parser does not fit the model would pass.
"""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from tasks._checks.rendering import one_line
from tasks._checks.scoring import is_empty
from tasks._clients.completions import SEED
from tasks.records import CheckResult, Verdict

Names = tuple[str | None, str | None]
"""The release and the commit that the headers of an answer name."""

RELEASE, COMMIT = "x-slipway-release", "x-slipway-commit"
PROMPT = "Hello"
MAX_TOKENS = 16
STRUCTURED_TOKENS = 256
"""Room for a tool call or for JSON: cut short, neither can be read."""
SPAN = 16
"""Words by which two short prompts differ, to learn how many tokens a word is."""
SHOWN = 200
"""Characters of a foreign text that evidence shows."""

_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_WEATHER = {"name": "get_weather", "description": "Get the weather of a city, now.", "parameters": _CITY}
_CHOICES = ("yes", "no")
_VERDICT = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": _CHOICES}},
    "required": ["answer"],
    "additionalProperties": False,
}


class _Function(BaseModel):
    name: str
    arguments: str


class _Call(BaseModel):
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int


class _Completion(BaseModel):
    """What is read of a completion."""

    choices: list[_Choice] = []
    usage: _Usage | None = None


@dataclass(frozen=True)
class Reply:
    """What came back for one request: ``status`` is none where nothing did, ``fault`` says why."""

    status: int | None
    names: Names
    body: dict[str, Any]
    fault: str = ""

    @property
    def said(self) -> str:
        """Return the status in words."""
        return f"no answer ({self.fault})" if self.status is None else f"status {self.status}"

    @property
    def text(self) -> str:
        """Return the text of the first choice, empty where there is none."""
        return self._message.content or ""

    @property
    def finish_reason(self) -> str | None:
        """Return why the first choice ended; none for anything that is no good answer."""
        choices = self._completion.choices
        return choices[0].finish_reason if choices and self.status == HTTPStatus.OK else None

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Return the name and the arguments of every tool call."""
        return [(call.function.name, call.function.arguments) for call in self._message.tool_calls or []]

    @property
    def prompt_tokens(self) -> int | None:
        """Return how many tokens the engine counted in the prompt."""
        usage = self._completion.usage
        return usage.prompt_tokens if usage and usage.prompt_tokens > 0 else None

    @property
    def _completion(self) -> _Completion:
        try:
            return _Completion.model_validate(self.body)
        except ValidationError:
            return _Completion()

    @property
    def _message(self) -> _Message:
        choices = self._completion.choices
        return choices[0].message if choices else _Message()


@dataclass
class Client:
    """Asks the model ``service``; ``named`` has what the headers of every reply named, by what was asked."""

    http: httpx.Client
    service: str
    named: dict[str, Names] = field(default_factory=dict)

    def models(self) -> Reply:
        """Ask for the list of models."""
        return self._kept("models", "GET", "v1/models", None)

    def chat(self, what: str, content: str, **options: object) -> Reply:
        """Ask ``content`` greedily; ``options`` are further fields of the body."""
        body = {
            "model": self.service,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "seed": SEED,
            **options,
        }
        return self._kept(what, "POST", "v1/chat/completions", body)

    def _kept(self, what: str, method: str, path: str, body: object) -> Reply:
        reply = self._send(method, path, body)
        self.named[what] = reply.names
        return reply

    def _send(self, method: str, path: str, body: object) -> Reply:
        try:
            response = self.http.request(method, path, json=body)
        except httpx.HTTPError as error:
            return Reply(None, (None, None), {}, type(error).__name__)
        names = response.headers.get(RELEASE), response.headers.get(COMMIT)
        return Reply(response.status_code, names, _object(response.content))


def overflow(client: Client, length: int | None) -> CheckResult:
    """Ask one token more than the context of ``length`` tokens holds: every word is at least one."""
    if length is None:
        return _unknown("overflow", "neither /v1/models nor the spec's engine arguments say how long a prompt may be")
    reply = client.chat("answer to a prompt that is too long", _words(length + 1), max_tokens=1)
    clean = reply.status == HTTPStatus.BAD_REQUEST and isinstance(reply.body.get("error"), dict)
    summary = f"a prompt longer than {length} tokens gives {reply.said}; 400 with a reason is right"
    return result("overflow", clean, summary)


def long_prompt(client: Client, length: int | None, share: float) -> CheckResult:
    """Ask a prompt of ``share`` of the context of ``length`` tokens; it must be read whole and answered."""
    if length is None:
        return _unknown("long_prompt", "nothing says how long a prompt may be")
    one, more = (
        client.chat(f"prompt of {words} words", _words(words), max_tokens=1).prompt_tokens for words in (1, 1 + SPAN)
    )
    if one is None or more is None or more <= one:
        return _unknown("long_prompt", "the usage of the answers does not say how long a prompt is")
    wanted = min(share * length, length - MAX_TOKENS)
    words = 1 + max(0, int((wanted - one) * SPAN / (more - one)))
    reply = client.chat("answer to a long prompt", _words(words))
    read = reply.prompt_tokens or 0
    whole = reply.finish_reason in ("stop", "length") and read >= words
    summary = f"a prompt of {words} words gives {reply.said}, {read} of {length} tokens read"
    return result("long_prompt", whole, summary)


def stop_reasons(client: Client, plain: str) -> CheckResult:
    """Ask for an end by length, and for one by a stop string: the first character of the answer ``plain``."""
    if is_empty(plain):
        return _unknown("stop_reasons", "without a plain answer there is no text to stop at")
    mark = plain.strip()[0]
    cut = client.chat("answer of one token", PROMPT, max_tokens=1, ignore_eos=True)
    stopped = client.chat("answer with a stop string", PROMPT, stop=[mark])
    good = cut.finish_reason == "length" and stopped.finish_reason == "stop" and mark not in stopped.text
    summary = (
        f"one token ends by {cut.finish_reason}, length is right; "
        f"a stop string ends by {stopped.finish_reason}, stop is right"
    )
    return result("stop_reasons", good, summary, f"before the stop string {_shown(mark)}: {_shown(stopped.text)}")


def tool_call(client: Client) -> CheckResult:
    """Offer a tool that the question needs; the answer must be a call of it with JSON arguments that fit."""
    reply = client.chat(
        "answer with a tool call",
        "What is the weather in Paris now? Call get_weather to find out.",
        max_tokens=STRUCTURED_TOKENS,
        tools=[{"type": "function", "function": _WEATHER}],
        tool_choice="auto",
    )
    calls = reply.calls
    fit = [name == _WEATHER["name"] and isinstance(_read(text).get("city"), str) for name, text in calls]
    good = reply.finish_reason == "tool_calls" and bool(fit) and all(fit)
    summary = f"{reply.said}, {sum(fit)} of {len(calls)} calls fit the tool, ended by {reply.finish_reason}"
    shown = [f"{name}({_shown(text)})" for name, text in calls] or [f"text instead: {_shown(reply.text)}"]
    return result("tool_call", good, summary, *shown)


def json_output(client: Client) -> CheckResult:
    """Ask for an answer by a JSON schema; it must be JSON that fits, and nothing else."""
    reply = client.chat(
        "answer in JSON",
        'Is Paris the capital of France? Answer in JSON, like {"answer": "yes"}.',
        max_tokens=STRUCTURED_TOKENS,
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": _VERDICT}},
    )
    good = reply.finish_reason == "stop" and _read(reply.text).get("answer") in _CHOICES
    summary = f"{reply.said}, ended by {reply.finish_reason}; JSON by the schema is {'right' if good else 'missing'}"
    return result("json_output", good, summary, _shown(reply.text))


def result(name: str, good: bool, summary: str, *shown: str) -> CheckResult:
    """Return the verdict of a check that was made."""
    verdict = Verdict.PASS if good else Verdict.FAIL
    return CheckResult(name=name, verdict=verdict, summary=summary, evidence=shown)


def _unknown(name: str, why: str) -> CheckResult:
    return CheckResult(name=name, verdict=Verdict.INCONCLUSIVE, summary=why)


def _words(count: int) -> str:
    return "word " * count


def _shown(text: str) -> str:
    return one_line(text, SHOWN) or "nothing"


def _read(text: str) -> dict[str, Any]:
    return _object(text.encode(errors="replace"))


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, an empty one where there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
