"""Judges a candidate by its answers to the prompt file.

Scores are computed here, one row per answer; Great Expectations compares them with the spec's thresholds; every
verdict is put into a sentence with its numbers and with up to three answers that a person can look at.  Numbers
that could not be measured are left out, never guessed.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tasks._checks import scoring
from tasks._checks.prompts import Prompt, Prompts
from tasks._checks.rendering import evidence, one_line
from tasks._clients.completions import Answer, ask_each
from tasks.records import CheckResult, Verdict
from tasks.spec import ServiceSpec

if TYPE_CHECKING:
    import pandas as pd

    from tasks._checks.expectations import Finding, Limits

MAX_UNREADABLE = 0.1
"""Largest share of an answer that may be unreadable.  Tried: 0 for a good model, 0.65 for a damaged embedding,
0.16 where a byte-level tokenizer leaves its own signs for spaces; one sign used rightly in a short text is 0.05."""
SHOWN = 3
"""Offending answers that a result shows."""
MESSAGE_LENGTH = 200
"""Characters of a foreign message that a summary shows."""

NUMBERS = ("repetition", "unreadable", "first_token_s", "latency_s", "completion_tokens")
COLUMNS = (
    "prompt_id",
    "status",
    "error",
    "visible",
    "holds_fact",
    "holds_golden_fact",
    "leaks_template",
    "finish_reason",
    *NUMBERS,
)


def ask_all(endpoint: str, model: str, prompts: Prompts, spec: ServiceSpec) -> tuple[Answer, ...]:
    """Ask ``model`` at the base URL ``endpoint`` every prompt, as a stream, so many at once as the spec says.

    Never raises for what the server does: a broken answer is judged like any other.
    """
    return ask_each(
        endpoint,
        model,
        [prompt.prompt for prompt in prompts.all],
        max_tokens=spec.checks.max_tokens,
        timeout_s=spec.deadlines.request,
        stream=True,
        concurrency=spec.checks.concurrency,
    )


def quality(answers: Sequence[Answer], prompts: Prompts, spec: ServiceSpec) -> tuple[CheckResult, ...]:
    """Return the verdict of every quality check on ``answers``; a missing answer is never a pass.

    Answers belong to the prompt with the same text; one that nobody asked for makes ``answered`` fail.
    """
    # Great Expectations takes seconds to import; only a release that came this far pays for it.
    from tasks._checks.expectations import Limits, judge  # noqa: PLC0415

    checks, known = spec.checks, {prompt.prompt: prompt for prompt in prompts.all}
    frame = _frame([(known.get(answer.prompt), answer) for answer in answers])
    limits = Limits(
        of=len(prompts.all),
        facts=_least(checks.min_facts, len(prompts.with_facts)),
        of_facts=len(prompts.with_facts),
        stopped=_least(checks.min_stopped, len(prompts.all)),
        repetition=checks.max_repetition,
        unreadable=MAX_UNREADABLE,
        first_token_s=checks.max_first_token,
        latency_s=checks.max_latency,
    )
    findings = judge(frame, limits)
    said = {_id(known.get(answer.prompt), answer): answer for answer in answers}
    missing = [prompt for prompt in prompts.all if prompt.id not in said]
    return tuple(
        CheckResult(
            name=name,
            verdict=finding.verdict,
            summary=_summary(_SENTENCES[name](frame, limits), finding, len(missing), limits),
            evidence=tuple(_evidence(name, finding.offending, said, missing)),
            measured=_measured(name, frame),
        )
        for name, finding in findings.items()
    )


def _least(share: float, count: int) -> int:
    """Return the smallest number of ``count`` that is no less than ``share`` as a person wrote it."""
    return math.ceil(Fraction(str(share)) * count)


def _frame(pairs: Iterable[tuple[Prompt | None, Answer]]) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - half a second that commands without a check do not pay

    frame = pd.DataFrame([_row(prompt, answer) for prompt, answer in pairs], columns=list(COLUMNS))
    return frame.astype({**dict.fromkeys(COLUMNS, object), **dict.fromkeys(NUMBERS, float)})


def _row(prompt: Prompt | None, answer: Answer) -> dict[str, Any]:
    """Return the scores of one answer; what a broken one leaves unmeasured is null."""
    whole, text = answer.error is None, answer.text
    expect = prompt.expect if prompt else None
    holds = None if expect is None else whole and scoring.holds_fact(text, (expect,))
    return {
        "prompt_id": _id(prompt, answer),
        "status": answer.status,
        "error": answer.error if prompt else "nobody asked this",
        "visible": not scoring.is_empty(text),
        "holds_fact": holds,
        "holds_golden_fact": holds if prompt and prompt.golden else None,
        "leaks_template": scoring.leaks_template(text) if whole else None,
        "finish_reason": answer.finish_reason,
        "repetition": scoring.repetition(text) if whole else None,
        "unreadable": scoring.unreadable(text) if whole else None,
        "first_token_s": answer.first_token_s,
        "latency_s": answer.latency_s,
        "completion_tokens": answer.completion_tokens,
    }


def _id(prompt: Prompt | None, answer: Answer) -> str:
    return prompt.id if prompt else answer.prompt


def _summary(sentence: str, finding: "Finding", missing: int, limits: "Limits") -> str:
    if finding.raised:
        return f"could not be evaluated: {one_line(finding.raised[0], MESSAGE_LENGTH)}"
    unjudged = missing + finding.unmeasured
    if unjudged and finding.verdict is Verdict.INCONCLUSIVE:
        return f"{unjudged} of {limits.of} answers could not be judged; {sentence}"
    return sentence


def _evidence(name: str, offending: Sequence[str], said: dict[str, Answer], missing: Sequence[Prompt]) -> list[str]:
    shown = [evidence(said[prompt_id]) for prompt_id in offending]
    if name == "answered":
        shown += [f"{prompt.prompt} -> no answer" for prompt in missing]
    return shown[:SHOWN]


def _count(column: "pd.Series", value: object) -> int:
    return int((column == value).sum())


def _answered(frame: "pd.DataFrame", limits: "Limits") -> str:
    good = frame["error"].isna() & (frame["status"] == HTTPStatus.OK) & (frame["visible"] == True)  # noqa: E712
    sentence = f"{int(good.sum())} of {limits.of} prompts have a whole, visible answer, all are needed"
    return f"{sentence}; {len(frame)} answers came" if len(frame) > limits.of else sentence


def _facts(frame: "pd.DataFrame", limits: "Limits") -> str:
    held = _count(frame["holds_fact"], True)
    sentence = f"{held} of {limits.of_facts} answers hold their expected fact, at least {limits.facts} are needed"
    missed = list(frame.loc[frame["holds_golden_fact"] == False, "prompt_id"])  # noqa: E712
    return f"{sentence}; golden and not held: {', '.join(missed)}" if missed else sentence


def _template_leakage(frame: "pd.DataFrame", limits: "Limits") -> str:
    leaking = _count(frame["leaks_template"], True)
    return f"{leaking} of {limits.of} answers show marks of the chat template, none may"


def _repetition(frame: "pd.DataFrame", limits: "Limits") -> str:
    worst = _worst(frame["repetition"], "{:.0%}")
    return f"the most repetitive answer repeats itself to {worst}, at most {limits.repetition:.0%} is allowed"


def _readable(frame: "pd.DataFrame", limits: "Limits") -> str:
    worst = _worst(frame["unreadable"], "{:.0%}")
    return f"the worst answer is unreadable to {worst}, at most {limits.unreadable:.0%} is allowed"


def _finish_reason(frame: "pd.DataFrame", limits: "Limits") -> str:
    stopped, cut = (_count(frame["finish_reason"], reason) for reason in ("stop", "length"))
    other = len(frame) - stopped - cut
    sentence = f"{stopped} of {limits.of} answers ended by themselves, at least {limits.stopped} are expected"
    return f"{sentence}; {other} ended neither so nor at the token limit" if other else sentence


def _latency(frame: "pd.DataFrame", limits: "Limits") -> str:
    first, whole = (_worst(frame[column], "{:.1f} s") for column in ("first_token_s", "latency_s"))
    return (
        f"slowest first token {first}, at most {limits.first_token_s:g} s; "
        f"slowest answer {whole}, at most {limits.latency_s:g} s"
    )


def _worst(column: "pd.Series[float]", form: str) -> str:
    return form.format(column.max()) if column.notna().any() else "unknown"


_SENTENCES: "dict[str, Callable[[pd.DataFrame, Limits], str]]" = {
    "answered": _answered,
    "facts": _facts,
    "template_leakage": _template_leakage,
    "repetition": _repetition,
    "readable": _readable,
    "finish_reason": _finish_reason,
    "latency": _latency,
}


def _measured(name: str, frame: "pd.DataFrame") -> dict[str, float]:
    """Return the numbers behind a verdict; only finite ones, since a record must survive JSON."""
    first, whole = frame["first_token_s"], frame["latency_s"]
    numbers: dict[str, float] = {
        "answered": {"answers": len(frame), "broken": int(frame["error"].notna().sum())},
        "facts": {"held": _count(frame["holds_fact"], True)},
        "template_leakage": {"leaking": _count(frame["leaks_template"], True)},
        "repetition": {"max": frame["repetition"].max(), "mean": frame["repetition"].mean()},
        "readable": {"max_unreadable": frame["unreadable"].max()},
        "finish_reason": {
            "stop": _count(frame["finish_reason"], "stop"),
            "length": _count(frame["finish_reason"], "length"),
        },
        "latency": {
            "first_token_max_s": first.max(),
            "first_token_p95_s": first.quantile(0.95),
            "latency_max_s": whole.max(),
            "latency_p95_s": whole.quantile(0.95),
            "tokens_per_s": frame["completion_tokens"].sum() / whole.sum() if len(frame) else math.nan,
        },
    }[name]
    return {key: round(float(value), 4) for key, value in numbers.items() if math.isfinite(value)}
