"""Smoke checks: the candidate speaks the protocol, and it is the candidate that speaks.

They say nothing about how good the answers are: a model that talks nonsense passes.  The prompt that is too long
comes first, because an engine that it kills then fails the checks after it.
"""

from collections.abc import Mapping
from http import HTTPStatus

import httpx

from tasks._completions import Answer, ask, tls
from tasks._rendering import evidence
from tasks._scoring import is_empty
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec

PROMPT = "Hello"
MAX_TOKENS = 16
RELEASE, COMMIT = "x-slipway-release", "x-slipway-commit"


def smoke(endpoint: str, release: Release, spec: ServiceSpec) -> tuple[CheckResult, ...]:
    """Return the smoke checks of ``release`` at its own base URL ``endpoint``.

    Never raises for what the candidate does; each request may take ``spec.deadlines.request`` seconds.
    """
    seconds = spec.deadlines.request
    base = endpoint.rstrip("/") + "/"
    with httpx.Client(base_url=base, timeout=seconds, trust_env=False, verify=tls()) as client:
        card = _request(client, "GET", "v1/models")
        length = _context_length(card, release.service) or spec.engine.get("max_model_len")
        overflow = _request(client, "POST", "v1/chat/completions", _too_long(release, length)) if length else None
    plain, streamed = (
        ask(endpoint, release.service, PROMPT, max_tokens=MAX_TOKENS, timeout_s=seconds, stream=stream)
        for stream in (False, True)
    )
    named = {"models": _headers(card), "plain answer": _names(plain), "streamed answer": _names(streamed)}
    if overflow is not None:
        named["answer to a prompt that is too long"] = _headers(overflow)
    return (
        _models(card, release.service),
        _overflow(overflow, length),
        _answers("plain", plain),
        _answers("stream", streamed),
        _identity(named, release),
    )


def _request(client: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response | httpx.HTTPError:
    try:
        return client.request(method, path, json=body)
    except httpx.HTTPError as error:
        return error


def _too_long(release: Release, length: int) -> dict[str, object]:
    """Return a request of at least one token more than the context holds: every word is at least one."""
    content = "word " * (length + 1)
    return {
        "model": release.service,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "temperature": 0,
    }


def _cards(response: httpx.Response | httpx.HTTPError) -> list[dict[str, object]]:
    data = _object(response).get("data")
    return [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []


def _object(response: httpx.Response | httpx.HTTPError) -> dict[str, object]:
    if isinstance(response, httpx.HTTPError):
        return {}
    try:
        value = response.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _context_length(response: httpx.Response | httpx.HTTPError, service: str) -> int | None:
    lengths = [card.get("max_model_len") for card in _cards(response) if card.get("id") == service]
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def _models(response: httpx.Response | httpx.HTTPError, service: str) -> CheckResult:
    names = [str(card.get("id")) for card in _cards(response)]
    if isinstance(response, httpx.HTTPError) or response.status_code != HTTPStatus.OK:
        return _result("models", False, f"/v1/models gives {_status(response)}")
    listed = ", ".join(names) or "no model"
    return _result("models", service in names, f"/v1/models lists {listed}; the service is {service}")


def _overflow(response: httpx.Response | httpx.HTTPError | None, length: int | None) -> CheckResult:
    if response is None:
        return CheckResult(
            name="overflow",
            verdict=Verdict.INCONCLUSIVE,
            summary="neither /v1/models nor the spec's engine arguments say how long a prompt may be",
        )
    clean = (
        isinstance(response, httpx.Response)
        and response.status_code == HTTPStatus.BAD_REQUEST
        and isinstance(_object(response).get("error"), dict)
    )
    summary = f"a prompt longer than {length} tokens gives {_status(response)}; 400 with a reason is right"
    return _result("overflow", clean, summary)


def _answers(name: str, answer: Answer) -> CheckResult:
    good = answer.error is None and answer.status == HTTPStatus.OK and not is_empty(answer.text)
    if good:
        return _result(name, True, f"whole, ended by {answer.finish_reason}, in {answer.latency_s:.1f} s")
    summary = answer.error or "the text is empty"
    return _result(name, False, summary, evidence(answer))


def _identity(named: Mapping[str, tuple[str | None, str | None]], release: Release) -> CheckResult:
    right = (release.name, release.commit)
    wrong = {what: names for what, names in named.items() if names != right}
    if not wrong:
        return _result("identity", True, f"all {len(named)} answers name {release.name} and its commit")
    shown = [f"{what}: {RELEASE} {names[0]}, {COMMIT} {names[1]}" for what, names in wrong.items()]
    summary = f"{len(wrong)} of {len(named)} answers do not name {release.name} at {release.commit}"
    return _result("identity", False, summary, *shown)


def _headers(response: httpx.Response | httpx.HTTPError) -> tuple[str | None, str | None]:
    if isinstance(response, httpx.HTTPError):
        return None, None
    return response.headers.get(RELEASE), response.headers.get(COMMIT)


def _names(answer: Answer) -> tuple[str | None, str | None]:
    return answer.release, answer.commit


def _status(response: httpx.Response | httpx.HTTPError) -> str:
    if isinstance(response, httpx.HTTPError):
        return f"no answer ({type(response).__name__})"
    return f"status {response.status_code}"


def _result(name: str, good: bool, summary: str, *shown: str) -> CheckResult:
    verdict = Verdict.PASS if good else Verdict.FAIL
    return CheckResult(name=name, verdict=verdict, summary=summary, evidence=shown)
