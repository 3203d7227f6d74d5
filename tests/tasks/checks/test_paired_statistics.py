"""The statistics agree with what can be counted by hand, and never call what was not measured good."""

import math
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._checks.paired_statistics import (
    Interval,
    Loss,
    fewest_lost,
    hidden_loss,
    interval,
    judged,
    judged_range,
    judged_slice,
    loss_of,
    needed_prompts,
)
from tasks.records import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
MARGIN, CONFIDENCE = 0.1, 0.95


@cache
def loss(of: int, lost: int, won: int = 0) -> Loss:
    """Return the loss of so many prompts."""
    return loss_of([1.0] * lost + [-1.0] * won + [0.0] * (of - lost - won), CONFIDENCE)


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(0, PASS), (1, PASS), (2, INCONCLUSIVE), (4, INCONCLUSIVE), (5, FAIL), (12, FAIL)],
)
def test_of_twelve_prompts(lost: int, verdict: Verdict) -> None:
    """One lost is within the margin, five are proven to be too many, and between them nobody knows."""
    assert verdict is judged(loss(12, lost), MARGIN, CONFIDENCE)


@pytest.mark.parametrize(("lost", "won", "verdict"), [(10, 0, PASS), (11, 0, INCONCLUSIVE), (28, 5, FAIL)])
def test_of_a_hundred_prompts(lost: int, won: int, verdict: Verdict) -> None:
    """Exactly the margin is allowed, and what was won elsewhere counts against what was lost."""
    assert verdict is judged(loss(100, lost, won), MARGIN, CONFIDENCE)


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, math.inf]])
def test_what_was_not_measured_is_inconclusive(values: list[float]) -> None:
    """No prompts and no number are neither good nor bad."""
    assert INCONCLUSIVE is judged(loss_of(values, CONFIDENCE), MARGIN, CONFIDENCE)
    assert INCONCLUSIVE is judged_range(interval(values, CONFIDENCE), -1, 1, len(values), CONFIDENCE)


def test_the_chance_is_mcnemars() -> None:
    """Five lost and none won happen to two equal models once in 32, eight and two 56 times in 1024."""
    assert 1 / 32 == pytest.approx(loss(12, 5).chance)
    assert 56 / 1024 == pytest.approx(loss(12, 8, 2).chance)
    assert loss(12, 0, 4).chance == 1


@settings(max_examples=10)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    """The bootstrap's limits are on either side of the mean and within the values, the same every time."""
    found = interval(values, CONFIDENCE)

    assert min(values) - 1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= max(values) + 1e-9
    assert found == interval(values, CONFIDENCE)


@pytest.mark.parametrize("prompts", [12, 60])
def test_a_model_against_itself_raises_no_alarm(prompts: int) -> None:
    """Of 100 releases of the same model, whose greedy facts flip once in a hundred, at most two do not pass."""
    dice = random.Random(5)  # noqa: S311 - a simulation
    alarms = 0
    for _ in range(100):
        flips = [dice.random() for _ in range(prompts)]
        flipped = loss(prompts, sum(flip < 0.005 for flip in flips), sum(flip > 0.995 for flip in flips))
        alarms += judged(flipped, MARGIN, CONFIDENCE) is not PASS

    assert alarms <= 2


def test_a_slice_fails_only_when_it_is_proven() -> None:
    """A few prompts lost in one of ten slices pass there, a slice that is lost as a whole does not."""
    assert PASS is judged_slice(loss(3, 3), MARGIN, CONFIDENCE, 10)
    assert PASS is judged_slice(loss(20, 5), MARGIN, CONFIDENCE, 10)
    assert FAIL is judged_slice(loss(20, 12), MARGIN, CONFIDENCE, 10)


def test_a_mean_outside_its_bounds_needs_enough_prompts_to_fail() -> None:
    """The same mean is within, outside by chance, outside, or outside of too few prompts."""
    assert PASS is judged_range(Interval(1.0, 0.5, 3.0), 0, 1, 12, CONFIDENCE)
    assert INCONCLUSIVE is judged_range(Interval(1.1, 0.5, 3.0), 0, 1, 12, CONFIDENCE)
    assert FAIL is judged_range(Interval(1.1, 1.05, 3.0), 0, 1, 12, CONFIDENCE)
    assert FAIL is judged_range(Interval(-1.1, -3, -1.05), -1, 1, 12, CONFIDENCE)
    assert INCONCLUSIVE is judged_range(Interval(1.1, 1.05, 3.0), 0, 1, 4, CONFIDENCE)
    assert (5, 7) == (fewest_lost(0.95), fewest_lost(0.99))


def test_what_twelve_prompts_hide() -> None:
    """A loss of 34 % leaves at most one of twelve prompts wrong in 5 % of releases; of no prompts all is hidden."""
    share = hidden_loss(12, MARGIN, CONFIDENCE)

    assert 0.05 == pytest.approx((1 - share) ** 12 + 12 * share * (1 - share) ** 11)
    assert hidden_loss(0, MARGIN, CONFIDENCE) == 1
    assert hidden_loss(1000, MARGIN, CONFIDENCE) < hidden_loss(100, MARGIN, CONFIDENCE) < share


def test_the_planned_number_of_prompts_proves_its_loss() -> None:
    """Simulated releases with the planned number fail as often as was wanted; a loss within the margin never must."""
    needed = needed_prompts(0.3, CONFIDENCE, 0.8, MARGIN)
    assert needed is not None
    dice = random.Random(7)  # noqa: S311 - a simulation
    losses = (loss(needed, sum(dice.random() < 0.3 for _ in range(needed))) for _ in range(60))
    failed = sum(judged(one, MARGIN, CONFIDENCE) is FAIL for one in losses)

    assert 0.7 <= failed / 60 <= 0.95
    assert needed_prompts(0.1, CONFIDENCE, 0.8, MARGIN) is None
    assert needed < (needed_prompts(0.2, CONFIDENCE, 0.8, MARGIN) or 0)
