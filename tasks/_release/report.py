"""One release as one HTML page, for whoever was not there: what was decided, on what evidence, and what clients saw.

The page needs nothing but itself: no script, style, font or picture from elsewhere, and its own content policy says
so to the browser.  It is a pure function of recorded values and of the versions installed, so that a run which takes
over after a crash writes the same page again.  What a model said is foreign text: every value passes ``_shown``,
which cuts it and makes visible what does not print, and is then escaped by the template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import SequenceMatcher, unified_diff
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from tasks._checks.rendering import TITLES, cut, visible, worst_first
from tasks._clients import timeline
from tasks._clients.receipt import Receipt
from tasks._clients.receipt_text import numbers, sentence
from tasks._clients.requests import Kind as RequestKind
from tasks._clients.requests import Outcome as RequestOutcome
from tasks._clients.requests import Request
from tasks._release.journal import evidence_key
from tasks._stores.store import Store
from tasks.records import CheckResult, Example, Kind, Outcome, Progress, Release, Step, StepState, Verdict

NAME = "report.html"
LONGEST = 4000
LONGEST_ANSWER = 3000
"""Characters that the page shows of any one text, and of an answer; the record has the rest."""
WORDS_COMPARED = 300
"""Words of two answers that are compared; what follows is shown unmarked, because time grows with their square."""
MOST_EXAMPLES = 20
MOST_LINES = 200
MOST_SECONDS = 900

ASKED = {
    Kind.RELEASE: "a new release",
    Kind.PROMOTE: "an earlier release again",
    Kind.ROLL_BACK: "back to the release before",
    Kind.RESTORE: "the live release in an empty target",
}
TONES = {
    Outcome.PROMOTED: "good",
    Outcome.REFUSED: "bad",
    Outcome.FAILED: "bad",
    Outcome.ROLLED_BACK: "warn",
    Outcome.SUPERSEDED: "calm",
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.INCONCLUSIVE: "warn",
    StepState.DONE: "good",
    StepState.FAILED: "bad",
    StepState.STARTED: "warn",
}
"""How good or bad a value looks; the word itself is always beside the colour."""
FAULTS = (RequestOutcome.LOST, RequestOutcome.TRUNCATED, RequestOutcome.WRONG, "slow")
VERSIONS = ("slipway", "prefect", "huggingface-hub", "great-expectations")


@dataclass(frozen=True)
class Bar:
    """One step, and where it lies between the begin of the release and its end, in percent."""

    step: Step
    left: float
    width: float


@dataclass(frozen=True)
class Piece:
    """A part of an answer; ``only_here`` when the other answer lacks it at this place."""

    text: str
    only_here: bool


@dataclass(frozen=True)
class Pair:
    """An example with both answers in pieces; ``live`` is empty where there was none to compare with."""

    example: Example
    candidate: tuple[Piece, ...]
    live: tuple[Piece, ...]


@dataclass(frozen=True)
class Speed:
    """How fast one kind of whole answer of one release was: percentiles in seconds, None where nothing came."""

    release: str
    kind: str
    answers: int
    first_p50: float | None
    first_p95: float | None
    whole_p50: float | None
    whole_p95: float | None


def html(
    progress: Progress,
    receipt: Receipt | None,
    *,
    previous: Release | None,
    requests: Sequence[Request] = (),
) -> str:
    """Return the page about a release, ended or on its way.

    ``previous`` was live before it, None for no release; ``requests`` are the probe's own, for how fast each release
    answered.
    """
    release = progress.release
    checks = worst_first(progress.checks)
    return _template().render(
        progress=progress,
        release=release,
        previous=previous,
        kind=ASKED[progress.kind],
        tones=TONES,
        titles=TITLES,
        seconds=_duration(progress),
        reasons=progress.failure.reason.split("; ") if progress.failure else (),
        checks=checks,
        passed=sum(check.verdict is Verdict.PASS for check in checks),
        details=[(number, check) for number, check in enumerate(checks) if _has_more(check)],
        pairs=pairs,
        bars=_bars(progress),
        receipt=receipt,
        faults=FAULTS,
        proof=sentence(receipt) if receipt else "",
        numbers=numbers(receipt) if receipt else (),
        drawing=Markup(timeline.timeline(receipt)) if receipt else "",  # noqa: S704 - made by an XML writer
        paint=timeline,
        speeds=_speeds(requests),
        diff=_spec_diff(previous, release),
        spec=_yaml(release),
        versions=[(name, version(name)) for name in VERSIONS],
        most_examples=MOST_EXAMPLES,
        most_lines=MOST_LINES,
        most_seconds=MOST_SECONDS,
    )


def store_report(
    store: Store,
    progress: Progress,
    receipt: Receipt | None,
    *,
    previous: Release | None,
    requests: Sequence[Request] = (),
) -> str:
    """Write the page beside the record and return its key in ``store``; see ``html``.

    Written again, it takes the place of the one before.  Raises ``Conflict`` when another run writes it at this
    moment, and what the store raises.
    """
    key = evidence_key(progress, NAME)
    page = html(progress, receipt, previous=previous, requests=requests).encode()
    found = store.get(key)
    if found is None or found[0] != page:
        store.put_if(key, page, expect=found[1] if found else None)
    return key


def pairs(check: CheckResult) -> list[Pair]:
    """Return the examples of a check that the page shows, with the words marked in which the answers differ."""
    shown = []
    for example in check.examples[:MOST_EXAMPLES]:
        candidate, live = cut(example.candidate, LONGEST_ANSWER), cut(example.live, LONGEST_ANSWER)
        mine, theirs = marked(candidate, live) if live else ((Piece(candidate, only_here=False),), ())
        shown.append(Pair(example, mine, theirs))
    return shown


def marked(one: str, other: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return both texts in pieces, those marked that only one of them has; spaces alone are no difference."""
    (mine, rest), (theirs, others_rest) = _words(one), _words(other)
    same = SequenceMatcher(None, [word.strip() for word in mine], [word.strip() for word in theirs], autojunk=False)
    left: list[Piece] = []
    right: list[Piece] = []
    for tag, a, b, c, d in same.get_opcodes():
        left.append(Piece("".join(mine[a:b]), only_here=tag != "equal"))
        right.append(Piece("".join(theirs[c:d]), only_here=tag != "equal"))
    left.append(Piece(rest, only_here=False))
    right.append(Piece(others_rest, only_here=False))
    return tuple(piece for piece in left if piece.text), tuple(piece for piece in right if piece.text)


