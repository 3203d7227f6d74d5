"""Posts JSON to servers that speak the OpenAI protocol, many requests at a time.

For what is not a completion to be judged: scores of a given text, embeddings, the opinion of a judging model.  Those
servers need not be Slipway's, so nothing is asked of their headers.  Nothing is raised for what a server does.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from tasks._clients.completions import tls

EXCERPT = 120
"""Characters of a foreign message that are kept."""


@dataclass(frozen=True)
class Reply:
    """The JSON object that came back, or one line of why not; ``declined`` where the server did not understand."""

    body: dict[str, Any]
    error: str = ""
    declined: bool = False


@dataclass(frozen=True)
class Pace:
    """How long and how many: seconds for one request, seconds for all of them, and requests at a time."""

    timeout_s: float
    within_s: float
    concurrency: int


def post_each(requests: Sequence[tuple[str, dict[str, Any]]], pace: Pace) -> tuple[Reply, ...]:
    """Post each body to its URL and return the replies in the order of the requests."""

    async def run() -> tuple[Reply, ...]:
        limit, end = asyncio.Semaphore(pace.concurrency), time.monotonic() + pace.within_s
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=tls()) as client:  # noqa: S113 - below

            async def one(url: str, body: dict[str, Any]) -> Reply:
                async with limit:
                    return await _post(client, url, body, min(pace.timeout_s, end - time.monotonic()))

            return tuple(await asyncio.gather(*(one(url, body) for url, body in requests)))

    return asyncio.run(run())


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any], timeout_s: float) -> Reply:
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.post(url, json=body)
    except TimeoutError:
        return Reply({}, f"no answer within {max(timeout_s, 0):.3g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Reply({}, type(error).__name__)
    if not response.is_success:
        refused = response.is_client_error and response.status_code != HTTPStatus.TOO_MANY_REQUESTS
        return Reply({}, f"HTTP {response.status_code}: {' '.join(response.text.split())[:EXCERPT]}", refused)
    try:
        value = response.json()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return Reply({}, "an answer that is no JSON object")
    return Reply({}, "an error for an answer") if "error" in value else Reply(value)
