"""The paired check: the same prompts to the live release and to the candidate, and whether the candidate is worse.

Both are asked the same prompt at the same moment, each at its own address, and an answer counts only if its headers
name the release that was meant: else a candidate could be compared with itself.  The texts are judged by
``tasks._checks.comparisons``; here are added what needs further requests, log-probabilities, embeddings and a judge.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks._checks.prompts import Prompts
from tasks._clients.completions import Answer, ask_both
from tasks._clients.posting import Pace
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec

if TYPE_CHECKING:
    from tasks._checks.paired_verdicts import Pair

MOST_ERRORS = 3
"""Different reasons for missing log-probabilities that evidence shows."""
POWER = 0.8
"""Share of releases in which a planned number of prompts proves the loss; four in five is usual."""


def paired(
    candidate: str, live: str, *, releases: tuple[Release, Release], prompts: Prompts, spec: ServiceSpec
) -> tuple[CheckResult, ...]:
    """Return the verdicts on ``candidate`` beside ``live``, base URLs of the ``releases`` in that order.

    Never raises for what either does: where they cannot be compared, that is the one inconclusive verdict.  All
    prompts are asked within ``spec.deadlines.checks`` seconds.
    """
    # They need numpy and scipy, a third of a second that commands without a check do not pay.
    from tasks._checks.comparisons import comparable, compare  # noqa: PLC0415

    asked = ask_pairs((candidate, live), releases, prompts, spec)
    first = comparable(asked, spec.checks)
    if first.verdict is not Verdict.PASS:
        return (first,)
    one_round = [pair for pair in asked[: len(prompts.all)] if pair.whole]
    scored = _logprobs((candidate, live), releases[0].service, one_round, spec)
    return (first, *compare(asked, spec.checks), *scored, *_similarity(one_round, spec), *_judge(one_round, spec))


def ask_pairs(
    addresses: tuple[str, str], releases: tuple[Release, Release], prompts: Prompts, spec: ServiceSpec
) -> tuple["Pair", ...]:
    """Return the answers to every prompt, round after round; one by another release than was meant has an error."""
    from tasks._checks.paired_verdicts import Pair  # noqa: PLC0415 - as above

    checks = spec.checks
    asked = prompts.all * checks.paired.rounds
    answers = ask_both(
        addresses,
        releases[0].service,
        [prompt.prompt for prompt in asked],
        max_tokens=checks.max_tokens,
        timeout_s=spec.deadlines.request,
        concurrency=checks.concurrency,
        within_s=spec.deadlines.checks,
    )
    return tuple(
        Pair(prompt, _by(ours, releases[0]), _by(theirs, releases[1]))
        for prompt, (ours, theirs) in zip(asked, answers, strict=True)
    )


def planned_sensitivity(prompts: Prompts, spec: ServiceSpec) -> str:
    """Return in a sentence which loss of accuracy the prompts can show, and how many would prove a smaller one."""
    from tasks._checks.paired_statistics import hidden_loss, needed_prompts  # noqa: PLC0415 - as above

    check, count = spec.checks.paired, len(prompts.with_facts)
    shown = hidden_loss(count, check.margin, check.confidence)
    wanted = min(2 * check.margin, 1.0)
    needed = needed_prompts(wanted, check.confidence, POWER, check.margin)
    noun = "prompt" if count == 1 else "prompts"
    sentence = (
        f"{count} {noun} can show a loss of accuracy of {shown:.0%} or more with {check.confidence:.0%} confidence"
    )
    if needed is None or needed <= count:
        return sentence
    return f"{sentence}; to prove one of {wanted:.0%}, {needed} with an expected fact are needed"


def _by(answer: Answer, release: Release) -> Answer:
    if answer.error is not None or (answer.release, answer.commit) == (release.name, release.commit):
        return answer
    return answer.model_copy(update={"error": f"answered by {answer.release}, not by {release.name}"})


def _logprobs(
    addresses: tuple[str, str], model: str, pairs: Sequence["Pair"], spec: ServiceSpec
) -> Iterator[CheckResult]:
    """Yield the verdict on the drift of log-probabilities, if the spec wants it and the engine knows any."""
    from tasks._checks.logprobs import drifts  # noqa: PLC0415
    from tasks._checks.paired_verdicts import within  # noqa: PLC0415 - as above

    check = spec.checks.paired
    pairs = [pair for pair in pairs if pair.live.text.strip()]
    if not check.logprobs:
        return
    found = drifts(
        addresses,
        model,
        [(pair.prompt.prompt, pair.live.text) for pair in pairs],
        _pace(spec),
    )
    if not any(drift.known for drift in found):
        return
    result = within(
        "paired_logprobs",
        lambda mean: (
            f"a token of the live answers loses {mean} nats of log-probability, "
            f"at most {check.max_logprob_drift:g} is allowed"
        ),
        [(pair, drift.nats) for pair, drift in zip(pairs, found, strict=True)],
        (float("-inf"), check.max_logprob_drift),
        spec.checks,
        why="the candidate finds the live answer unlikely",
    )
    errors = dict.fromkeys(drift.error for drift in found if drift.error)
    yield result.model_copy(update={"evidence": (*result.evidence, *list(errors)[:MOST_ERRORS])})


def _similarity(pairs: Sequence["Pair"], spec: ServiceSpec) -> Iterator[CheckResult]:
    check = spec.checks.paired
    if not check.embeddings:
        return
    from tasks._checks.meaning import similarities  # noqa: PLC0415
    from tasks._checks.paired_verdicts import within  # noqa: PLC0415 - as above

    found = similarities(
        _texts(pairs),
        address=check.embeddings,
        model=check.embeddings_model,
        pace=_pace(spec),
    )
    yield within(
        "paired_similarity",
        lambda mean: f"answers are similar to {mean}, at least {check.min_similarity:g} is needed",
        list(zip(pairs, found, strict=True)),
        (check.min_similarity, float("inf")),
        spec.checks,
        why="of another meaning",
    )


def _judge(pairs: Sequence["Pair"], spec: ServiceSpec) -> Iterator[CheckResult]:
    check = spec.checks.paired
    if not check.judge:
        return
    from tasks._checks.meaning import opinions  # noqa: PLC0415
    from tasks._checks.paired_verdicts import lost  # noqa: PLC0415 - as above

    found = opinions(
        _texts(pairs),
        address=check.judge,
        model=check.judge_model,
        pace=_pace(spec),
    )
    sentence = (
        f"{check.judge_model} prefers {found.count(1.0)} of {len(found)} live answers and {found.count(-1.0)} others"
    )
    yield lost(
        "paired_judge",
        sentence,
        list(zip(pairs, found, strict=True)),
        spec.checks,
        why="is worse in the judge's eyes",
    )


def _texts(pairs: Sequence["Pair"]) -> list[tuple[str, str, str]]:
    return [(pair.prompt.prompt, pair.candidate.text, pair.live.text) for pair in pairs]


def _pace(spec: ServiceSpec) -> Pace:
    return Pace(spec.deadlines.request, spec.deadlines.checks, 2 * spec.checks.concurrency)
