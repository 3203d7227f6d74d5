"""A different model passes, a damaged one fails the check made for its damage, a broken side decides nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks._checks.comparisons import comparable, compare
from tasks._checks.paired_verdicts import Pair
from tasks._checks.prompts import Prompt
from tasks._clients.completions import Answer
from tasks._spec_checks import Checks
from tasks.records import CheckResult, Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
CITIES = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "England": "London",
    "China": "Beijing",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Cuba": "Havana",
    "Norway": "Oslo",
}
PROMPTS = tuple(
    Prompt(
        id=country.lower(),
        prompt=f"What is the capital of {country}?",
        expect=rf"\b{city}\b",
        slice="first" if place < 6 else "second",
    )
    for place, (country, city) in enumerate(CITIES.items())
)
Say = Callable[[str], str]


def right(country: str) -> str:
    """Answer as the live release does."""
    return f"The capital of {country} is {CITIES[country]}."


def answer(country: str, text: str, **more: Any) -> Answer:
    """Return a whole answer, or with an ``error`` a broken one."""
    return Answer(prompt=f"What is the capital of {country}?", text=text, latency_s=0.1, **more)


def pairs(candidate: Say, live: Say = right, prompts: tuple[Prompt, ...] = PROMPTS) -> list[Pair]:
    """Return a pair for each prompt."""
    countries = {prompt: prompt.prompt.removeprefix("What is the capital of ").rstrip("?") for prompt in prompts}
    return [Pair(p, answer(c, candidate(c)), answer(c, live(c))) for p, c in countries.items()]


def judged(candidate: Say, live: Say = right, **paired: Any) -> dict[str, CheckResult]:
    """Return the checks by name."""
    checks = Checks.model_validate({"paired": paired})
    return {result.name: result for result in compare(pairs(candidate, live), checks)}


def unpassed(results: dict[str, CheckResult]) -> dict[str, Verdict]:
    """Return the verdicts that are no pass."""
    return {name: result.verdict for name, result in results.items() if result.verdict is not PASS}


def broken(asked: list[Pair], count: int, side: str) -> list[Pair]:
    """Return the pairs with the last ``count`` answers of one side broken."""
    return [
        *asked[:-count],
        *(Pair(**{**vars(pair), side: answer("Cuba", "", error="HTTP 500")}) for pair in asked[-count:]),
    ]


def test_a_model_against_itself_passes() -> None:
    """Nothing is lost, everything agrees, and the summary says which loss could have shown."""
    results = judged(right)

    assert not unpassed(results)
    assert not any(result.examples for result in results.values())
    assert results["paired_accuracy"].summary == (
        "0 of 12 answers lack the expected fact, 0 of the live release's; more on 34% of prompts would have shown"
    )
    assert results["paired_agreement"].measured["exact"] == 1
    assert all(CheckResult.from_json(result.to_json()) == result for result in results.values())


@pytest.mark.parametrize(
    "wording",
    [
        lambda country: f"{CITIES[country]} is the capital of {country}, and has been for a long time.",
        lambda country: f"{CITIES[country]}.",
        lambda country: f"Sure! It's **{CITIES[country]}**.",
    ],
    ids=["longer", "shorter", "other style"],
)
def test_a_good_model_may_word_it_otherwise(wording: Say) -> None:
    """No answer agrees, every check passes, and the differing answers can be read."""
    results = judged(wording)

    assert not unpassed(results)
    assert results["paired_agreement"].measured["mean"] == 0
    assert len(results["paired_agreement"].examples) == 5


def test_a_better_model_passes() -> None:
    """What the live release gets wrong may be right."""
    assert not unpassed(judged(right, lambda country: f"The capital of {country} is not known."))


SPANISH = "La capital del país es la ciudad de {} y es muy grande."
DAMAGE: dict[str, tuple[Say, str]] = {
    "wrong template": (lambda country: f"{right(country)}<|im_end|>\n<|im_start|>user", "paired_template"),
    "wrong tokenizer": (lambda country: right(country).replace(" ", "Ġ"), "paired_readable"),
    "zeroed weights": (lambda country: f"{country} {CITIES[country]} " + "!!!! " * 40, "paired_repetition"),
    "no answer": (lambda _country: "", "paired_readable"),
    "noise": (lambda country: f"teaching {country} yewinnot sat leave line ye, at send", "paired_accuracy"),
    "other language": (lambda country: SPANISH.format(CITIES[country]), "paired_language"),
    "always the same": (lambda _country: "Paris, Tokyo or London, as you like.", "paired_variety"),
    "refuses": (lambda country: f"I'm sorry, but I can't help with {CITIES[country]}.", "paired_refusals"),
    "endless": (lambda country: " ".join(f"{CITIES[country]} {n}" for n in range(60)), "paired_length"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_fails_by_name_with_examples(kind: str) -> None:
    """Each kind fails the check that is made for it, which shows the answers side by side."""
    say, name = DAMAGE[kind]
    result = judged(say)[name]

    assert result.verdict is FAIL
    assert len(result.examples) == 5
    assert {example.live for example in result.examples} <= {right(country) for country in CITIES}
    assert all(example.why for example in result.examples)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_on_both_sides_is_no_loss(kind: str) -> None:
    """A candidate as bad as the live release is not worse than it."""
    say, _ = DAMAGE[kind]
    assert not unpassed(judged(say, say))


@pytest.mark.parametrize(("wrong", "verdict"), [(1, PASS), (3, INCONCLUSIVE), (6, FAIL)])
def test_facts_lost(wrong: int, verdict: Verdict) -> None:
    """One of twelve is within the margin, three may be chance, six are proven; each is shown."""
    names = list(CITIES)[:wrong]
    result = judged(lambda country: "I do not know." if country in names else right(country))["paired_accuracy"]

    assert verdict is result.verdict
    assert min(wrong, 5) == len(result.examples)
    assert wrong == result.measured["lost"]


@pytest.mark.parametrize(("ran_on", "verdict"), [(0, PASS), (1, PASS), (12, FAIL)])
def test_a_model_that_does_not_know_its_end_is_found(ran_on: int, verdict: Verdict) -> None:
    """Its answers hold their facts and go on until the limit, where the live release's end by themselves."""
    asked = [
        replaced(pair, finish_reason="length") if number < ran_on else pair
        for number, pair in enumerate(pairs(right))
    ]

    results = {result.name: result for result in compare(asked, Checks())}

    assert verdict is results["paired_endings"].verdict


