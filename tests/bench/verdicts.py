"""From the verdicts of the checks to the figures of goal R4: pure, so that they can be tested without an engine.

A candidate is ``refused`` where a check fails it and ``held`` where none does but one could not judge: a release goes
on in neither case.  So both catch a defect, and both are a false alarm over the same model; they are counted apart.
A candidate that did not start, or a check that raised, leaves no figure: then the benchmark itself is broken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tasks.records import CheckResult, Verdict
from tests.bench.figures import AT_LEAST, AT_MOST, Figure

GOAL = "R4"
LEAST_CAUGHT, MOST_ALARMS = 0.95, 0.02


class End(StrEnum):
    """What the checks together made of a candidate."""

    REFUSED = "refused"
    HELD = "held"
    PASSED = "passed"
    BROKEN = "broken"


@dataclass(frozen=True)
class Judged:
    """One candidate and what every check said of it; ``answers`` are its own, by prompt.

    ``same_answers`` counts those that are the live release's, letter by letter.  ``error`` is why it could not be
    judged.
    """

    name: str
    kind: str
    checks: tuple[CheckResult, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    same_answers: int = 0
    seconds: float = 0.0
    concurrency: int = 0
    error: str = ""

    @property
    def end(self) -> End:
        """Return what became of the candidate."""
        if self.error:
            return End.BROKEN
        if self.said(Verdict.FAIL):
            return End.REFUSED
        return End.HELD if self.said(Verdict.INCONCLUSIVE) else End.PASSED

    def said(self, verdict: Verdict) -> tuple[str, ...]:
        """Return the names of the checks with this verdict."""
        return tuple(check.name for check in self.checks if check.verdict is verdict)

    def to_json(self) -> dict[str, Any]:
        """Return it for the report: all verdicts, the reason of each that is no pass, and every number measured."""
        return {
            "name": self.name,
            "kind": self.kind,
            "end": self.end.value,
            "verdicts": {check.name: check.verdict.value for check in self.checks},
            "reasons": {check.name: check.summary for check in self.checks if check.verdict is not Verdict.PASS},
            "measured": {check.name: check.measured for check in self.checks if check.measured},
            "same_answers": self.same_answers,
            "concurrency": self.concurrency,
            "seconds": round(self.seconds, 1),
            **({"error": self.error} if self.error else {}),
        }


def figures(defects: Sequence[Judged], alike: Sequence[Judged]) -> Iterator[Figure]:
    """Yield the share of defects caught, and of runs of the same model that were not passed."""
    if defects:
        caught = [one for one in defects if one.end in {End.REFUSED, End.HELD}]
        detail = {
            **_counted(defects),
            "missed": [one.name for one in defects if one.end is End.PASSED],
            "by_kind": {kind: _counted([one for one in defects if one.kind == kind]) for kind in _kinds(defects)},
            "by_check": catches(defects),
        }
        yield _figure("defects caught", caught, defects, AT_LEAST, LEAST_CAUGHT, detail)
    if alike:
        alarms = [one for one in alike if one.end in {End.REFUSED, End.HELD}]
        detail = {
            **_counted(alike),
            "by_check": catches(alike),
            "runs_with_other_answers": sum(one.same_answers < len(one.answers) for one in alike),
        }
        yield _figure("false alarms, the same model", alarms, alike, AT_MOST, MOST_ALARMS, detail)


def catches(judged: Sequence[Judged]) -> dict[str, dict[str, list[str]]]:
    """Return by check what it failed, what it failed alone, and what it could not judge; silent checks left out."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in judged:
        failed = one.said(Verdict.FAIL)
        alone = failed if len(failed) == 1 else ()
        for what, names in (("failed", failed), ("alone", alone), ("held", one.said(Verdict.INCONCLUSIVE))):
            for name in names:
                found.setdefault(name, {}).setdefault(what, []).append(one.name)
    return found


def _figure(
    name: str, some: Sequence[Judged], of: Sequence[Judged], compare: str, bound: float, detail: dict[str, Any]
) -> Figure:
    broken = next((one for one in of if one.end is End.BROKEN), None)
    why = f"{broken.name}: {broken.error}" if broken else ""
    return Figure(GOAL, name, None if broken else len(some) / len(of), "", compare, bound, why, detail)


def _counted(judged: Sequence[Judged]) -> dict[str, int]:
    return {"of": len(judged)} | {end.value: sum(one.end is end for one in judged) for end in End}


def _kinds(judged: Sequence[Judged]) -> list[str]:
    return list(dict.fromkeys(one.kind for one in judged))
