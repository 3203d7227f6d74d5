"""The page says all that is recorded, needs nothing from elsewhere, and lets no foreign text out of its place."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks._clients.receipt import ProbeReport, receipt
from tasks._clients.requests import Kind as RequestKind
from tasks._clients.requests import Outcome as RequestOutcome
from tasks._clients.requests import Request
from tasks._release.report import LONGEST, MOST_EXAMPLES, html, marked, span, store_report
from tasks._stores.store import Store, open_store
from tasks.records import (
    Approval,
    CheckResult,
    Example,
    Failure,
    Kind,
    Outcome,
    Progress,
    Question,
    Release,
    Step,
    StepName,
    StepState,
    Verdict,
)
from tasks.settings import StoreSettings

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = '</p><script>alert(1)</script>"]]><img src=x onerror=alert(2)>\u202egnp.exe\x00\x1b[31m{{ 7 * 7 }}'
DARK_FROM = "@media screen and (prefers-color-scheme: dark)"


class Page(HTMLParser):
    """A parsed page: every element with its attributes, every text, and that all that opens is closed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element that opens."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element that is closed as it opens."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, which must be the one that is named."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep a text, and whether it is marked."""
        self.texts.append(data)
        if self._open and self._open[-1] in {"ins", "del"}:
            self.marked.append((self._open[-1], data))

    @property
    def tags(self) -> set[str]:
        """Return the names of all elements."""
        return {tag for tag, _ in self.elements}

    @property
    def text(self) -> str:
        """Return all that a person can read, and the styles."""
        return "".join(self.texts)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element called ``tag``."""
        return [attributes for name, attributes in self.elements if name == tag]


def release(number: int, **spec: Any) -> Release:
    """Return a release of ``chat`` with this spec."""
    return Release(
        service="chat",
        number=number,
        model="org/model",
        commit=f"{number:x}" * 40,
        hub="https://hub.example",
        spec={"service": "chat", **spec},
    )


def progress(**more: Any) -> Progress:
    """Return a release that was promoted, unless told otherwise."""
    values: dict[str, Any] = {
        "release": release(7, engine={"dtype": "bfloat16"}),
        "run": "run-1",
        "actor": "ana",
        "reason": "a better template",
        "opened_at": NOON,
        "closed_at": NOON + timedelta(seconds=252),
        "outcome": Outcome.PROMOTED,
        "steps": (
            Step(
                name=StepName.MIRROR,
                state=StepState.DONE,
                started_at=NOON,
                ended_at=NOON + timedelta(seconds=63),
                detail="9 files",
            ),
        ),
    }
    return Progress(**(values | more))


def check(verdict: Verdict = Verdict.FAIL, **more: Any) -> CheckResult:
    """Return a verdict of the check ``facts``."""
    return CheckResult(**({"name": "facts", "verdict": verdict, "summary": "7 of 12"} | more))


def asked(number: int, answered_by: str | None = "chat-r6", **more: Any) -> Request:
    """Return a stream of the probe, of two seconds, that began ``number`` seconds after noon."""
    values: dict[str, Any] = {
        "id": number,
        "kind": RequestKind.STREAM,
        "kept_alive": False,
        "at": NOON + timedelta(seconds=number),
        "started": float(number),
        "answered": number + 0.1 if answered_by else None,
        "first": number + 0.25 if answered_by else None,
        "ended": number + 2.0,
        "release": answered_by,
        "outcome": RequestOutcome.OK if answered_by else RequestOutcome.LOST,
        "note": "" if answered_by else "HTTP 502",
    }
    return Request(**(values | more))


def page(ended: Progress, *requests: Request, previous: Release | None = None) -> Page:
    """Return the page of a release, with a receipt of these requests if there are any."""
    probe = ProbeReport(asked_s=100, open_s=99, cpu_s=0.5, wall_s=20, stall_s=0.01)
    return Page(html(ended, receipt(requests, probe) if requests else None, previous=previous, requests=requests))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store in a folder of this test alone."""
    opened = open_store(StoreSettings(url=tmp_path.as_uri()))
    try:
        yield opened
    finally:
        opened.close()


def test_all_that_is_recorded_is_there() -> None:
    """A refused release shows who, why, when, how long, the reasons, the numbers, the answers and the questions."""
    example = Example(prompt="Capital of Japan?", candidate="Kyoto", live="Tokyo", why="lacks its fact")
    ended = progress(
        outcome=Outcome.REFUSED,
        failure=Failure(step=StepName.QUALITY, outcome=Outcome.REFUSED, reason="facts: 7 of 12; golden: none"),
        checks=(
            check(Verdict.PASS, name="endpoint", summary="answers"),
            check(evidence=("q -> a",), measured={"share_held": 0.58333}, examples=(example,)),
        ),
        question=Question(step=StepName.APPROVE, text="Shall it?", asked_at=NOON, until=NOON + timedelta(hours=1)),
        approvals=(Approval(step=StepName.APPROVE, granted=False, who="ben", why="too slow", at=NOON),),
    )
    shown = page(ended, asked(0), asked(3, None), asked(6, "chat-r7"), previous=release(6))

    for word in (
        *("chat-r7", "refused", "7" * 40, "org/model", "ana", "a better template", "run-1", "chat-r6", "4 min 12 s"),
        *("2025-01-01 12:00:00 UTC", "2025-01-01 12:04:12 UTC", "a new release", "1 min 3 s", "9 files"),
        *("facts: 7 of 12", "golden: none", "quality checks", "1 of 2", "q -> a", "share held", "0.5833"),
        *("Capital of Japan?", "Kyoto", "Tokyo", "lacks its fact", "Shall it?", "ben", "too slow", "13:00:00"),
        *("Clients lost answers", "HTTP 502", "chat-r6 → chat-r7", "dtype: bfloat16", "slipway", "prefect"),
    ):
        assert word in shown.text


