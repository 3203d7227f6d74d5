"""Speed of a candidate against the live release: time to first token, time per token, tokens per second, errors.

Absolute speed says more about the machine than about the release, so only ratios are judged, measured in one window.
The two are loaded in turns, in rounds of as many streams at once as the live traffic has, and the order of the two
changes from round to round: both see the same machine, a drift of it cancels out, and neither slows the other down.
The live release has its clients beside, and streams are as long as asked for, whatever the model would say.

What is compared is the median over rounds of each round's median.  A ratio above its limit fails when it is

* large enough to be felt: the difference is above ``FIRST_TOKEN_NOISE_S`` or ``TOKEN_NOISE_S``, below which a ratio
  of two small numbers says nothing; and
* no chance: the bootstrap interval of the ratio, over pairs of rounds, lies above the limit as a whole.

Where only the first holds, the window is made longer, up to ``PATIENCE`` times, and then left inconclusive; no ratio
fails before a second window has confirmed it.  Inconclusive is also whatever could not be measured: a live release
with errors of its own, too few rounds, tokens that nobody counted.

The numbers come from 1000 simulated windows of a release against itself, four rounds each, where every fifth round
is slowed five times by something else: none failed and 1.1 % were inconclusive; of a release that is ten times
slower 98.5 % were held back.  With an interval of 95 % and without the second window 0.2 % failed wrongly.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from tasks._checks.prompts import Prompts
from tasks._checks.rendering import evidence
from tasks._clients.completions import Answer, ask_each
from tasks._clock import Clock
from tasks._spec_checks import Performance
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec

LEAST_ROUNDS = 4
"""Rounds of a window; of fewer, nothing is said."""
PATIENCE = 3
"""Windows after which what is still undecided stays so."""
CONFIDENCE = 0.99
RESAMPLES = 2000
FIRST_TOKEN_NOISE_S = 0.05
TOKEN_NOISE_S = 0.002
"""Differences that no reader of a stream feels, and that a busy machine or a cold cache makes by itself."""
SHOWN = 3
"""Broken answers that a result shows."""


@dataclass(frozen=True)
class Round:
    """Answers to streams that were opened at once, and the seconds until the last of them had ended."""

    answers: tuple[Answer, ...]
    seconds: float


@dataclass(frozen=True)
class Side:
    """One of the two releases, with what it answered."""

    address: str
    release: Release
    rounds: list[Round] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """Return every answer."""
        return [answer for one in self.rounds for answer in one.answers]

    @property
    def broken(self) -> list[Answer]:
        """Return the answers that are not whole, or not this release's."""
        return [answer for answer in self.answers if not self.is_good(answer)]

    def is_good(self, answer: Answer) -> bool:
        """Return whether the answer is whole and this release's."""
        return answer.error is None and (answer.release, answer.commit) == (self.release.name, self.release.commit)

    def error_rate(self) -> float:
        """Return the share of broken answers; of none at all, everything counts as broken."""
        return len(self.broken) / len(self.answers) if self.answers else 1.0


@dataclass(frozen=True)
class Figure:
    """One number by which two releases are compared, in seconds: more is worse.

    ``of`` gives it for one round, NaN where it was not measured; ``shown`` writes it for a person; a difference of
    up to ``noise`` seconds is none.
    """

    name: str
    title: str
    of: Callable[[Round, Side], float]
    shown: Callable[[float], str]
    limit: float
    noise: float


