"""The statistics of paired differences: whether the candidate is worse, and what this sample could have shown.

The unit is the prompt: asked several times, it counts once, with the mean of its rounds, since greedy answers to one
prompt are nearly copies of each other.  Two questions are kept apart:

* is what was observed too much?  An observed loss within the margin passes: so a model against itself does;
* is it proven?  It fails where the bootstrap interval over the prompts lies beyond the margin as a whole and the
  exact McNemar test says that chance does not explain it.  The interval alone is too sure of few prompts; the test
  alone knows no margin.  Between the two is inconclusive, and a value that is no number always is.

What could not have been seen is said beforehand: ``hidden_loss`` for a given number of prompts, ``needed_prompts``
for a given loss.  Shares are of prompts.  Importing this takes a third of a second, so it is done where it is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.special import bdtr, bdtrc, betaincinv

from tasks.records import Verdict

RESAMPLES = 2000
BATCHES = 10
"""Parts in which they are drawn, for the memory's sake."""
SEED = 0
ROUNDING = 1e-9
MOST_PROMPTS = 5_000
"""Where the search for a number of prompts ends."""


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and what it may be in truth, at the confidence that was asked for; NaN of no prompts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Loss:
    """What the candidate lost: the interval of the share, the prompts lost and won, and the chance of as many lost.

    ``chance`` is the one-sided exact McNemar test: the probability that two equally good models differ so.
    """

    of: int
    lost: int
    won: int
    share: Interval
    chance: float


def interval(values: Sequence[float], confidence: float) -> Interval:
    """Return the mean of one value per prompt with its percentile bootstrap interval, from a fixed seed."""
    if not values or not all(math.isfinite(value) for value in values):
        return Interval(math.nan, math.nan, math.nan)
    if min(values) == max(values):
        return Interval(values[0], values[0], values[0])
    sample, generator = np.asarray(values, dtype=float), np.random.default_rng(SEED)
    shape = (RESAMPLES // BATCHES, len(sample))
    drawn = (sample[generator.integers(0, len(sample), shape)] for _ in range(BATCHES))
    means = np.concatenate([batch.mean(axis=1) for batch in drawn])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    return Interval(math.fsum(values) / len(values), float(low), float(high))


def loss_of(differences: Sequence[float], confidence: float) -> Loss:
    """Return the loss from one difference per prompt: 1 where only the candidate is wrong, -1 the other."""
    lost = sum(difference > ROUNDING for difference in differences)
    won = sum(difference < -ROUNDING for difference in differences)
    chance = float(bdtrc(lost - 1, lost + won, 0.5)) if lost else 1.0
    return Loss(len(differences), lost, won, interval(differences, confidence), chance)


def judged(loss: Loss, margin: float, confidence: float) -> Verdict:
    """Return the verdict on a loss of which more than ``margin`` is too much; exactly as much is allowed."""
    if not math.isfinite(loss.share.value):
        return Verdict.INCONCLUSIVE
    if loss.share.value <= margin + ROUNDING:
        return Verdict.PASS
    return Verdict.FAIL if _proven(loss, margin, confidence) else Verdict.INCONCLUSIVE


def judged_slice(loss: Loss, margin: float, confidence: float, slices: int) -> Verdict:
    """Return the verdict on one of so many ``slices``, which together cry wolf no oftener than the whole.

    A few prompts lost in a small slice prove nothing and pass: the whole has been judged for those.
    """
    strict = 1 - (1 - confidence) / max(slices, 1)
    unlikely = loss.chance <= 1 - strict + ROUNDING
    return judged(loss, margin, strict) if unlikely else Verdict.PASS


def judged_range(found: Interval, low: float, high: float, prompts: int, confidence: float) -> Verdict:
    """Return the verdict on a mean that may lie from ``low`` to ``high``; from too few prompts nothing is proven."""
    if not math.isfinite(found.value):
        return Verdict.INCONCLUSIVE
    if low - ROUNDING <= found.value <= high + ROUNDING:
        return Verdict.PASS
    outside = found.high < low or found.low > high
    return Verdict.FAIL if outside and prompts >= fewest_lost(confidence) else Verdict.INCONCLUSIVE


def fewest_lost(confidence: float) -> int:
    """Return how many prompts must be lost, and none won, before chance explains it no more: 5 at 95 %."""
    return math.ceil(math.log2(1 / (1 - confidence)) - ROUNDING)


def hidden_loss(prompts: int, margin: float, confidence: float) -> float:
    """Return the least true loss that would not have passed so many prompts, at that confidence; or 1.

    It is the upper Clopper-Pearson limit of as many lost prompts as the margin allows.
    """
    allowed = _allowed(prompts, margin)
    return float(betaincinv(allowed + 1, prompts - allowed, confidence)) if allowed < prompts else 1.0


def needed_prompts(loss: float, confidence: float, power: float, margin: float = 0.0) -> int | None:
    """Return with how many prompts a true ``loss`` fails in a share ``power`` of releases; none if never.

    All are shares of 1.  It is assumed that nothing is won back.  No number of prompts proves a loss within the
    margin, which is allowed.
    """
    if loss <= margin:
        return None
    counts = range(1, MOST_PROMPTS + 1)
    return next((count for count in counts if _shows(count, loss, confidence, power, margin)), None)


def _proven(loss: Loss, margin: float, confidence: float) -> bool:
    return loss.share.low > margin + ROUNDING and loss.chance <= 1 - confidence + ROUNDING


def _allowed(prompts: int, margin: float) -> int:
    """Return how many of ``prompts`` may be lost: a share as it was written, not as it is rounded."""
    return math.floor(Fraction(str(margin)) * prompts)


def _shows(prompts: int, loss: float, confidence: float, power: float, margin: float) -> bool:
    """Return whether so many prompts prove a true ``loss`` often enough."""
    tail = (1 - confidence) / 2
    for lost in range(max(fewest_lost(confidence), _allowed(prompts, margin) + 1), prompts + 1):
        # The bootstrap's lower limit lies beyond the margin when as few as that come up too seldom.
        if float(bdtr(_allowed(prompts, margin), prompts, lost / prompts)) < tail:
            return float(bdtrc(lost - 1, prompts, loss)) >= power
    return False