def test_the_worst_verdict_comes_first() -> None:
    """What failed is above what could not be measured, and that above what passed."""
    verdicts = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)
    shown = page(progress(checks=tuple(check(verdict, name=f"check-{verdict}") for verdict in verdicts)))
    places = [shown.text.index(f"check-{verdict}") for verdict in reversed(verdicts)]

    assert places == sorted(places)


def test_only_what_passed_is_folded_away() -> None:
    """The evidence of a failure is open; that of a pass opens on demand, and a check without any has no link."""
    checks = (
        check(evidence=("seen",)),
        check(Verdict.PASS, name="fine", evidence=("seen",)),
        check(Verdict.PASS, name="bare"),
    )
    shown = page(progress(checks=checks))

    assert [attributes["href"] for attributes in shown.of("a")] == ["#check-0", "#check-1"]
    assert [attributes["id"] for attributes in shown.of("details") if "id" in attributes] == ["check-1"]


@pytest.mark.parametrize("outcome", [*Outcome, None])
@pytest.mark.parametrize("kind", Kind)
def test_every_outcome_of_every_kind_has_a_page(kind: Kind, outcome: Outcome | None) -> None:
    """Nothing but the record is needed: no receipt, no release before, no step, no check, no end."""
    shown = page(progress(kind=kind, outcome=outcome, closed_at=None, steps=(), checks=()))

    assert (outcome.value.replace("_", " ") if outcome else "on its way") in shown.text
    assert "nothing is proven about what clients saw" in shown.text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No script, no link or style that leads out, and a policy that forbids both to whatever got in."""
    shown = page(progress(checks=(check(evidence=("https://evil.example/x.js",)),)), asked(0), previous=release(6))
    policies = [meta["content"] or "" for meta in shown.of("meta") if meta.get("http-equiv")]
    attributes = [pair for tag, found in shown.elements for pair in found.items() if tag != "svg"]

    assert shown.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "img", "form", "base"})
    assert [(name, value) for name, value in attributes if "://" in (value or "") and name != "xmlns"] == []
    assert [name for name, _ in attributes if name.startswith("on") or name in {"src", "srcdoc", "action"}] == []
    assert all((link["href"] or "").startswith("#") for link in shown.of("a"))
    assert re.findall(r"@import|url\(", shown.source) == []
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]


def test_foreign_text_stays_text_wherever_it_stands() -> None:
    """Markup, template syntax, controls and direction marks of anybody are shown as what they are."""
    example = Example(prompt=HOSTILE, candidate=HOSTILE, live=HOSTILE[::-1], why=HOSTILE)
    ended = progress(
        actor=HOSTILE,
        reason=HOSTILE,
        failure=Failure(step=None, outcome=Outcome.FAILED, reason=HOSTILE),
        checks=(
            check(name=HOSTILE, summary=HOSTILE, evidence=(HOSTILE,), measured={HOSTILE: 1}, examples=(example,)),
        ),
        approvals=(Approval(step=StepName.APPROVE, granted=True, who=HOSTILE, why=HOSTILE, at=NOON),),
    )
    calm = page(progress(checks=ended.checks[:0], outcome=Outcome.FAILED), asked(0), asked(2))
    shown = page(ended, asked(0, HOSTILE), asked(2, None, note=HOSTILE), previous=release(6, engine={"x": HOSTILE}))

    assert shown.tags - calm.tags <= {"ins", "del", "article", "h4", "h5", "ul", "li", "a", "h3", "pre"}
    assert shown.text.count("<script>alert(1)</script>") >= 15
    assert "{{ 7 * 7 }}" in shown.text
    assert r"\u202egnp.exe\x00\x1b[31m" in shown.text
    assert [c for c in shown.source if not c.isprintable() and c != "\n"] == []


def test_a_megabyte_of_text_is_cut() -> None:
    """What a page can show of an endless text is little, and it says each time how much more there was."""
    endless = "word " * 200_000
    examples = (
        Example(prompt=endless, candidate=endless, live="x" + endless),
        Example(prompt="?", candidate=endless),
    )
    shown = page(progress(checks=(check(summary=endless, evidence=(endless,), examples=examples),)))
    more = re.findall(r"\(([\d,]+) more characters\)", shown.text)

    assert len(shown.source) < 50_000 + 10 * LONGEST
    assert sorted(more) == ["996,000"] * 4 + ["997,000"] * 2 + ["997,001"]


def test_examples_beyond_the_first_are_counted() -> None:
    """Of many failing answers some are shown, and the page says how many are not."""
    examples = tuple(
        Example(prompt=f"question {number}", candidate="no", live="yes") for number in range(MOST_EXAMPLES + 3)
    )
    shown = page(progress(checks=(check(examples=examples),)))

    assert len(shown.of("article")) == MOST_EXAMPLES
    assert "3 more examples are in the record" in shown.text


def test_differing_words_are_marked_on_both_sides() -> None:
    """What only the candidate says and what only the live release says is marked, and nothing else."""
    example = Example(prompt="?", candidate="It is Kyoto, a city.", live="It is Tokyo, a big city.")
    shown = page(progress(checks=(check(examples=(example,)),)), previous=release(6))

    assert shown.marked == [("ins", "Kyoto"), ("del", "Tokyo"), ("del", "big ")]


@pytest.mark.parametrize(
    ("one", "other"),
    [("", "a"), (" a  b\n", "a b"), ("a " * 500, "b " * 500), ("東京。", "京都。"), ("!?", "?!")],
)
def test_marking_loses_nothing(one: str, other: str) -> None:
    """The pieces of a text are the text, however long, and spaces alone are not marked."""
    left, right = marked(one, other)

    assert "".join(piece.text for piece in left) == one
    assert "".join(piece.text for piece in right) == other
    assert not any(piece.only_here for piece in marked(" a  b\n", " a b")[0])


def test_bars_lie_inside_the_release() -> None:
    """Steps are drawn where they were, an unended one up to the end."""
    at = [NOON + timedelta(seconds=second) for second in (0, 50, 100)]
    steps = (
        Step(name=StepName.MIRROR, state=StepState.DONE, started_at=at[0], ended_at=at[1]),
        Step(name=StepName.START, state=StepState.STARTED, started_at=at[1]),
    )
    shown = page(progress(steps=steps, closed_at=at[2]))
    drawn = [span["style"] for span in shown.of("span") if "style" in span]

    assert drawn == ["left: 0.00%; width: 50.00%", "left: 50.00%; width: 50.00%"]
    assert "did not end" in shown.text


def test_speeds_are_those_that_were_measured() -> None:
    """The page gives percentiles of whole answers by release, and leaves the lost ones out."""
    requests = [asked(number, ended=number + 1.0 + number) for number in range(4)]
    shown = page(progress(), *requests, asked(5, None))
    cells = re.search(r"Whole answers.*?</tbody>", shown.source, re.DOTALL)

    assert cells is not None
    assert re.findall(r'<td class="num">([^<]*)', cells[0]) == ["4", "0.25", "0.25", "2", "4"]


@pytest.mark.parametrize(
    ("previous", "said"),
    [
        (None, "No release was live before"),
        (release(6, engine={"dtype": "float32"}), "-  dtype: float32"),
        (release(7, engine={"dtype": "bfloat16"}), "The same as that of chat-r7"),
    ],
)
def test_the_spec_is_compared_with_the_one_before(previous: Release | None, said: str) -> None:
    """What differs from the release that was live is shown line by line, and no difference is said."""
    assert said in page(progress(), previous=previous).text


def test_a_screen_reader_finds_its_way() -> None:
    """The page has a language, one first heading, no heading level left out, named sections, tables and drawings."""
    shown = page(progress(checks=(check(evidence=("seen",)),)), asked(0), asked(1, None), previous=release(6))
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch(r"h[1-6]", tag)]
    ids = {attributes["id"] for _, attributes in shown.elements if "id" in attributes}

    assert [html["lang"] for html in shown.of("html")] == ["en"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {section["aria-labelledby"] for section in shown.of("section")} <= ids
    assert all(head.get("scope") in {"row", "col"} for head in shown.of("th"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in shown.of("svg"))


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(dark: bool) -> None:
    """Every text has a contrast of 4.5 to its ground, in the light and in the dark."""
    light_css, dark_css = page(progress()).source.split(DARK_FROM)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark_css if dark else light_css))
    tones = [(name, f"{name}-back") for name in ("good", "bad", "warn", "calm")]
    on = [(text, ground) for text in ("ink", "muted", "link", "bad", "warn") for ground in ("page", "card", "soft")]

    assert [pair for pair in (*tones, *on) if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_lies_beside_the_record(store: Store) -> None:
    """It is stored under the release's evidence; written again it is the same, or takes the place of the old one."""
    first = store_report(store, progress(outcome=None), None, previous=None)
    key = store_report(store, progress(), None, previous=None)
    written = store.get(key)
    again = store_report(store, progress(), None, previous=None)

    assert first == key == again == "services/chat/evidence/chat-r7-20250101T120000000000Z/report.html"
    assert written == store.get(key)
    assert written is not None
    assert b"promoted" in written[0]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.5, "59.5 s"), (60, "1 min 0 s"), (3599.7, "1 h 0 min")]
)
def test_durations_are_said_as_a_person_would(seconds: float, said: str) -> None:
    """Short ones keep a decimal, long ones their two largest units."""
    assert span(seconds) == said
