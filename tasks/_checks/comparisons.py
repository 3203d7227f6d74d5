"""Judges a candidate by its answers beside the live release's: pairs in, verdicts out, and nothing is asked here.

Nearly every check is one question: on which prompts is the candidate worse where the live release is not, and are
those too many to be chance?  They differ in what is wrong with an answer.  Wording may differ as it likes: agreement
is only reported, unless the spec demands some.

A comparison needs two sides.  Where too few prompts have a whole answer of both, or the live answers are themselves
no measure, ``comparable`` is inconclusive, and nothing else is to be asked: the candidate is neither blamed nor
praised.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import exp, log, nan
from typing import TypeVar

from tasks._checks import agreement
from tasks._checks.agreement import Fault
from tasks._checks.paired_verdicts import LENGTH, MIN_COMPARED, SHOWN, Pair, examples, finite, lost, within
from tasks._checks.rendering import one_line
from tasks._checks.scoring import holds_fact
from tasks._clients.completions import Answer
from tasks._spec_checks import Checks
from tasks.records import CheckResult, Verdict

T = TypeVar("T")

MIN_SOUND = 0.5
"""Least share of live answers that are sound by themselves; small models that serve well do repeat themselves."""


Wrong = Callable[[Pair], tuple[bool, bool]]
"""Whether something is wrong with the candidate's answer, and with the live one."""


def comparable(asked: Sequence[Pair], checks: Checks) -> CheckResult:
    """Return whether there is enough to compare; never a fail."""
    broken = [pair for pair in asked if not pair.whole]
    whole = len(asked) - len(broken)
    sound = sum(pair.live.error is None and _fault(pair.live, checks) is None for pair in asked)
    summary, verdict = f"{whole} of {len(asked)} prompts have a whole answer of both", Verdict.INCONCLUSIVE
    if not asked or whole < MIN_COMPARED * len(asked):
        summary += f", {MIN_COMPARED:.0%} are needed"
    elif sound < MIN_SOUND * len(asked):
        summary += f", but only {sound} live answers are sound: they are no measure"
    else:
        verdict = Verdict.PASS
    return CheckResult(
        name="paired_answers",
        verdict=verdict,
        summary=summary,
        evidence=tuple(line for pair in broken for line in _errors(pair))[:SHOWN],
        measured={"asked": len(asked), "whole": whole, "sound_live": sound},
    )


def compare(asked: Sequence[Pair], checks: Checks) -> tuple[CheckResult, ...]:
    """Return every verdict that the texts alone allow; what is broken on either side is left out of them."""
    worse = (_worse(name, what, wrong, asked, checks) for name, what, wrong in _wrongs(asked, checks))
    return (*worse, _agreeing(asked, checks), _length(asked, checks))


def _wrongs(asked: Sequence[Pair], checks: Checks) -> Iterator[tuple[str, str, Wrong]]:
    """Yield what may be wrong with an answer: the check's name, what is said of such answers, and how it is told."""
    again = _said_again([pair for pair in asked if pair.whole])

    def faulty(*faults: Fault) -> Wrong:
        return lambda pair: (_fault(pair.candidate, checks) in faults, _fault(pair.live, checks) in faults)

    yield "paired_accuracy", "lack the expected fact", _lacks_fact
    yield "paired_variety", "were given to another prompt as well", again
    yield "paired_refusals", "decline", lambda pair: _each(pair, agreement.refuses)
    yield "paired_language", "are in another language than the live ones", lambda pair: (_translated(pair), False)
    yield "paired_endings", "did not end by themselves", _ran_on
    yield "paired_repetition", "repeat themselves", faulty(Fault.REPETITIVE)
    yield "paired_template", "show marks of the chat template", faulty(Fault.TEMPLATE)
    yield "paired_readable", "are empty or unreadable", faulty(Fault.EMPTY, Fault.UNREADABLE)


