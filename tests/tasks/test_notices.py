"""What people are told: the right event, the reason and the way on, and nothing that should stay in the house."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks._notices import LONGEST, notice_of, safe
from tasks._spec_notify import Event
from tasks.records import Approval, Failure, Kind, Outcome, Progress, Question, Release, StepName

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
RUN_PAGE = "http://prefect.example/runs/flow-run/1"
QUESTION = Question(step=StepName.APPROVE, text="Shall it go live?", asked_at=NOON, until=NOON + timedelta(hours=1))
REFUSAL = Failure(step=StepName.QUALITY, outcome=Outcome.REFUSED, reason="facts: 1 of 4 hold")


def progress(**more: Any) -> Progress:
    """Return a release on its way, asked for by ada."""
    release = Release(
        service="chat", number=7, model="org/model", commit="7" * 40, hub="https://hub.example", spec={}
    )
    values: dict[str, Any] = {"release": release, "run": "1", "opened_at": NOON, "actor": "ada", "reason": "better"}
    return Progress(**(values | more))


@pytest.mark.parametrize(
    ("more", "event", "subject"),
    [
        pytest.param({"outcome": Outcome.PROMOTED}, Event.PROMOTED, "chat-r7 is live", id="promoted"),
        pytest.param(
            {"outcome": Outcome.REFUSED, "failure": REFUSAL}, Event.REFUSED, "chat-r7 was refused", id="refused"
        ),
        pytest.param({"outcome": Outcome.FAILED}, Event.FAILED, "chat-r7 failed", id="failed"),
        pytest.param(
            {"outcome": Outcome.ROLLED_BACK}, Event.ROLLED_BACK, "chat-r7 was rolled back", id="rolled back by itself"
        ),
        pytest.param(
            {"outcome": Outcome.PROMOTED, "kind": Kind.ROLL_BACK},
            Event.ROLLED_BACK,
            "chat-r7 is live again",
            id="rolled back to",
        ),
        pytest.param(
            {"outcome": Outcome.PROMOTED, "kind": Kind.RESTORE},
            Event.PROMOTED,
            "chat-r7 is live again",
            id="restored",
        ),
        pytest.param({"question": QUESTION}, Event.WAITING, "chat-r7 waits for a person", id="waiting"),
    ],
)
def test_each_end_and_each_question_is_one_event(more: dict[str, Any], event: Event, subject: str) -> None:
    """A roll back that a person asked for is told as one, though the release that it leads to ends as live."""
    notice = notice_of(progress(**more), run_page=RUN_PAGE, store="s3://slipway")

    assert notice is not None
    assert (event, subject) == (notice.event, notice.subject)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"outcome": Outcome.SUPERSEDED}, id="gave way to a newer request"),
        pytest.param({"question": QUESTION, "failure": REFUSAL}, id="is being undone"),
        pytest.param({}, id="is on its way"),
    ],
)
def test_what_is_no_news_is_not_told(more: dict[str, Any]) -> None:
    """People who are told of everything read nothing."""
    assert notice_of(progress(**more), run_page=RUN_PAGE, store="s3://slipway") is None


def test_a_message_says_who_asked_what_became_of_it_and_where_to_look() -> None:
    """The reason, the page of the run and the report of the release are all that is needed at night."""
    ended = progress(outcome=Outcome.REFUSED, failure=REFUSAL)

    notice = notice_of(ended, run_page=RUN_PAGE, store="s3://slipway/")

    assert notice is not None
    assert [
        "org/model at commit 777777777777, a release asked for by ada: better.",
        "Reason: facts: 1 of 4 hold",
        f"Run: {RUN_PAGE}",
        "Report: slipway report chat chat-r7",
        "    s3://slipway/services/chat/evidence/chat-r7-20250101T120000000000Z/report.html",
    ] == notice.body.splitlines()


def test_a_question_comes_with_the_commands_that_answer_it() -> None:
    """And with the time after which silence is a refusal."""
    notice = notice_of(progress(question=QUESTION), run_page="", store="s3://slipway")

    assert notice is not None
    assert "Question: Shall it go live?" in notice.body
    assert "No answer by 2025-01-01 13:00 UTC is a refusal." in notice.body
    assert "slipway approve chat" in notice.body
    assert "Report:" not in notice.body


def test_who_approved_is_told() -> None:
    """A promotion that a person let go on says who that was."""
    granted = Approval(step=StepName.APPROVE, granted=True, who="bob", why="read it", at=NOON)

    notice = notice_of(progress(outcome=Outcome.PROMOTED, approvals=(granted,)), run_page="", store="s3://slipway")

    assert notice is not None
    assert "Approved by bob: read it" in notice.body


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "GET https://ada:pw@cdn.example/f?X-Amz-Signature=abc&x=1#y failed",
            "GET https://cdn.example/f?*** failed",
            id="signed address",
        ),
        pytest.param("at http://[broken?X-Amz-Signature=abc", "at ***", id="broken address"),
        pytest.param("token hf_abcdefghijkl is wrong", "token *** is wrong", id="Hub token"),
        pytest.param("key AKIAIOSFODNN7EXAMPLE", "key ***", id="AWS key"),
        pytest.param("Authorization: Bearer abcdefgh", "Authorization: Bearer ***", id="header"),
        pytest.param("authorization=Basic dXNlcjpwYXNz", "authorization=Basic ***", id="basic"),
        pytest.param("it said eyJhbGciOi.eyJzdWIi.c2ln", "it said ***", id="JWT"),
        pytest.param('{"password": "correct-horse"}', '{"password": "***"}', id="named"),
        pytest.param("first token: 0.9 s", "first token: 0.9 s", id="a measurement"),
        pytest.param(f"commit {'a1' * 20}", f"commit {'a1' * 20}", id="a commit"),
        pytest.param("<!channel> @everyone `x`\x1b[31m", "[!channel] (at)everyone 'x'\\x1b[31m", id="markup"),
    ],
)
def test_a_message_holds_nothing_that_looks_like_a_secret(text: str, told: str) -> None:
    """Addresses lose what signs them, keys and tokens are masked, and no model's answer calls everybody."""
    assert told == safe(text)


def test_a_reason_is_told_in_a_few_lines() -> None:
    """A chat is no place for a page."""
    assert LONGEST == len(safe("word " * 1000))
