"""Following a run by its record: everything once, and an exit code for every end."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks._release.journal import Journal
from tasks._release.news import answer_line, news_of, question_lines
from tasks._stores.folder import FolderStore
from tasks.following import Follower, RunEnd
from tasks.records import (
    Approval,
    Outcome,
    Progress,
    Question,
    Release,
    ServiceRecord,
    Step,
    StepName,
    StepState,
)
from tasks.settings import Settings, StoreSettings

NOW = datetime.now(UTC)
RELEASE = Release(service="chat", number=1, model="acme/tiny", commit="1" * 40, hub="https://hub.example", spec={})
STARTED = Step(name=StepName.SHIFT, state=StepState.STARTED, started_at=NOW)
FAILED = STARTED.model_copy(update={"state": StepState.FAILED, "ended_at": NOW})
DONE = STARTED.model_copy(update={"state": StepState.DONE, "ended_at": NOW})
QUESTION = Question(step=StepName.QUALITY, text="fit?", asked_at=NOW, until=NOW + timedelta(hours=1))
YES = Approval(step=StepName.QUALITY, granted=True, who="ann", at=NOW)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a store of this test alone."""
    (tmp_path / "store").mkdir()
    return Settings(store=StoreSettings(url=(tmp_path / "store").as_uri()))


@pytest.fixture
def journal(settings: Settings) -> Iterator[Journal]:
    """Return what the run that is followed writes."""
    with closing(FolderStore(settings.store)) as store:
        yield Journal(store, "chat")


def write(journal: Journal, **fields: object) -> None:
    """Change the record as a run does."""
    journal.change(lambda record: record.model_copy(update=fields))


def told(follower: Follower) -> list[object]:
    """Return what is new."""
    return [one for _, one in follower.news()]


def at_work(opened_at: datetime, *steps: Step, **fields: object) -> Progress:
    """Return a release on its way."""
    return Progress(release=RELEASE, run="run", opened_at=opened_at, steps=steps).model_copy(update=fields)


def test_each_thing_is_told_once_when_it_is_written_down(settings: Settings, journal: Journal) -> None:
    """An intent is no news; a step that failed and then ended well is two."""
    with closing(Follower(settings, "chat")) as follower:
        heard = []
        for current in (
            at_work(NOW, STARTED),
            at_work(NOW, FAILED),
            at_work(NOW, DONE, question=QUESTION),
            at_work(NOW, DONE, approvals=(YES,)),
        ):
            write(journal, current=current)
            heard.append((told(follower), told(follower)))

    assert [([], []), ([FAILED], []), ([DONE, QUESTION], []), ([YES], [])] == heard


def test_a_release_that_takes_traffic_again_is_a_story_of_its_own(settings: Settings, journal: Journal) -> None:
    """What ended before is not told, and the same release under the same name is told anew."""
    before = at_work(NOW - timedelta(hours=1), DONE, outcome=Outcome.PROMOTED)
    write(journal, past=(before,))
    with closing(Follower(settings, "chat")) as follower:
        assert [] == told(follower)
        again = at_work(NOW, DONE, outcome=Outcome.PROMOTED)
        write(journal, past=(before, again))

        assert [(again, DONE)] == list(follower.news())


@pytest.mark.parametrize(
    ("good", "outcome", "superseded", "code"),
    [
        (True, Outcome.PROMOTED, False, 0),
        (True, Outcome.REFUSED, False, 0),
        (False, Outcome.REFUSED, False, 5),
        (False, Outcome.FAILED, False, 8),
        (False, Outcome.ROLLED_BACK, False, 8),
        (False, Outcome.SUPERSEDED, True, 7),
        (False, Outcome.PROMOTED, False, 1),
        (False, None, True, 7),
        (False, None, False, 1),
    ],
)
def test_the_exit_code_says_how_a_run_ended(good: bool, outcome: Outcome | None, superseded: bool, code: int) -> None:
    """A run that did what was asked is good, also where that was to give a release up."""
    release = at_work(NOW, outcome=outcome) if outcome else None

    assert code == RunEnd(message="", good=good, release=release, superseded=superseded).exit_code


def test_what_a_person_reads_can_be_answered() -> None:
    """The question has its commands, the answer its author."""
    lines = question_lines("chat-r1", "chat", QUESTION)

    assert 'slipway approve chat --reason "..."' in lines[2]
    assert "chat-r1 was approved by ann" == answer_line(at_work(NOW), YES)
    assert [] == list(news_of(at_work(NOW, STARTED)))


def test_a_record_without_anything_is_no_news(settings: Settings) -> None:
    """A service that never had a release can be followed from its first."""
    with closing(Follower(settings, "chat")) as follower:
        assert [] == told(follower)
        assert ServiceRecord(service="chat") == follower.record
