"""Turns what was measured of pairs of answers into a verdict, a sentence, and the disagreements to read.

Two kinds of number come here: a loss, where the candidate is worse or better on a prompt, and a mean that must lie
within bounds.  What could not be measured is left out, and makes the verdict inconclusive when it is too much.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from tasks._checks.paired_statistics import Loss, hidden_loss, interval, judged, judged_range, judged_slice, loss_of
from tasks._checks.prompts import Prompt
from tasks._checks.rendering import WORST_FIRST, one_line
from tasks._clients.completions import Answer
from tasks._spec_checks import Checks
from tasks.records import CheckResult, Example, Verdict

MIN_COMPARED = 0.9
"""Least share of the prompts that must have been measured on both sides: one of twelve may be missing."""
SHOWN = 5
"""Disagreements that a result shows."""
LENGTH = 120
"""Characters of foreign text that a line of evidence shows."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, from the same moment."""

    prompt: Prompt
    candidate: Answer
    live: Answer

    @property
    def whole(self) -> bool:
        """Return whether both are answers."""
        return self.candidate.error is None and self.live.error is None


Scores = Sequence[tuple[Pair, float]]
"""A number for each pair; NaN where it could not be measured."""


def lost(name: str, sentence: str, scores: Scores, checks: Checks, *, why: str) -> CheckResult:
    """Return the verdict on a loss, as a whole and by slice, with what was counted said in ``sentence``.

    A score is 1 where only the candidate is worse, and -1 where only the live release is.
    """
    spec = checks.paired
    measured = [(pair, score) for pair, score in scores if isfinite(score)]
    loss = loss_of(_by_prompt(measured), spec.confidence)
    slices = _slices(measured, checks)
    verdict = _worst([judged(loss, spec.margin, spec.confidence), *slices.values()])
    told = _told(loss, verdict, checks)
    if not scores or len(measured) < MIN_COMPARED * len(scores):
        verdict, told = Verdict.INCONCLUSIVE, f"only {len(measured)} of {len(scores)} could be compared"
    shown = examples([pair for pair, score in measured if score > 0], f"only the candidate {why}")
    return CheckResult(
        name=name,
        verdict=verdict,
        summary=f"{sentence}; {told}",
        evidence=(*(f"slice {line}: {one}" for line, one in slices.items()), *map(_line, shown)),
        examples=shown,
        measured=finite(
            prompts=loss.of,
            lost=loss.lost,
            won=loss.won,
            loss=loss.share.value,
            loss_low=loss.share.low,
            loss_high=loss.share.high,
            chance=loss.chance,
        ),
    )


def within(
    name: str,
    sentence: Callable[[str], str],
    scores: Scores,
    bounds: tuple[float, float],
    checks: Checks,
    *,
    why: str,
) -> CheckResult:
    """Return the verdict on a mean over the prompts that must lie within ``bounds``, themselves included.

    ``sentence`` gets the mean with its interval.  The pairs farthest outside are shown, and said to be ``why``.
    """
    (least, most), confidence = bounds, checks.paired.confidence
    measured = [(pair, score) for pair, score in scores if isfinite(score)]
    values = _by_prompt(measured)
    found = interval(values, confidence)
    verdict = judged_range(found, least, most, len(values), confidence)
    told = sentence(f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f} with {confidence:.0%} confidence)")
    if not scores or len(measured) < MIN_COMPARED * len(scores):
        verdict, told = Verdict.INCONCLUSIVE, f"only {len(measured)} of {len(scores)} could be compared; {told}"
    outside = [(max(least - score, score - most), place) for place, (_, score) in enumerate(measured)]
    worst = [measured[place][0] for distance, place in sorted(outside, reverse=True) if distance > 0]
    shown = examples(worst, why)
    return CheckResult(
        name=name,
        verdict=verdict,
        summary=told,
        evidence=tuple(map(_line, shown)),
        examples=shown,
        measured=finite(prompts=len(values), mean=found.value, low=found.low, high=found.high),
    )


def _told(loss: Loss, verdict: Verdict, checks: Checks) -> str:
    spec = checks.paired
    if verdict is Verdict.PASS:
        return f"more on {hidden_loss(loss.of, spec.margin, spec.confidence):.0%} of prompts would have shown"
    share = loss.share
    return (
        f"{loss.lost} prompts lost and {loss.won} won are {share.value:.0%} ({share.low:.0%} to {share.high:.0%} "
        f"with {spec.confidence:.0%} confidence), {spec.margin:.0%} is allowed"
    )


def _slices(scores: Scores, checks: Checks) -> dict[str, Verdict]:
    """Return what was lost in each slice, and the verdict on it; nothing where there are not two."""
    by_slice: dict[str, list[tuple[Pair, float]]] = defaultdict(list)
    for pair, score in scores:
        by_slice[pair.prompt.slice or "without a name"].append((pair, score))
    if len(by_slice) == 1:
        return {}
    spec, found = checks.paired, {}
    for name, members in sorted(by_slice.items()):
        loss = loss_of(_by_prompt(members), spec.confidence)
        line = f"{one_line(name, LENGTH)}: of {loss.of} prompts {loss.lost} lost, {loss.won} won"
        found[line] = judged_slice(loss, spec.margin, spec.confidence, len(by_slice))
    return found


def _by_prompt(scores: Scores) -> list[float]:
    """Return the mean of the rounds of each prompt."""
    rounds: dict[str, list[float]] = defaultdict(list)
    for pair, score in scores:
        rounds[pair.prompt.id].append(score)
    return [sum(values) / len(values) for values in rounds.values()]


def examples(pairs: Sequence[Pair], why: str) -> tuple[Example, ...]:
    """Return the first disagreements, one of each prompt."""
    one_each = {pair.prompt.id: pair for pair in reversed(pairs)}
    shown = list(reversed(one_each.values()))[:SHOWN]
    return tuple(
        Example(prompt=pair.prompt.prompt, candidate=pair.candidate.text, live=pair.live.text, why=why)
        for pair in shown
    )


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return min(verdicts, key=WORST_FIRST.index)


def finite(**numbers: float) -> dict[str, float]:
    """Return the numbers that survive JSON."""
    return {name: round(float(value), 4) for name, value in numbers.items() if isfinite(value)}


def _line(example: Example) -> str:
    said, live = (one_line(text, LENGTH) or "nothing" for text in (example.candidate, example.live))
    return f"{one_line(example.prompt, LENGTH)} -> {said}; the live release: {live}"
