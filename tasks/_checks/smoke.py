"""Smoke checks: the candidate speaks the protocol, and it is the candidate that speaks.

They say nothing about how good the answers are: a model that talks nonsense passes.  What may kill an engine comes
first, a prompt too long, a long one and many at once, so that an engine that dies of it fails the checks after it.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import httpx

from tasks._checks import protocol as _protocol
from tasks._checks.protocol import COMMIT, MAX_TOKENS, PROMPT, RELEASE, Client, Names, Reply, result
from tasks._checks.rendering import evidence
from tasks._checks.scoring import is_empty
from tasks._clients.completions import Answer, ask, ask_each, tls
from tasks.records import CheckResult, Release
from tasks.spec import ServiceSpec


def smoke(endpoint: str, release: Release, spec: ServiceSpec) -> tuple[CheckResult, ...]:
    """Return the smoke checks of ``release`` at its own base URL ``endpoint``, those that ``checks.smoke`` asks for.

    Never raises for what the candidate does; each request may take ``spec.deadlines.request`` seconds.
    """
    wanted, seconds = spec.checks.smoke, spec.deadlines.request
    base = endpoint.rstrip("/") + "/"
    with httpx.Client(base_url=base, timeout=seconds, trust_env=False, verify=tls()) as http:
        client = Client(http, release.service)
        card = client.models()
        length = _context_length(card, release.service) or _length(spec.engine.get("max_model_len"))
        checks = [_models(card, release.service)]
        if wanted.overflow:
            checks.append(_protocol.overflow(client, length))
        if wanted.long_prompt:
            checks.append(_protocol.long_prompt(client, length, wanted.long_prompt))
        together = _at_once(endpoint, release, wanted.concurrent, seconds)
        if together:
            checks.append(_concurrent(together))
        plain, streamed = (
            ask(endpoint, release.service, PROMPT, max_tokens=MAX_TOKENS, timeout_s=seconds, stream=stream)
            for stream in (False, True)
        )
        checks += [_answers("plain", plain), _answers("stream", streamed)]
        checks.append(_protocol.stop_reasons(client, plain.text))
        if wanted.tools:
            checks.append(_protocol.tool_call(client))
        if wanted.json_output:
            checks.append(_protocol.json_output(client))
    named = {"plain answer": _names(plain), "streamed answer": _names(streamed)}
    named |= {f"concurrent answer {number}": _names(answer) for number, answer in enumerate(together, 1)}
    return (*checks, _identity(client.named | named, release))


def _at_once(endpoint: str, release: Release, count: int, seconds: float) -> tuple[Answer, ...]:
    """Ask ``count`` different prompts at the same time."""
    return ask_each(
        endpoint,
        release.service,
        [f"{PROMPT} number {number}" for number in range(1, count + 1)],
        max_tokens=MAX_TOKENS,
        timeout_s=seconds,
        stream=True,
        concurrency=max(count, 1),
    )


def _cards(reply: Reply) -> list[dict[str, object]]:
    data = reply.body.get("data")
    return [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []


def _context_length(reply: Reply, service: str) -> int | None:
    lengths = [_length(card.get("max_model_len")) for card in _cards(reply) if card.get("id") == service]
    return next((length for length in lengths if length), None)


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _models(reply: Reply, service: str) -> CheckResult:
    names = [str(card.get("id")) for card in _cards(reply)]
    if reply.status != HTTPStatus.OK:
        return result("models", False, f"/v1/models gives {reply.said}")
    listed = ", ".join(names) or "no model"
    return result("models", service in names, f"/v1/models lists {listed}; the service is {service}")


def _concurrent(answers: Sequence[Answer]) -> CheckResult:
    broken = [answer for answer in answers if not _is_good(answer)]
    summary = f"{len(answers) - len(broken)} of {len(answers)} prompts asked at once have a whole answer"
    return result("concurrent", not broken, summary, *(evidence(answer) for answer in broken))


def _answers(name: str, answer: Answer) -> CheckResult:
    if _is_good(answer):
        return result(name, True, f"whole, ended by {answer.finish_reason}, in {answer.latency_s:.1f} s")
    return result(name, False, answer.error or "the text is empty", evidence(answer))


def _is_good(answer: Answer) -> bool:
    return answer.error is None and answer.status == HTTPStatus.OK and not is_empty(answer.text)


def _identity(named: Mapping[str, Names], release: Release) -> CheckResult:
    right = (release.name, release.commit)
    wrong = {what: names for what, names in named.items() if names != right}
    if not wrong:
        return result("identity", True, f"all {len(named)} answers name {release.name} and its commit")
    shown = [f"{what}: {RELEASE} {names[0]}, {COMMIT} {names[1]}" for what, names in wrong.items()]
    summary = f"{len(wrong)} of {len(named)} answers do not name {release.name} at {release.commit}"
    return result("identity", False, summary, *shown)


def _names(answer: Answer) -> Names:
    return answer.release, answer.commit
