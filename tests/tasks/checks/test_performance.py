"""A candidate that is slower than the live release is caught by a ratio; noise, and the release itself, are not."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tasks._checks.performance import Round, Side, compare, figures, judged, performance
from tasks._checks.prompts import parse_prompts
from tasks._clients.completions import Answer
from tasks._spec_checks import Performance
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.engine import Engine, Fault, serving

LIVE = Release(service="chat", number=1, model="org/model", commit="1" * 40, hub="http://hub", spec={})
CANDIDATE = LIVE.model_copy(update={"number": 2, "commit": "2" * 40})
PROMPTS = parse_prompts('[{id: paris, prompt: "France?", expect: Paris, golden: true}, {id: b, prompt: "B?"}]', "x")
FIRST, *_ = figures(Performance())
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
NAMES = ["load_errors", "first_token", "token_time", "throughput"]


def spec(**wanted: Any) -> ServiceSpec:
    """Return a spec with short streams."""
    checks = {"performance": {"tokens": 4, **wanted}}
    return ServiceSpec.model_validate(
        {"service": "chat", "model": "org/model", "checks": checks, "deadlines": {"request": 5}}
    )


def measured(candidate: Engine, live: Engine, **wanted: Any) -> dict[str, CheckResult]:
    """Return the results of two engines by name."""
    candidate.switch(CANDIDATE.name, CANDIDATE.commit)
    with serving(candidate) as ours, serving(live) as theirs:
        results = performance(ours, theirs, releases=(CANDIDATE, LIVE), prompts=PROMPTS, spec=spec(**wanted))
    return {result.name: result for result in results}


def verdicts(results: dict[str, CheckResult]) -> dict[str, Verdict]:
    """Return the verdicts by name."""
    return {name: result.verdict for name, result in results.items()}


def side(release: Release, rounds: int = 4, seconds: float = 1.0, **more: Any) -> Side:
    """Return what a release answered in rounds of one stream."""
    answer = Answer(
        prompt="A?",
        status=200,
        release=release.name,
        commit=release.commit,
        **{"first_token_s": 0.1, "latency_s": 1.0, "completion_tokens": 10} | more,
    )
    return Side("", release, [Round((answer,), seconds)] * rounds)


@pytest.mark.slow
def test_a_release_against_its_like_passes() -> None:
    """Two engines of the same speed pass, loaded in turns with streams of the asked length."""
    candidate, live = (Engine(answer=lambda _messages: "Paris.", delay_s=0.005) for _ in range(2))
    results = measured(candidate, live)

    assert dict.fromkeys(NAMES, PASS) == verdicts(results)
    assert 8 <= len(live.seen) == len(candidate.seen)
    assert Counter(str(one.body["messages"]) for one in live.seen) == Counter(
        str(one.body["messages"]) for one in candidate.seen
    )
    assert {(True, 4)} == {(one.body["ignore_eos"], one.body["max_tokens"]) for one in live.seen}
    begun = sorted([(one.at, "candidate") for one in candidate.seen] + [(one.at, "live") for one in live.seen])
    assert ["candidate", "live", "live", "candidate"] == [who for _, who in begun[:8:2]]
    assert results["load_errors"].measured == {"candidate_error_rate": 0, "live_error_rate": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slow", "name"),
    [({"first_s": 0.2, "delay_s": 0.006}, "first_token"), ({"first_s": 0.02, "delay_s": 0.06}, "token_time")],
    ids=["first token x10", "tokens per second /10"],
)
def test_a_slow_candidate_is_held_back(slow: dict[str, float], name: str) -> None:
    """A first token ten times later, and a tenth of the tokens per second, do not pass, on a busy machine either."""
    results = measured(Engine(**slow), Engine(first_s=0.02, delay_s=0.006))

    assert results[name].verdict is not PASS
    assert results["load_errors"].verdict is PASS


@pytest.mark.slow
def test_a_candidate_that_collapses_under_load_is_held_back() -> None:
    """An engine that is fine with one stream and slow with sixteen is caught where sixteen are asked at once."""
    candidate, live = (Engine(delay_s=0.01, crowd_s=crowd_s) for crowd_s in (0.01, 0))

    assert measured(candidate, live, concurrency=1, requests=4)["token_time"].verdict is PASS
    assert measured(candidate, live, concurrency=16)["token_time"].verdict is not PASS


@pytest.mark.parametrize(
    ("slow", "names"),
    [
        ({"first_token_s": 1.0, "latency_s": 1.9}, {"first_token"}),
        ({"latency_s": 9.1}, {"token_time"}),
        ({"seconds": 9.1}, {"throughput"}),
    ],
    ids=["first token x10", "time per token x10", "tokens per second /10"],
)
def test_each_figure_fails_by_itself(slow: dict[str, float], names: set[str]) -> None:
    """What is ten times slower fails under its own name, with both numbers in the sentence."""
    results = {result.name: result for result in judged(side(CANDIDATE, **slow), side(LIVE), Performance())}

    assert names == {name for name, result in results.items() if result.verdict is FAIL}
    assert all(f"{results[name].measured['ratio']:.2f} times" in results[name].summary for name in names)


@pytest.mark.slow
def test_broken_streams_fail_and_end_the_check() -> None:
    """A candidate whose streams break fails by its errors, shown, without a whole window of them."""
    candidate = Engine(fault=Fault.CUT, healthy_requests=3)
    results = measured(candidate, Engine())

    assert results["load_errors"].verdict is FAIL
    assert results["load_errors"].evidence
    assert len(candidate.seen) == 4


@pytest.mark.slow
def test_a_broken_live_release_is_no_measure() -> None:
    """Errors of the live release leave the ratios inconclusive, and are not held against the candidate."""
    results = measured(Engine(), Engine(fault=Fault.STATUS_500))

    assert dict.fromkeys(NAMES, INCONCLUSIVE) | {"load_errors": PASS} == verdicts(results)
    assert "the live release itself broke 2 of 2 streams" in results["first_token"].summary


def test_another_release_counts_as_an_error() -> None:
    """A whole answer of the wrong release is a broken one, on either side."""
    errors, *_ = judged(side(LIVE), side(LIVE), Performance())
    strays = Side("", CANDIDATE, side(LIVE).rounds)

    assert errors.verdict is PASS
    assert judged(strays, side(LIVE), Performance())[0].verdict is FAIL
    assert judged(side(CANDIDATE), strays, Performance())[1].verdict is INCONCLUSIVE


@pytest.mark.parametrize(
    "more", [{"rounds": 3}, {"rounds": 0}, {"completion_tokens": None}, {"completion_tokens": 0}]
)
def test_what_was_not_measured_is_inconclusive(more: dict[str, Any]) -> None:
    """Too few rounds, none at all, and tokens that nobody counted never pass."""
    results = {result.name: result for result in judged(side(CANDIDATE, **more), side(LIVE, **more), Performance())}

    assert (INCONCLUSIVE, INCONCLUSIVE) == (results["token_time"].verdict, results["throughput"].verdict)


@pytest.mark.parametrize(
    ("candidate", "live", "verdict"),
    [
        ([0.2] * 4, [0.1] * 4, PASS),
        ([0.201] * 4, [0.1] * 4, FAIL),
        ([0.049, 0.05, 0.05, 0.051], [0.001] * 4, PASS),
        ([0.09, 0.3, 0.3, 0.1], [0.09] * 4, INCONCLUSIVE),
        ([0.01] * 4, [0.1] * 4, PASS),
    ],
    ids=["on the limit", "above it", "noise", "perhaps", "faster"],
)
def test_a_ratio_fails_when_it_is_large_and_no_chance(
    candidate: list[float], live: list[float], verdict: Verdict
) -> None:
    """The limit itself is allowed; small differences are noise; an interval across the limit decides nothing."""
    result = compare(FIRST, candidate, live)

    assert result.verdict is verdict
    assert all(math.isfinite(value) for value in result.measured.values())


def test_a_release_against_itself_never_fails_on_a_noisy_machine() -> None:
    """Of 40 windows in which every fifth round is slowed five times, none fails."""
    random = np.random.default_rng(7)
    found = []
    for _ in range(40):
        noise = np.exp(0.2 * random.standard_normal((2, 8))) * np.where(random.random((2, 8)) < 0.2, 5, 1)
        found.append(compare(FIRST, *(0.3 * noise).tolist()).verdict)

    assert FAIL not in found
    assert found.count(PASS) > 35
