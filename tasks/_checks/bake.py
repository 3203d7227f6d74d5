"""One look at a live release: its golden prompts, asked at the live address, must still get their facts.

Golden prompts had to hold their facts before the promotion, so one that is lost now means that what clients get
has changed.  Looks are few and cheap: between two of them the probe asks on, and what its clients met since the bake
began counts in each look.  Where the spec names a Prometheus, the error rate of the live traffic counts as well; one
that it does not know is inconclusive.
"""

import logging

from tasks._checks.prometheus import instant
from tasks._checks.prompts import Prompt, Prompts
from tasks._checks.rendering import evidence
from tasks._checks.scoring import holds_fact
from tasks._clients.completions import Answer, ask
from tasks._clients.receipt import Seen
from tasks.errors import SlipwayError
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import Bake, ServiceSpec

ASKED = 2
"""Golden prompts asked in one look; more would take engine time from clients."""
PROMETHEUS_S = 5.0
"""Longest wait for Prometheus, in seconds: it answers in milliseconds, and the next look comes soon."""

log = logging.getLogger(__name__)


def look(
    address: str, release: Release, prompts: Prompts, spec: ServiceSpec, seen: Seen | None = None
) -> CheckResult:
    """Ask the live base URL ``address`` the first golden prompts, the first one as a stream.

    ``seen`` is what the probe's clients met since the bake began, where there is a probe.  Never raises for what the
    server does: no answer is a fail, because clients get none either.
    """
    asked = prompts.golden[:ASKED]
    faults: list[str] = []
    shown: list[str] = []
    slowest = 0.0
    for number, prompt in enumerate(asked):
        answer = ask(
            address,
            release.service,
            prompt.prompt,
            max_tokens=spec.checks.max_tokens,
            timeout_s=spec.deadlines.request,
            stream=number == 0,
        )
        slowest = max(slowest, answer.latency_s)
        fault = _fault(answer, prompt, release)
        if fault:
            faults.append(fault)
            shown.append(evidence(answer))
    good = f"{release.name} answers {len(asked)} golden prompts rightly at the live address"
    answered = CheckResult(
        name="bake",
        verdict=Verdict.FAIL if faults else Verdict.PASS,
        summary="; ".join(faults) or good,
        evidence=tuple(shown),
        measured={"latency_max_s": round(slowest, 3)},
    )
    judged = _with_probe(answered, seen, spec.bake) if seen is not None and seen.requests else answered
    return _with_error_rate(judged, spec.bake) if judged.verdict is Verdict.PASS and spec.bake.prometheus else judged


def _with_probe(answered: CheckResult, seen: Seen, bake: Bake) -> CheckResult:
    """Return a look together with what the probe's clients met; slow answers alone move no traffic back."""
    rate = seen.failed / seen.requests
    bad = rate > bake.max_error_rate
    told = f"of {seen.requests} requests of the probe {seen.failed} failed and {seen.slow} were slow"
    return answered.model_copy(
        update={
            "verdict": Verdict.FAIL if bad else answered.verdict,
            "summary": f"{answered.summary}; {told}",
            "measured": answered.measured | {"probe_requests": seen.requests, "probe_error_rate": round(rate, 4)},
        }
    )


def _with_error_rate(answered: CheckResult, bake: Bake) -> CheckResult:
    """Return a good look together with what Prometheus says of the live traffic."""
    try:
        rate = instant(bake.prometheus, bake.error_query, timeout_s=PROMETHEUS_S)
    except SlipwayError as error:
        log.warning("The error rate of the live traffic is unknown: %s", error)
        summary = f"{answered.summary}; the error rate is unknown: {error}"
        return answered.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "summary": summary})
    verdict = Verdict.PASS if rate <= bake.max_error_rate else Verdict.FAIL
    return answered.model_copy(
        update={
            "verdict": verdict,
            "summary": f"{answered.summary}; error rate {rate:.3g}, at most {bake.max_error_rate:g} is allowed",
            "measured": answered.measured | {"error_rate": rate},
        }
    )


def _fault(answer: Answer, prompt: Prompt, release: Release) -> str:
    """Return what is wrong with an answer of the live address, or nothing."""
    if answer.error is not None:
        return f"{prompt.id}: {answer.error}"
    if (answer.release, answer.commit) != (release.name, release.commit):
        return f"{prompt.id}: answered by {answer.release}, not by {release.name} at {release.commit[:12]}"
    if not holds_fact(answer.text, (prompt.expect or "",)):
        return f"{prompt.id}: the answer does not hold its fact"
    return ""