def performance(
    candidate: str, live: str, *, releases: tuple[Release, Release], prompts: Prompts, spec: ServiceSpec
) -> tuple[CheckResult, ...]:
    """Load the base URLs ``candidate`` and ``live`` in turns; ``releases`` are the two in the same order.

    Never raises for what a server does.  Asks for no more than ``spec.deadlines.checks`` seconds.
    """
    wanted = spec.checks.performance
    sides = Side(candidate, releases[0]), Side(live, releases[1])
    rounds = max(LEAST_ROUNDS, math.ceil(wanted.requests / wanted.concurrency))
    texts = cycle(prompt.prompt for prompt in prompts.all)
    in_time = Clock().ticks(spec.deadlines.checks, 0)
    for number, _ in zip(range(1, PATIENCE * rounds + 1), in_time, strict=False):
        asked = list(islice(texts, wanted.concurrency))
        for side in sides if number % 2 else reversed(sides):
            side.rounds.append(_ask(side, asked, spec))
        if any(_is_hopeless(side, rounds, wanted) for side in sides):
            break
        if number % rounds == 0 and _is_settled(judged(*sides, wanted), windows=number // rounds):
            break
    return judged(*sides, wanted)


def _ask(side: Side, texts: Sequence[str], spec: ServiceSpec) -> Round:
    began = time.monotonic()
    answers = ask_each(
        side.address,
        side.release.service,
        texts,
        max_tokens=spec.checks.performance.tokens,
        timeout_s=spec.deadlines.request,
        stream=True,
        concurrency=len(texts),
        options={"ignore_eos": True},
    )
    return Round(answers, time.monotonic() - began)


def _is_hopeless(side: Side, rounds: int, wanted: Performance) -> bool:
    """Return whether more streams broke than may of a whole window: each may have taken as long as a request may."""
    return len(side.broken) > wanted.max_error_rate * rounds * wanted.concurrency


def _is_settled(results: Sequence[CheckResult], *, windows: int) -> bool:
    """Return whether another window could change nothing that matters."""
    verdicts = {result.verdict for result in results}
    return verdicts == {Verdict.PASS} or (windows > 1 and Verdict.FAIL in verdicts)


def judged(candidate: Side, live: Side, wanted: Performance) -> tuple[CheckResult, ...]:
    """Return the verdicts on what two sides answered."""
    errors = _errors(candidate, live, wanted)
    if live.error_rate() > wanted.max_error_rate:
        why = f"the live release itself broke {len(live.broken)} of {len(live.answers)} streams"
        return (errors, *(_unknown(figure, why) for figure in figures(wanted)))
    return (errors, *(_compared(figure, candidate, live) for figure in figures(wanted)))


def figures(wanted: Performance) -> tuple[Figure, ...]:
    """Return what is compared, with the limits that the spec sets."""
    shared_noise = (FIRST_TOKEN_NOISE_S / wanted.tokens + TOKEN_NOISE_S) / wanted.concurrency
    return (
        Figure(
            "first_token", "time to first token", _first_token, _ms, wanted.max_first_token_ratio, FIRST_TOKEN_NOISE_S
        ),
        Figure("token_time", "time per token", _token_time, _ms, wanted.max_token_time_ratio, TOKEN_NOISE_S),
        Figure("throughput", "all streams together", _shared_time, _rate, wanted.max_slowdown, shared_noise),
    )


def _first_token(one: Round, side: Side) -> float:
    return _median([a.first_token_s for a in one.answers if side.is_good(a) and a.first_token_s is not None])


def _token_time(one: Round, side: Side) -> float:
    times = [
        (answer.latency_s - answer.first_token_s) / (tokens - 1)
        for answer in one.answers
        if side.is_good(answer) and answer.first_token_s is not None and (tokens := answer.completion_tokens or 0) > 1
    ]
    return _median(times)


def _shared_time(one: Round, side: Side) -> float:
    """Return the seconds per token of all streams together: the reciprocal of tokens per second."""
    tokens = sum(answer.completion_tokens or 0 for answer in one.answers if side.is_good(answer))
    return one.seconds / tokens if tokens else math.nan


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _rate(seconds: float) -> str:
    return f"{1 / seconds:.3g} tokens/s"


def _errors(candidate: Side, live: Side, wanted: Performance) -> CheckResult:
    broken, count = candidate.broken, len(candidate.answers)
    summary = (
        f"{len(broken)} of {count} streams broke, {wanted.concurrency} open at once; "
        f"at most {wanted.max_error_rate:.0%} may; of the live release {len(live.broken)} broke"
    )
    return CheckResult(
        name="load_errors",
        verdict=Verdict.FAIL if candidate.error_rate() > wanted.max_error_rate else Verdict.PASS,
        summary=summary,
        evidence=tuple(_shown(answer) for answer in broken[:SHOWN]),
        measured={"candidate_error_rate": candidate.error_rate(), "live_error_rate": live.error_rate()},
    )


def _shown(answer: Answer) -> str:
    return evidence(answer) if answer.error else f"{evidence(answer)} (answered by {answer.release})"


def _compared(figure: Figure, candidate: Side, live: Side) -> CheckResult:
    pairs = [
        (figure.of(ours, candidate), figure.of(theirs, live))
        for ours, theirs in zip(candidate.rounds, live.rounds, strict=True)
    ]
    measured = [pair for pair in pairs if all(math.isfinite(value) and value > 0 for value in pair)]
    if len(measured) < LEAST_ROUNDS:
        return _unknown(figure, f"{len(measured)} rounds were measured at both releases, {LEAST_ROUNDS} are needed")
    return compare(figure, *zip(*measured, strict=True))


def compare(figure: Figure, candidate: Sequence[float], live: Sequence[float]) -> CheckResult:
    """Return the verdict on ``figure``, by its values in rounds that were measured in pairs."""
    mine, theirs = statistics.median(candidate), statistics.median(live)
    ratio, (low, high) = mine / theirs, interval(candidate, live)
    verdict, why = Verdict.PASS, ""
    if ratio > figure.limit and mine - theirs <= figure.noise:
        why = "; a difference that small is noise"
    elif low > figure.limit:
        verdict = Verdict.FAIL
    elif ratio > figure.limit:
        verdict, why = Verdict.INCONCLUSIVE, "; this may be chance"
    summary = (
        f"{figure.title}: {figure.shown(mine)}, the live release {figure.shown(theirs)}; slower by {ratio:.2f} times "
        f"({low:.2f} to {high:.2f} in {len(live)} rounds), at most {figure.limit:g} is allowed{why}"
    )
    numbers = {"candidate_s": mine, "live_s": theirs, "ratio": ratio, "ratio_low": low, "ratio_high": high}
    return CheckResult(
        name=figure.name,
        verdict=verdict,
        summary=summary,
        measured={name: round(value, 6) for name, value in numbers.items()},
    )


def interval(candidate: Sequence[float], live: Sequence[float]) -> tuple[float, float]:
    """Return what the ratio of the medians lies between, by a bootstrap over pairs that the same pairs repeat."""
    import numpy as np  # noqa: PLC0415 - commands that measure nothing do not pay for it

    picked = np.random.default_rng(0).integers(0, len(live), (RESAMPLES, len(live)))
    ratios = np.median(np.asarray(candidate)[picked], axis=1) / np.median(np.asarray(live)[picked], axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _unknown(figure: Figure, why: str) -> CheckResult:
    return CheckResult(name=figure.name, verdict=Verdict.INCONCLUSIVE, summary=f"{figure.title}: {why}")