def _words(text: str) -> tuple[list[str], str]:
    """Return the first words and marks of a text, each with the spaces after it, and what follows them."""
    words = re.findall(r"^\s+|\w+\s*|[^\w\s]+\s*", text)
    return words[:WORDS_COMPARED], "".join(words[WORDS_COMPARED:])


def _bars(progress: Progress) -> list[Bar]:
    moments = [moment for step in progress.steps for moment in (step.started_at, step.ended_at) if moment]
    begin, end = min([progress.opened_at, *moments]), max([progress.closed_at or progress.opened_at, *moments])
    span = (end - begin).total_seconds() or 1.0

    def at(moment: datetime) -> float:
        return 100 * (moment - begin).total_seconds() / span

    return [
        Bar(step, left=at(step.started_at), width=at(step.ended_at or end) - at(step.started_at))
        for step in progress.steps
    ]


def _speeds(requests: Sequence[Request]) -> list[Speed]:
    whole = [request for request in requests if request.outcome is RequestOutcome.OK and request.release]
    whole.sort(key=_group)
    return [_speed(release, kind, list(members)) for (release, kind), members in groupby(whole, key=_group)]


def _group(request: Request) -> tuple[str, RequestKind]:
    return request.release or "", request.kind


def _speed(release: str, kind: str, answers: Sequence[Request]) -> Speed:
    first = sorted(answer.first - answer.started for answer in answers if answer.first is not None)
    whole = sorted(answer.ended - answer.started for answer in answers)
    return Speed(
        release=release,
        kind=kind,
        answers=len(answers),
        first_p50=_percentile(first, 50),
        first_p95=_percentile(first, 95),
        whole_p50=_percentile(whole, 50),
        whole_p95=_percentile(whole, 95),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the value that ``percent`` of a hundred do not exceed: one that was measured, never one between."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None


def _spec_diff(previous: Release | None, release: Release) -> list[str]:
    """Return what differs between two releases, line by line; nothing without one before."""
    if previous is None:
        return []
    before, after = _yaml(previous).splitlines(), _yaml(release).splitlines()
    return list(unified_diff(before, after, fromfile=previous.name, tofile=release.name, lineterm=""))


def _yaml(release: Release) -> str:
    """Return what a release is made of, as YAML with its keys in order."""
    made_of = {**release.spec, "model": release.model, "commit": release.commit, "hub": release.hub}
    return yaml.safe_dump(made_of, allow_unicode=True, width=100)


def _duration(progress: Progress) -> float | None:
    return (progress.closed_at - progress.opened_at).total_seconds() if progress.closed_at else None


def _has_more(check: CheckResult) -> bool:
    return bool(check.evidence or check.examples or check.measured)


def span(seconds: float) -> str:
    """Return a duration as a person says it, e.g. ``4 min 12 s``."""
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"  # noqa: RUF001 - a dash for nothing


def _shown(value: object) -> str:
    """Return what a page may show of any value; called for every one that the template prints."""
    return value if isinstance(value, Markup) else visible(cut(str(value), LONGEST))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"span": span, "moment": _moment, "number": _number}
    return environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
