"""Each commit has one fate, decided from what refers to it, its mark, its age and who is at work on it."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks._processes import this_process
from tasks._stores.store import OpenUpload
from tasks._weights.claims import Claim
from tasks._weights.garbage import GRACE_S, Action, Found, Mark, Marks, decide, marked, plan
from tasks._weights.references import Reference
from tests.fakes.commits import HUB, MODEL

A, B, C, D, E = ("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
GRACE = timedelta(seconds=GRACE_S)
LONG_AGO = NOW - 2 * GRACE
JUST_NOW = NOW - timedelta(hours=1)


def claim(*, held: bool, renewed_at: datetime) -> Claim:
    """Return a claim, of this process if it is held."""
    return Claim(model=MODEL, commit=A, owner="o", process=this_process(), renewed_at=renewed_at, held=held)


def mark(since: datetime, commit: str = A, manifest: str | None = None) -> Mark:
    """Return a mark."""
    return Mark(model=MODEL, commit=commit, since=since, manifest=manifest)


def upload(begun_at: datetime) -> OpenUpload:
    """Return an open upload."""
    return OpenUpload("key", "id", begun_at)


OLD = Found(LONG_AGO, published=True)
REST = Found(LONG_AGO)


@pytest.mark.parametrize(
    ("found", "wanted", "of_before", "expected", "why"),
    [
        pytest.param(OLD, ("live in chat",), None, Action.KEEP, "live in chat", id="wanted"),
        pytest.param(OLD, ("live in chat",), mark(LONG_AGO), Action.KEEP, "live in chat", id="wanted again"),
        pytest.param(OLD, (), None, Action.MARK, "2026-02-07", id="unwanted for the first time"),
        pytest.param(OLD, (), mark(JUST_NOW), Action.KEEP, "2026-02-06 23:00 UTC", id="marked not long ago"),
        pytest.param(OLD, (), mark(NOW - GRACE), Action.DELETE, "since 2026-01-24", id="marked the grace ago"),
        pytest.param(
            Found(JUST_NOW, published=True), (), mark(LONG_AGO), Action.KEEP, "2026-02-06", id="mended since its mark"
        ),
        pytest.param(Found(JUST_NOW), (), None, Action.KEEP, "unfinished", id="young rest"),
        pytest.param(REST, (), None, Action.DELETE, "unfinished", id="old rest"),
        pytest.param(REST, ("on its way in chat",), None, Action.KEEP, "on its way", id="wanted rest"),
        pytest.param(REST, (), mark(LONG_AGO, manifest="{}"), Action.DELETE, "began", id="deletion that was killed"),
        pytest.param(
            Found(JUST_NOW), (), mark(LONG_AGO, manifest="{}"), Action.DELETE, "began", id="killed a moment ago"
        ),
        pytest.param(
            REST, ("live in chat",), mark(LONG_AGO, manifest="{}"), Action.PUT_BACK, "live", id="killed, then wanted"
        ),
        pytest.param(
            OLD.with_claim(claim(held=True, renewed_at=NOW), NOW),
            (),
            mark(LONG_AGO),
            Action.KEEP,
            "at work",
            id="claimed",
        ),
        pytest.param(
            REST.with_claim(claim(held=False, renewed_at=JUST_NOW), JUST_NOW),
            (),
            None,
            Action.KEEP,
            "unfinished",
            id="claim let go of not long ago",
        ),
        pytest.param(REST.with_claim(None, LONG_AGO), (), None, Action.DELETE, "unfinished", id="unreadable claim"),
        pytest.param(
            REST.with_upload(upload(JUST_NOW)), (), None, Action.KEEP, "unfinished", id="upload begun not long ago"
        ),
    ],
)
def test_each_commit_has_one_fate(
    found: Found, wanted: tuple[str, ...], of_before: Mark | None, expected: Action, why: str
) -> None:
    """Wanted or worked on: kept; unwanted: marked, then deleted; unfinished: deleted when nobody goes on with it."""
    decision = decide((MODEL, A), found, wanted, of_before, NOW, GRACE)

    assert expected is decision.action
    assert why in "; ".join(decision.why)


@pytest.mark.parametrize(
    ("found", "uploads", "stale_claim"),
    [
        pytest.param(OLD.with_upload(upload(LONG_AGO)), 1, False, id="old upload"),
        pytest.param(OLD.with_upload(upload(JUST_NOW)), 0, False, id="young upload"),
        pytest.param(
            OLD.with_upload(upload(LONG_AGO)).with_claim(claim(held=False, renewed_at=LONG_AGO), LONG_AGO),
            1,
            True,
            id="old claim",
        ),
        pytest.param(
            OLD.with_upload(upload(LONG_AGO)).with_claim(claim(held=False, renewed_at=JUST_NOW), JUST_NOW),
            0,
            False,
            id="claim let go of not long ago",
        ),
        pytest.param(
            OLD.with_upload(upload(LONG_AGO)).with_claim(claim(held=True, renewed_at=NOW), NOW),
            0,
            False,
            id="held claim",
        ),
        pytest.param(REST.with_upload(upload(LONG_AGO)), 0, False, id="unpublished: kept for its mirror"),
    ],
)
def test_what_a_mirror_forgot_beside_a_commit_is_swept(found: Found, uploads: int, stale_claim: bool) -> None:
    """Uploads and claims that nobody needs go after the grace, though the commit stays."""
    decision = decide((MODEL, A), found, ("live in chat",), None, NOW, GRACE)

    assert Action.KEEP is decision.action
    assert (uploads, stale_claim) == (len(decision.uploads), decision.stale_claim)


def test_marks_follow_the_decisions() -> None:
    """New ones are added, those of wanted and of vanished commits go, all others stay as they are."""
    found = {(MODEL, A): OLD, (MODEL, B): OLD, (MODEL, C): OLD, (MODEL, E): REST}
    before = Marks(marks=(mark(JUST_NOW, B), mark(JUST_NOW, C), mark(JUST_NOW, D), mark(LONG_AGO, E, "{}")))
    wanted = [Reference(model=MODEL, commit=commit, ref="main", hub=HUB, why="live in chat") for commit in (C, E)]

    after = marked(before, plan(found, wanted, before, NOW, GRACE_S), NOW)

    assert Marks(marks=(mark(NOW, A), mark(JUST_NOW, B), mark(LONG_AGO, E, "{}"))) == after