def replaced(pair: Pair, **fields: object) -> Pair:
    """Return the pair with another answer of the candidate's."""
    return replace(pair, candidate=pair.candidate.model_copy(update=fields))


def test_a_slice_that_is_lost_fails_although_the_whole_is_within_its_margin() -> None:
    """Six of a hundred and twenty prompts are no loss, unless they are all of one language."""
    many = tuple(
        prompt.model_copy(update={"id": f"{prompt.id}-{copy}", "slice": "rare" if copy == place == 0 else "usual"})
        for copy in range(10)
        for place, prompt in enumerate(PROMPTS)
    )
    rare = tuple(prompt.model_copy(update={"slice": "rare"}) for prompt in many[:8])
    asked = pairs(right, prompts=many[8:]) + [
        Pair(prompt, answer("Cuba", "I do not know."), answer("Cuba", right(country)))
        for prompt, country in zip(rare, CITIES, strict=False)
    ]
    accuracy = compare(asked, Checks())[0]

    assert accuracy.verdict is FAIL
    assert "slice rare: of 8 prompts 8 lost, 0 won: fail" in accuracy.evidence
    assert "slice usual: of 112 prompts 0 lost, 0 won: pass" in accuracy.evidence


@pytest.mark.parametrize("side", ["candidate", "live"])
def test_too_few_whole_answers_are_inconclusive(side: str) -> None:
    """One of twelve may be broken, on either side; two are too many, and the errors are shown."""
    assert comparable(broken(pairs(right), 1, side), Checks()).verdict is PASS
    result = comparable(broken(pairs(right), 2, side), Checks())

    assert result.verdict is INCONCLUSIVE
    assert result.summary == "10 of 12 prompts have a whole answer of both, 90% are needed"
    assert all("HTTP 500" in line for line in result.evidence)
    assert comparable([], Checks()).verdict is INCONCLUSIVE


def test_a_live_release_that_talks_nonsense_is_no_measure() -> None:
    """Whole answers that are empty or loop say nothing about the candidate."""
    result = comparable(pairs(right, lambda _country: "the " * 60), Checks())

    assert result.verdict is INCONCLUSIVE
    assert "no measure" in result.summary


def test_facts_that_could_not_be_compared_are_inconclusive() -> None:
    """With most answers whole, but not those that hold facts, accuracy is not known."""
    free = tuple(
        Prompt(id=f"free-{number}", prompt=f"What is the capital of {country}?")
        for number in range(10)
        for country in CITIES
    )
    asked = pairs(right, prompts=free) + broken(pairs(right), 5, "candidate")
    results = {result.name: result for result in compare(asked, Checks())}

    assert comparable(asked, Checks()).verdict is PASS
    assert results["paired_accuracy"].verdict is INCONCLUSIVE
    assert "only 7 of 12 could be compared" in results["paired_accuracy"].summary


def test_agreement_is_needed_only_where_the_spec_asks_for_it() -> None:
    """With a least share, other wording fails; without one it is only told."""

    def other(country: str) -> str:
        return f"It is {CITIES[country]}."

    assert judged(other)["paired_agreement"].verdict is PASS
    assert judged(other, min_agreement=0.9)["paired_agreement"].verdict is FAIL
    assert judged(lambda country: right(country).upper(), min_agreement=0.9)["paired_agreement"].verdict is PASS


def test_rounds_count_a_prompt_once() -> None:
    """Three copies of two lost prompts prove no more than the two."""
    say: Say = lambda country: "No." if country in {"France", "Japan"} else right(country)  # noqa: E731
    accuracy = compare(pairs(say) * 3, Checks())[0]

    assert accuracy.verdict is INCONCLUSIVE
    assert (accuracy.measured["prompts"], accuracy.measured["lost"]) == (12, 2)
    assert len(accuracy.examples) == 2