def _worse(name: str, what: str, wrong: Wrong, asked: Sequence[Pair], checks: Checks) -> CheckResult:
    if wrong is _lacks_fact:
        asked = [pair for pair in asked if pair.prompt.expect is not None]
    found = [(pair, wrong(pair) if pair.whole else None) for pair in asked]
    ours, theirs = (sum(both[side] for _, both in found if both) for side in (0, 1))
    scores = [(pair, float(both[0]) - float(both[1]) if both else nan) for pair, both in found]
    sentence = f"{ours} of {len(found)} answers {what}, {theirs} of the live release's"
    return lost(name, sentence, scores, checks, why=f"is among those that {what}")


def _agreeing(asked: Sequence[Pair], checks: Checks) -> CheckResult:
    pairs = [pair for pair in asked if pair.whole]
    equal = [(pair, float(_same(pair))) for pair in pairs]
    exactly = sum(pair.candidate.text == pair.live.text for pair in pairs)
    least = checks.paired.min_agreement
    needed = f"at least {least:.0%} are needed" if least else "any share will do"
    counted = f"{exactly} of {len(pairs)} answers are equal, {sum(same > 0 for _, same in equal)} but for spelling"
    result = within(
        "paired_agreement",
        lambda mean: f"{counted}: {mean}; {needed}",
        equal,
        (least, 1),
        checks,
        why="another answer",
    )
    differing = [pair for pair, same in equal if not same]
    return result.model_copy(
        update={
            "examples": examples(differing, "another answer"),
            "measured": result.measured | {"exact": exactly / len(pairs)} if pairs else {},
        }
    )


def _length(asked: Sequence[Pair], checks: Checks) -> CheckResult:
    """Judge the geometric mean of the ratios, so that twice and half as long weigh the same."""
    pairs = [pair for pair in asked if pair.whole]
    ratios = [(pair, log(agreement.length_ratio(pair.candidate.text, pair.live.text))) for pair in pairs]
    most = checks.paired.max_length_ratio
    mean = exp(sum(ratio for _, ratio in ratios) / len(ratios)) if ratios else nan
    result = within(
        "paired_length",
        lambda logarithm: (
            f"answers are {mean:.2f} times as long as the live ones, {1 / most:.2f} to {most:.2f} is allowed; "
            f"logarithm {logarithm}"
        ),
        ratios,
        (-log(most), log(most)),
        checks,
        why="of another length",
    )
    return result.model_copy(update={"measured": result.measured | finite(ratio=mean)})


def _said_again(pairs: Sequence[Pair]) -> Wrong:
    """Return what tells whether an answer was given to another prompt as well, on its own side."""
    prompts: tuple[dict[str, set[str]], dict[str, set[str]]] = defaultdict(set), defaultdict(set)
    for pair in pairs:
        for side, said in zip(prompts, _each(pair, agreement.normalised), strict=True):
            side[said].add(pair.prompt.id)

    def again(pair: Pair) -> tuple[bool, bool]:
        ours, theirs = _each(pair, agreement.normalised)
        return len(prompts[0][ours]) > 1, len(prompts[1][theirs]) > 1

    return again


def _lacks_fact(pair: Pair) -> tuple[bool, bool]:
    expect = pair.prompt.expect or ""
    return _each(pair, lambda text: not holds_fact(text, (expect,)))


def _translated(pair: Pair) -> bool:
    ours, theirs = _each(pair, agreement.language)
    return None not in (ours, theirs) and ours != theirs


def _same(pair: Pair) -> bool:
    ours, theirs = _each(pair, agreement.normalised)
    return ours == theirs


def _ran_on(pair: Pair) -> tuple[bool, bool]:
    """Return which side was cut off by the limit of tokens: a model that does not know its end goes on for ever."""
    return pair.candidate.finish_reason == "length", pair.live.finish_reason == "length"


def _each(pair: Pair, of: Callable[[str], T]) -> tuple[T, T]:
    return of(pair.candidate.text), of(pair.live.text)


def _fault(answer: Answer, checks: Checks) -> Fault | None:
    return agreement.fault(answer.text, checks.max_repetition)


def _errors(pair: Pair) -> Iterator[str]:
    for side, answer in (("candidate", pair.candidate), ("live release", pair.live)):
        if answer.error is not None:
            yield f"{one_line(pair.prompt.prompt, LENGTH)} -> {side}: {one_line(answer.error, LENGTH)}"
