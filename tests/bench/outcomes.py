"""From releases and answers to the figures of their goals: pure, so that they can be tested without a server.

What was live is read from the record, what clients got from the driver.  A release may answer from the moment at
which the step begins that leads the address to it, until the step has ended that leads the address away; any other
answer is a wrong one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from tasks.records import Progress, Step, StepName
from tests.bench.driver import Answer, Way
from tests.bench.figures import AT_LEAST, AT_MOST, MB, Figure

WAITING = (
    StepName.MIRROR,
    StepName.READY,
    StepName.SMOKE,
    StepName.QUALITY,
    StepName.PAIRED,
    StepName.PERFORMANCE,
    StepName.OWN,
    StepName.APPROVE,
    StepName.BAKE,
    StepName.RECEIPT,
)
"""Steps that wait for what is not the controller: bytes, the candidate, checks, a person, the bake, the last clients.
What is left is to start and to shift, to tidy up, and everything between, before and after the steps."""

LONG_S = 120.0
SHOWN = 5
"""Faults that a figure shows."""

Spans = Mapping[str, Sequence[tuple[float, float]]]
"""When each release was live, by its name, in seconds of the day."""


@dataclass(frozen=True)
class Carried:
    """A release that has ended, when it was asked for and when the run that carried it was over, in seconds.

    ``peak`` is the most memory that the run's process had, in bytes: all of it, and what belongs to it alone.
    """

    progress: Progress
    asked: float
    over: float
    peak: int = 0
    own: int = 0


@dataclass(frozen=True)
class Decision:
    """When a roll back was written: not yet at ``before``, for certain at ``by``."""

    before: float
    by: float


@dataclass(frozen=True)
class Scene:
    """Something that happened between two moments, with the answers of that time."""

    name: str
    since: float
    until: float
    answers: Sequence[Answer]
    spans: Spans
    detail: Mapping[str, Any] = field(default_factory=dict)


def live_spans(past: Iterable[Progress]) -> Spans:
    """Return when each release was live, by the record's ended releases, the oldest first."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    live: str | None = None

    def lead(to: str | None, step: Step) -> str | None:
        if live and live != to:
            end = (step.ended_at or step.started_at).timestamp()
            spans[live][-1] = (spans[live][-1][0], end)
        if to and live != to:
            spans[to].append((step.started_at.timestamp(), inf))
        return to

    for one in past:
        shift, back, before = one.step(StepName.SHIFT), one.step(StepName.MOVE_BACK), live
        if shift:
            live = lead(one.release.name, shift)
        if back:
            live = lead(before if before != one.release.name else None, back)
    return spans


def is_wrong(answer: Answer, spans: Spans) -> bool:
    """Say whether an answer came from a release that was not live at any moment between request and answer."""
    if answer.answered is None:
        return False
    known = spans.get(answer.release, ())
    return not any(start <= answer.answered and answer.began <= end for start, end in known)


def kept(goal: str, scene: Scene) -> list[Figure]:
    """Return how many requests of a scene were lost, truncated, or answered by a release that was not live."""
    mine = [one for one in scene.answers if one.ended >= scene.since and one.began <= scene.until]
    lost = [one for one in mine if one.fault and not one.truncated]
    truncated = [one for one in mine if one.truncated]
    wrong = [one for one in mine if not one.fault and is_wrong(one, scene.spans)]
    ways = Counter(one.way.value for one in mine)
    why = "" if {Way.NEW, Way.KEPT, Way.STREAM} <= {one.way for one in mine} else "not every client asked"
    detail = {
        **scene.detail,
        "requests": dict(ways),
        "by_release": dict(Counter(one.release for one in mine)),
        "seconds": round(scene.until - scene.since, 1),
        "streams_open_across_a_switch": len(across(mine, scene.spans)),
    }
    found = {"lost": lost, "truncated": truncated, "answered by another": wrong}
    return [
        Figure(
            *(goal, f"{what}, {scene.name}", None if why else len(bad), "requests", AT_MOST, 0, why),
            {"shown": [_told(one) for one in bad[:SHOWN]], **(detail if bad is lost else {})},
        )
        for what, bad in found.items()
    ]


def overhead(quiet: Carried, busy: Carried | None, importing: Mapping[str, Any]) -> Figure:
    """Return the controller's own seconds in a release: from the asking to the end of its run, but for the waits."""
    value, detail = _own_seconds(quiet)
    detail["not_counted"] = [step.value for step in WAITING]
    detail["imports"] = dict(importing)
    if busy is not None:
        own, parts = _own_seconds(busy)
        detail["under_traffic"] = {"value": round(own, 2), **parts}
    why = "" if detail["between_steps_s"] >= 0 else "a step was done again, so what each took is not known"
    return Figure("R1", "controller's own time in a release", None if why else value, "s", AT_MOST, 5, why, detail)


def memory(carried: Sequence[Carried], importing: Mapping[str, Any]) -> Figure:
    """Return the most memory that the process of a release took."""
    peak = max((one.peak for one in carried), default=0)
    detail = {
        "peaks_mb": [round(one.peak / MB, 1) for one in carried],
        "own_pages_mb": [round(one.own / MB, 1) for one in carried],
        "consists_of": dict(importing),
    }
    why = "" if peak else "no process of a release was seen"
    return Figure(
        "R6", "peak memory of a release's process", peak / MB if peak else None, "MB", AT_MOST, 300, why, detail
    )


