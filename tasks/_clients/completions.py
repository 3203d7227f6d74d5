"""Asks a model one question and returns what came back as a frozen value.

Whatever the server does wrong becomes an ``Answer`` with an ``error``, so that a check has evidence instead of an
exception.  Answers are read by the same reader as the probe's; here the text and the usage are kept as well.
Sampling is greedy with a fixed seed, so that the same release gives the same answer to the same prompt.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from tasks._clients import answers as _answers
from tasks._clients.answers import ServerError
from tasks._clients.requests import Kind, Outcome
from tasks.records import Value

SEED = 0


class Answer(Value):
    """The answer to one prompt, whole or broken.

    ``first_token_s`` and ``latency_s`` are seconds from the request to the first token and to the end; a plain
    answer has no first token of its own.  ``release`` and ``commit`` are what its headers said.  ``error`` is one
    line of why it is no whole answer.
    """

    prompt: str
    text: str = ""
    status: int | None = None
    finish_reason: str | None = None
    release: str | None = None
    commit: str | None = None
    first_token_s: float | None = None
    latency_s: float
    completion_tokens: int | None = None
    error: str | None = None


class _Part(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Part | None = None
    message: _Part | None = None


class _Usage(BaseModel):
    completion_tokens: int


class _Body(BaseModel):
    """What is read of a plain answer and of each event of a stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None


@dataclass
class _Reading(_answers.Answer):
    """The probe's reading of an answer, with its text and its length in tokens."""

    text: str = ""
    completion_tokens: int | None = None

    def read_event(self, data: bytes, now: float) -> None:
        if data != b"[DONE]":
            self._collect(data)
        super().read_event(data, now)

    def read_body(self, body: bytes, now: float) -> None:
        self._collect(body)
        super().read_body(body, now)

    def _collect(self, data: bytes) -> None:
        try:
            body = _Body.model_validate_json(data)
        except ValidationError as error:
            excerpt = " ".join(data[:120].decode(errors="replace").split())
            raise ServerError(f"not a chat completion: {excerpt}") from error
        for choice in body.choices:
            part = choice.delta or choice.message
            self.text += (part.content or "") if part else ""
        if body.usage is not None:
            self.completion_tokens = body.usage.completion_tokens


def ask(endpoint: str, model: str, prompt: str, *, max_tokens: int, timeout_s: float, stream: bool = False) -> Answer:
    """Ask ``model`` at the base URL ``endpoint``; ``timeout_s`` bounds the whole request.

    Never raises for what the server does, an unreachable one included.
    """
    answers = ask_each(
        endpoint, model, (prompt,), max_tokens=max_tokens, timeout_s=timeout_s, stream=stream, concurrency=1
    )
    return answers[0]


def ask_each(
    endpoint: str,
    model: str,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    timeout_s: float,
    stream: bool,
    concurrency: int,
    options: Mapping[str, Any] | None = None,
) -> tuple[Answer, ...]:
    """Ask every prompt, ``concurrency`` of them at a time; the answers are in the order of the prompts.

    Never raises for what the server does.  ``timeout_s`` bounds each request from the moment it is sent;
    ``options`` are further fields of each request's body.
    """

    async def run() -> tuple[Answer, ...]:
        limit = asyncio.Semaphore(concurrency)
        # Each request has one deadline of its own, kept by the reader.
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=tls()) as client:  # noqa: S113

            async def one(prompt: str) -> Answer:
                async with limit:
                    return await _ask(client, endpoint, model, prompt, max_tokens, timeout_s, stream, options)

            return tuple(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    return asyncio.run(run())


def ask_both(
    endpoints: tuple[str, str],
    model: str,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    timeout_s: float,
    concurrency: int,
    within_s: float,
) -> tuple[tuple[Answer, Answer], ...]:
    """Ask two servers every prompt at the same moment, ``concurrency`` prompts at a time; answers are in pairs.

    So both meet the same load, and whatever disturbs one of them in time disturbs the other.  Never raises for what
    a server does.  ``timeout_s`` bounds each request, ``within_s`` all of them: what is not begun by then never is.
    """

    async def run() -> tuple[tuple[Answer, Answer], ...]:
        limit, end = asyncio.Semaphore(concurrency), time.monotonic() + within_s
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=tls()) as client:  # noqa: S113 - as above

            async def pair(prompt: str) -> tuple[Answer, Answer]:
                async with limit:
                    left = min(timeout_s, end - time.monotonic())
                    if left <= 0:
                        late = Answer(prompt=prompt, latency_s=0, error=f"not asked within {within_s:g} s")
                        return late, late
                    asked = (
                        _ask(client, endpoint, model, prompt, max_tokens, left, False, {}) for endpoint in endpoints
                    )
                    first, second = await asyncio.gather(*asked)
                    return first, second

            return tuple(await asyncio.gather(*(pair(prompt) for prompt in prompts)))

    return asyncio.run(run())


@cache
def tls() -> ssl.SSLContext:
    """Return the certificates that are trusted, read once: reading them takes 0.1 s, an answer may take less."""
    return httpx.create_ssl_context(trust_env=False)


async def _ask(
    client: httpx.AsyncClient,
    endpoint: str,
    model: str,
    prompt: str,
    max_tokens: int,
    timeout_s: float,
    stream: bool,
    options: Mapping[str, Any] | None = None,
) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "seed": SEED,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
        **(options or {}),
    }
    reading = _Reading(Kind.STREAM if stream else Kind.PLAIN, time.monotonic())
    await _answers.ask(client, f"{endpoint.rstrip('/')}/v1/chat/completions", body, reading, timeout_s)
    first = reading.first if stream else None
    return Answer(
        prompt=prompt,
        text=reading.text,
        status=reading.status,
        finish_reason=reading.finish_reason,
        release=reading.release,
        commit=reading.commit,
        first_token_s=None if first is None else first - reading.started,
        latency_s=reading.ended - reading.started,
        completion_tokens=reading.completion_tokens,
        error=None if reading.outcome is Outcome.OK else reading.note,
    )
