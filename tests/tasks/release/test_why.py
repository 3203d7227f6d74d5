"""Who served at a moment, and who answered a request."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks._release import ledger as _ledger
from tasks._release.why import Answer, at_moment, history, of_request, parse_moment, release_in, switches, why
from tasks._stores.folder import FolderStore
from tasks.errors import BadInput, NotFound
from tasks.records import LedgerHead, Outcome, Progress, Release, ServiceRecord, Step, StepName, StepState
from tasks.settings import StoreSettings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """Return so many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def a_release(number: int) -> Release:
    """Return the release of that number; an answer of it may take two minutes."""
    spec = {"service": "chat", "model": "org/name"}
    return Release(
        service="chat", number=number, model="org/name", commit=f"{number:040x}", hub="http://hub", spec=spec
    )


def moved(name: StepName, begun: float, ended: float | None, state: StepState = StepState.DONE) -> Step:
    """Return a step that moved traffic between two minutes."""
    return Step(name=name, state=state, started_at=at(begun), ended_at=None if ended is None else at(ended))


def ended(number: int, *steps: Step) -> Progress:
    """Return a release that ended with these steps."""
    return Progress(
        release=a_release(number),
        run="run",
        opened_at=at(10 * number - 10),
        closed_at=at(10 * number - 1),
        steps=steps,
        outcome=Outcome.PROMOTED,
    )


FIRST = ended(1, moved(StepName.SHIFT, 1, 2))
SECOND = ended(2, moved(StepName.SHIFT, 11, 12))
UNDONE = ended(3, moved(StepName.SHIFT, 21, 22), moved(StepName.MOVE_BACK, 25, 26))
BROKEN = ended(3, moved(StepName.SHIFT, 21, 22, StepState.FAILED), moved(StepName.MOVE_BACK, 25, 26))
RECORD = ServiceRecord(service="chat", live=a_release(2), past=(FIRST, SECOND, UNDONE))


def names(answer: Answer) -> list[str]:
    """Return the releases that an answer names."""
    return [one.release for one in answer.served]


@pytest.mark.parametrize(
    ("minutes", "served"),
    [
        (0.5, []),
        (1.5, ["chat-r1"]),
        (5, ["chat-r1"]),
        (11.5, ["chat-r1", "chat-r2"]),
        (12, ["chat-r1", "chat-r2"]),
        (13, ["chat-r2"]),
        (23, ["chat-r3"]),
        (25.5, ["chat-r3", "chat-r2"]),
        (30, ["chat-r2"]),
    ],
)
def test_a_moment_has_its_release(minutes: float, served: list[str]) -> None:
    """Between intent and proof of a switch both may have answered."""
    answer = at_moment(RECORD.past, RECORD, "then", at(minutes))

    assert names(answer) == served
    assert answer.lines()[0] == (
        f"{served[0]}: org/name commit {a_release(int(served[0][-1])).commit}" if served else "nothing was live"
    )
    assert Answer.from_json(answer.to_json()) == answer


@pytest.mark.parametrize("minutes", [21.5, 24])
def test_a_shift_that_was_not_proven_leaves_both(minutes: float) -> None:
    """It may have happened at any time until traffic was moved back."""
    record = RECORD.model_copy(update={"past": (FIRST, SECOND, BROKEN)})

    assert names(at_moment(record.past, record, "then", at(minutes))) == ["chat-r2", "chat-r3"]


def test_an_address_that_led_nowhere_was_served_by_nobody() -> None:
    """The record says what the last move led to."""
    dark = RECORD.model_copy(update={"live": None, "past": (FIRST, UNDONE)})

    assert names(at_moment(dark.past, dark, "now", at(40))) == []
    assert names(at_moment(dark.past, dark, "then", at(23))) == ["chat-r3"]