def one_release(asked: int, told: Sequence[str], made: int, detail: Mapping[str, Any]) -> Figure:
    """Return how many releases so many requests for one commit made; ``told`` is what each asker heard of."""
    why = "" if len(told) == asked and len(set(told)) == 1 else f"{len(told)} of {asked} heard of {sorted(set(told))}"
    value = None if why or not made else made
    return Figure("R3", f"releases made by {asked} requests at once", value, "releases", AT_MOST, 1, why, detail)


def restored(before: str, after: str, seconds: float, detail: Mapping[str, Any]) -> Figure:
    """Return whether the last good release answers again; ``before`` and ``after`` are release and commit."""
    why = "" if before == after else f"{after or 'nothing'} answers, not {before}"
    shown = {**detail, "first_answer_s": round(seconds, 2), "release": after}
    return Figure("R7", "releases back from the bucket alone", int(not why), "", AT_LEAST, 1, why, shown)


def status(seconds: Sequence[float]) -> Figure:
    """Return the median wall time of ``slipway status``."""
    middle = sorted(seconds)[len(seconds) // 2] if seconds else None
    shown = {"all_s": [round(one, 3) for one in seconds]}
    return Figure("R5", "`slipway status` with nothing running", middle, "s", AT_MOST, 0.5, "", shown)


def long_stream(answers: Sequence[Answer], spans: Spans, wanted: float = LONG_S) -> Figure:
    """Return the longest generation that was open across a switch and came to its end."""
    long = [one for one in answers if one.way is Way.LONG]
    broken = [one for one in long if one.fault]
    whole = [one for one in across(answers, spans) if one.way is Way.LONG and not one.fault]
    seconds = sorted(round(one.ended - one.began, 1) for one in whole)
    why = f"{len(broken)} of {len(long)} broke: {_told(broken[0])}" if broken else ""
    why = why or ("" if whole else "no long stream was open across a switch")
    detail = {"streams": len(long), "across": len(whole), "seconds": seconds[-SHOWN:]}
    value = None if why else seconds[-1]
    return Figure("C3", "longest generation across a switch, whole", value, "s", AT_LEAST, wanted, why, detail)


def way_back(name: str, answers: Sequence[Answer], decision: Decision, old: str, bad: str) -> list[Figure]:
    """Return how soon after a decision the old release answered, and how long the bad one still did.

    By looks alone, which take milliseconds.  Counted from the last moment at which nothing had been written, so
    that no figure is too good.
    """
    after = [
        (one.way, one.release, one.answered - decision.before)
        for one in answers
        if one.answered is not None and one.began >= decision.before and not one.fault
    ]
    first = min((s for way, release, s in after if way is Way.LOOK_NEW and release == old), default=None)
    why = "" if first is not None else f"{old} never answered"
    detail = {"written_within_s": round(decision.by - decision.before, 3), "old": old, "bad": bad}
    return [
        Figure("C5", f"first answer by the old release, {name}", first, "s", AT_MOST, 2, why, detail),
        *(
            Figure(
                "C5", f"last answer by the bad one, {kind}, {name}", _last(after, way, bad, why), "s", AT_MOST, 5, why
            )
            for way, kind in ((Way.LOOK_NEW, "new connection"), (Way.LOOK_IDLE, "idle connection"))
        ),
    ]


def _last(after: Sequence[tuple[Way, str, float]], way: Way, bad: str, why: str) -> float | None:
    """Return the second of the last answer by ``bad``, 0 where there was none since."""
    return None if why else max((s for one, release, s in after if one is way and release == bad), default=0.0)


def across(answers: Sequence[Answer], spans: Spans) -> list[Answer]:
    """Return the streams that had begun at one release and went on when another one had answered already."""
    moved = [(name, _first_since(answers, name, start)) for name, times in spans.items() for start, _ in times]
    return [
        one
        for one in answers
        if one.way in (Way.STREAM, Way.LONG)
        and any(name != one.release and one.began < first < one.ended for name, first in moved)
    ]


def _first_since(answers: Sequence[Answer], name: str, start: float) -> float:
    """Return when the release of that name first answered since ``start``, which is when traffic was led to it."""
    heard = (one.answered for one in answers if one.answered is not None and one.release == name)
    return min((at for at in heard if at >= start), default=inf)


def _own_seconds(carried: Carried) -> tuple[float, dict[str, Any]]:
    progress = carried.progress
    wall = carried.over - carried.asked
    waited = sum(step.seconds for step in progress.steps if step.name in WAITING)
    opened, closed = progress.opened_at.timestamp(), (progress.closed_at or progress.opened_at).timestamp()
    acting = {step.name.value: round(step.seconds, 2) for step in progress.steps if step.name not in WAITING}
    steps = sum(step.seconds for step in progress.steps)
    parts = {
        "wall_s": round(wall, 2),
        "before_it_opened_s": round(opened - carried.asked, 2),
        "acting_s": acting,
        "between_steps_s": round(closed - opened - steps, 2),
        "after_it_closed_s": round(carried.over - closed, 2),
        "waited_s": {step.name.value: round(step.seconds, 2) for step in progress.steps if step.name in WAITING},
    }
    return wall - waited, parts


def _told(answer: Answer) -> str:
    when = f"{answer.began:.2f} to {answer.ended:.2f}"
    return f"{answer.way.value}, {answer.release or 'no release'}, {when}: {answer.fault or 'whole'}"
