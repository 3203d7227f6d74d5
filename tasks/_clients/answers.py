"""One request to an OpenAI server, read to its end and judged as its client would judge it.

``ask`` never retries and never raises for anything the server did: whatever happens ends in an ``Answer`` with an
outcome and one line of why.  The order of judgement is the order of its causes: no connection, a status that
is not 2xx, no release named, an error reported by the server, a deadline, a cut, a missing end.

The stream is split at newline bytes, not by ``httpx``'s ``aiter_lines``: that one also splits at U+2028, U+0085
and the like, which vLLM writes unescaped inside a token, and a healthy stream would count as lost.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tasks._clients.requests import Kind, Outcome

RELEASE = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?-r[1-9][0-9]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
WHOLE = frozenset({"stop", "length"})
EXCERPT = 120


class ServerError(Exception):
    """The server answered with an error, or with what cannot be read; ends the reading of one answer."""


@dataclass
class Answer:
    """What came back, filled while it comes; moments are seconds of the monotonic clock."""

    kind: Kind
    started: float
    answered: float | None = None
    first: float | None = None
    last: float | None = None
    ended: float = 0.0
    status: int | None = None
    release: str | None = None
    commit: str | None = None
    finish_reason: str | None = None
    chunks: int = 0
    longest_gap_s: float = 0.0
    done: bool = False
    outcome: Outcome = Outcome.LOST
    note: str = ""

    @property
    def is_open(self) -> bool:
        """Return whether a token has come and the end has not."""
        return self.first is not None and not self.ended

    def read_event(self, data: bytes, now: float) -> None:
        """Take in the data of one event; raises ``ServerError`` where it is an error or unreadable."""
        if data == b"[DONE]":
            self.done = True
            return
        event = _object(data)
        for choice in event.get("choices", ()):
            self._take(choice, now)

    def read_body(self, body: bytes, now: float) -> None:
        """Take in a plain answer; raises ``ServerError`` where it is an error or unreadable."""
        answer = _object(body)
        if not answer.get("choices"):
            raise ServerError(f"an answer without choices: {_excerpt(body)}")
        for choice in answer["choices"]:
            self._take(choice, now)
        self.done = True

    def _take(self, choice: Mapping[str, Any], now: float) -> None:
        part = choice.get("delta") or choice.get("message") or {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if part.get("content") or part.get("reasoning_content"):
            self.first = self.first or now
            self.last = now
            self.chunks += 1

    def judge(self, failure: Exception | None, deadline_s: float) -> None:
        """Set the outcome, from what was read and from what ended the reading."""
        self.outcome, self.note = self._verdict(failure, deadline_s)

    def _verdict(self, failure: Exception | None, deadline_s: float) -> tuple[Outcome, str]:
        if isinstance(failure, ServerError):
            return Outcome.LOST, str(failure)
        if isinstance(failure, TimeoutError) and not self._is_whole:
            return Outcome.LOST, f"no end within {deadline_s:g} s"
        if self.status is None:
            return Outcome.LOST, _one_line(failure)
        if not self._is_whole:
            return Outcome.TRUNCATED, self._what_is_missing(failure)
        if failure is not None:
            return Outcome.OK, f"whole, then {type(failure).__name__}"
        return Outcome.OK, "" if self.first else "empty text"

    @property
    def _is_whole(self) -> bool:
        return self.done and self.finish_reason in WHOLE

    def _what_is_missing(self, failure: Exception | None) -> str:
        if failure is not None:
            return f"cut after {self.chunks} chunks: {_one_line(failure)}"
        if self.finish_reason is None:
            return "no finish_reason"
        if self.finish_reason not in WHOLE:
            return f"finish_reason {self.finish_reason}"
        return "no [DONE]"


async def ask(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], answer: Answer, deadline_s: float
) -> None:
    """Send one chat completion and fill ``answer``; only cancellation is raised, as a lost answer."""
    failure: Exception | None = None
    try:
        async with asyncio.timeout(deadline_s), client.stream("POST", url, json=body) as response:
            await _read(response, answer)
    except (httpx.HTTPError, TimeoutError, ServerError) as error:
        failure = error
    except asyncio.CancelledError:
        failure = ServerError("still open when the probe's time was over")
        raise
    finally:
        answer.ended = time.monotonic()
        if answer.kind is Kind.STREAM and answer.last is not None:
            answer.longest_gap_s = max(answer.longest_gap_s, answer.ended - answer.last)
        answer.judge(failure, deadline_s)


async def _read(response: httpx.Response, answer: Answer) -> None:
    answer.answered, answer.status = time.monotonic(), response.status_code
    answer.release = _named(response, "x-slipway-release", RELEASE)
    answer.commit = _named(response, "x-slipway-commit", COMMIT)
    if not response.is_success:
        raise ServerError(f"HTTP {response.status_code}: {_excerpt(await response.aread())}")
    for header, read in (("release", answer.release), ("commit", answer.commit)):
        if read is None:
            raise ServerError(_misnamed(response, f"x-slipway-{header}"))
    if answer.kind is Kind.PLAIN:
        body = await response.aread()
        answer.read_body(body, time.monotonic())
    elif not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise ServerError(f"not a stream: {_excerpt(await response.aread())}")
    else:
        await _read_stream(response, answer)


async def _read_stream(response: httpx.Response, answer: Answer) -> None:
    rest, before = b"", None
    async for piece in response.aiter_bytes():
        now = time.monotonic()
        if before is not None:
            answer.longest_gap_s = max(answer.longest_gap_s, now - before)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                answer.read_event(line[5:].strip(), now)
        before = now if answer.first is not None else None


def _named(response: httpx.Response, header: str, pattern: re.Pattern[str]) -> str | None:
    """Return what a header names, or none where it is absent or no such name."""
    value = response.headers.get(header, "")
    return value if pattern.fullmatch(value) else None


def _misnamed(response: httpx.Response, header: str) -> str:
    value = response.headers.get(header)
    return f"no header {header}" if value is None else f"header {header} is {_excerpt(value.encode())}"


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``; raises ``ServerError`` where there is none, or it is an error."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ServerError(f"not JSON: {_excerpt(data)}") from error
    if not isinstance(value, dict) or "error" in value or value.get("object") == "error":
        raise ServerError(f"an error for an answer: {_excerpt(data)}")
    return value


def _excerpt(data: bytes) -> str:
    """Return the beginning of foreign text, in one line."""
    return " ".join(data[: 4 * EXCERPT].decode(errors="replace").split())[:EXCERPT]


def _one_line(failure: Exception | None) -> str:
    return f"{type(failure).__name__}: {_excerpt(str(failure).encode())}".rstrip(": ")