def test_a_switch_that_goes_on_has_no_end() -> None:
    """The release on its way counts as well."""
    current = ended(4, moved(StepName.SHIFT, 31, None, StepState.STARTED)).model_copy(
        update={"outcome": None, "closed_at": None}
    )
    record = RECORD.model_copy(update={"current": current})

    assert names(at_moment(history(record, ()), record, "now", at(33))) == ["chat-r2", "chat-r4"]


def test_an_answer_begun_before_a_switch_is_told() -> None:
    """Within the longest request; later none of the old release's can be open."""
    soon, later = (at_moment(RECORD.past, RECORD, "then", at(minutes)) for minutes in (13, 15))

    assert any("may be by chat-r1" in line for line in soon.lines())
    assert not any("may be by chat-r1" in line for line in later.lines())


def test_the_ledger_goes_back_beyond_the_record() -> None:
    """What both have is one release."""
    record = RECORD.model_copy(update={"past": (SECOND, UNDONE)})

    assert history(record, (FIRST, SECOND)) == (FIRST, SECOND, UNDONE)
    assert [one.to.number for one in switches(history(record, (FIRST, SECOND)), record.live) if one.to] == [
        1,
        2,
        3,
        2,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T11:58:00Z", at(-2)),
        ("2026-01-01T12:58:00+01:00", at(-2)),
        ("2026-01-01 11:58", at(-2)),
        ("11:58", at(-2)),
        ("11:58:00", at(-2)),
        ("9:00:30", at(-179.5)),
        ("12:01", at(1 - 1440)),
        ("5m ago", at(-5)),
        ("1.5h ago", at(-90)),
        ("chat-r7-0a", None),
        ("99:99", None),
        ("soon", None),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: datetime | None) -> None:
    """In UTC unless they say otherwise, and always in the past."""
    assert parse_moment(text, NOON) == expected


def test_a_time_ahead_is_bad_input() -> None:
    """Nobody knows yet."""
    with pytest.raises(BadInput, match="has not come yet"):
        parse_moment("2027-01-01", NOON)


@pytest.mark.parametrize(
    ("request_id", "service", "expected"),
    [
        ("chat-r7-3f2b", "chat", "chat-r7"),
        ("chatcmpl-chat-r7-3f2b-11ee", "chat", "chat-r7"),
        ("cmpl-chat-r12-a.b:c_d-0", "chat", "chat-r12"),
        ("chat-r7-chat-r3-x", "chat", "chat-r7"),
        ("my-r1-chat-r7-x", "my-r1-chat", "my-r1-chat-r7"),
        ("chatcmpl-3f2b", "chat", None),
        ("chat-r7", "chat", None),
        ("chat-r0-x", "chat", None),
        ("other-chat-r7-x", "chat", None),
        ("chat-r7-a b", "chat", None),
    ],
)
def test_the_id_of_a_request_names_its_release(request_id: str, service: str, expected: str | None) -> None:
    """Whatever the client put behind it."""
    assert release_in(request_id, service) == expected


def test_a_request_of_a_release_that_never_was_is_not_found() -> None:
    """A client may send anything."""
    assert names(of_request(RECORD.past, RECORD, "chat-r3-x", "chat-r3")) == ["chat-r3"]
    with pytest.raises(NotFound, match="no release chat-r9"):
        of_request(RECORD.past, RECORD, "chat-r9-x", "chat-r9")


def test_a_whole_question_is_answered_from_the_store(tmp_path: Path) -> None:
    """By time and by id, of a release that only the ledger still has."""
    (tmp_path / "store").mkdir()
    store = FolderStore(StoreSettings(url=(tmp_path / "store").as_uri()))
    try:
        head, _ = _ledger.append(store, LedgerHead(), FIRST)
        record = ServiceRecord(service="chat", live=a_release(1), ledger=head)

        assert names(why(store, record, "10m ago", at(15))) == ["chat-r1"]
        assert names(why(store, record, "chatcmpl-chat-r1-ab", at(15))) == ["chat-r1"]
        with pytest.raises(BadInput, match="neither a time nor the id"):
            why(store, record, "what", at(15))
    finally:
        store.close()
