"""The verbs that look at a record and answer for it, with a store alone: no Prefect, no cluster."""

import getpass
import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from flows.cli import answering
from flows.cli.app import app
from tasks._release import ledger as _ledger
from tasks._release.journal import Journal, evidence_key
from tasks._release.lease import HeldLease, take_lease
from tasks.errors import Conflict
from tasks.records import Failure, Kind, LedgerHead, Outcome, Progress, Request, ServiceRecord, StepName
from tests.flows.command_line import HOUR, NOW, Line, asking, ended, line, release

__all__ = ["line"]

REFUSED = ended(
    2,
    Outcome.REFUSED,
    actor="ann",
    reason="newer",
    failure=Failure(step=StepName.SMOKE, outcome=Outcome.REFUSED, reason="smoke: [red] is no answer"),
)


def keep(line: Line, *past: Progress, kept: int | None = None) -> ServiceRecord:
    """Write a ledger of what is past, and a record that remembers the newest ``kept``."""
    head = LedgerHead()
    for one in past:
        head, _ = _ledger.append(line.store, head, one)
    record = ServiceRecord(service="chat", next_number=9, live=release(1), past=past[-(kept or 50) :], ledger=head)
    line.write(record)
    return record


@pytest.mark.parametrize(("verb", "granted"), [("approve", True), ("reject", False)])
def test_an_answer_is_written_with_who_and_why(line: Line, verb: str, granted: bool) -> None:
    """The record holds it before any run wakes, and the person reads that no run carries the release."""
    line.write(asking())

    code = line.slipway(verb, "chat", "--reason", "I looked", "--actor", "ann")

    current = line.record.current
    assert current is not None
    assert (0, None) == (code, current.question)
    assert [(granted, "ann", "I looked", StepName.QUALITY)] == [
        (one.granted, one.who, one.why, one.step) for one in current.approvals
    ]
    assert granted is (current.failure is None)
    assert f"chat-r2 was {'approved' if granted else 'rejected'} by ann: I looked\n" == line.out
    assert "slipway finish chat" in line.err


def test_who_answers_is_the_user_unless_another_is_named(line: Line) -> None:
    """Nobody has to type a name for it to be in the record."""
    line.write(asking())

    line.slipway("approve", "chat", "--reason", "fine", "--json")

    said = json.loads(line.out)
    assert ("chat-r2", getpass.getuser(), True) == (said["release"], said["who"], said["granted"])


def test_nothing_asked_is_not_found(line: Line) -> None:
    """An answer to no question changes nothing."""
    line.write(ServiceRecord(service="chat", next_number=2, live=release(1)))

    assert 3 == line.slipway("approve", "chat", "--reason", "fine")
    assert "slipway explain chat" in line.err


def test_an_answer_that_comes_too_late_is_refused(line: Line) -> None:
    """Silence until the hour was a refusal, even where no run has written that down yet."""
    late = asking(until=NOW - HOUR)
    line.write(late)

    assert 5 == line.slipway("approve", "chat", "--reason", "fine")
    assert line.record.current == late.current


def test_an_answer_belongs_to_the_question_that_was_read(line: Line) -> None:
    """Of two people who answer at once the second is told, and does not answer something else."""
    line.write(asking())
    slow = Journal(line.store, "chat")
    line.slipway("reject", "chat", "--reason", "no", "--actor", "ann")

    with pytest.raises(Conflict, match="answered for chat-r2 first"):
        answering._answered(slow, granted=True, who="bob", why="yes")

    assert ["ann"] == [one.who for one in (line.record.current or REFUSED).approvals]


def test_history_says_what_by_whom_and_why(line: Line) -> None:
    """The newest comes first, and text of others is never read as markup."""
    keep(line, ended(1, kind=Kind.ROLL_BACK), REFUSED)

    assert 0 == line.slipway("history", "chat", "--json")
    newest, oldest = json.loads(line.out)
    assert ("chat-r2", "refused", "ann") == (newest["name"], newest["outcome"], newest["actor"])
    assert "smoke: [red] is no answer" == newest["reason"]
    assert "roll_back" == oldest["kind"]
    assert 0 == line.slipway("history", "chat")
    assert "roll back" in line.out
    assert "[red]" in line.out


def test_a_changed_ledger_is_found(line: Line) -> None:
    """One word of one entry, and the exit code says that bytes are damaged."""
    keep(line, ended(1), REFUSED)
    assert 0 == line.slipway("history", "chat", "--verify")
    assert "2 entries, unbroken\n" == line.out
    entry = line.folder / "store" / "services" / "chat" / "ledger" / "00000001.json"
    changed = entry.read_text().replace("promoted", "refused")
    entry.unlink()
    entry.write_text(changed)

    assert 6 == line.slipway("history", "chat", "--verify")
    assert "was changed" in line.err


def test_status_says_what_waits_who_is_asked_and_who_is_at_work(line: Line) -> None:
    """Everything that a person could do something about is on one screen."""
    wish = Request(id="run-3", kind=Kind.PROMOTE, release=release(1), actor="bob", reason="[b]better[/b]", at=NOW)
    line.write(asking().model_copy(update={"waiting": wish}))
    lease = take_lease(line.store, "chat", "run-2", above=0)
    assert isinstance(lease, HeldLease)

    with lease.kept():
        assert 0 == line.slipway("status")

    assert "chat: chat-r2, a release, is at its beginning; the run run-2 carries it" in line.out
    assert "facts: [3 of 4] hold" in line.out
    assert 'slipway reject chat --reason "..."' in line.out
    assert "waits to begin: promote of chat-r1 (000000000000), asked for by bob: [b]better[/b]" in line.out


def test_status_says_when_no_run_is_left(line: Line) -> None:
    """A release whose run died names the verb that ends it, and programs read the same."""
    line.write(asking())

    assert 0 == line.slipway("status")
    assert "no run carries it now; `slipway finish chat` does" in line.out
    assert 0 == line.slipway("status", "--json")
    chat = json.loads(line.out)["services"]["chat"]
    assert (None, None, "quality") == (chat["carrier"], chat["waiting"], chat["current"]["question"]["step"])


def test_a_new_release_that_waits_has_no_name_yet(line: Line) -> None:
    """Its number is given when it begins, so it is called by its commit."""
    wish = Request(id="run-3", release=release(7), at=NOW)
    line.write(ServiceRecord(service="chat", waiting=wish))

    line.slipway("status")

    assert f"waits to begin: release of commit {release(7).commit[:12]}, asked for by nobody named" in line.out
    assert "chat-r7" not in line.out


def test_the_page_of_a_release_is_written_to_a_file(line: Line) -> None:
    """Also of one that the record has forgotten: the ledger knows where it lies."""
    record = keep(line, ended(1), REFUSED, kept=1)
    line.store.put_if(evidence_key(ended(1), "report.html"), b"<p>one", expect=None)
    line.store.put_if(evidence_key(record.past[-1], "report.html"), b"<p>two", expect=None)

    assert (0, "chat-r2.html\n") == (line.slipway("report", "chat"), line.out)
    assert 0 == line.slipway("report", "chat", "chat-r1", "--output", "older.html")

    assert b"<p>two" == (line.folder / "chat-r2.html").read_bytes()
    assert b"<p>one" == (line.folder / "older.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("report chat chat-r22", "Did you mean 'chat-r2'?"),
        ("report chat chat-r2", "No page of chat-r2 is stored"),
        ("approve chta --reason x", "Did you mean 'chat'?"),
        ("history chta", "Did you mean 'chat'?"),
        ("promote chat chat-r9", "There is: chat-r1"),
        ("rollback chat", "no release to go back to"),
        ("rollback chat --to chat-r2", "There is: chat-r1"),
        ("finish chta", "Did you mean 'chat'?"),
        ("plan chta", "Did you mean 'chat'?"),
    ],
)
def test_what_is_not_there_is_said_before_anything_starts(line: Line, arguments: str, sentence: str) -> None:
    """No Prefect server is asked for what the record already denies."""
    keep(line, ended(1), REFUSED)

    assert 3 == line.slipway(*arguments.split())
    assert sentence in line.err


def test_a_service_without_a_spec_keeps_its_history(line: Line, tmp_path: Path) -> None:
    """Whoever deletes a spec can still look at what was, and go back."""
    keep(line, ended(1))
    shutil.rmtree(tmp_path / "services")

    assert 0 == line.slipway("history", "chat", "--verify")


def test_explain_and_why_answer_from_the_record_alone(line: Line) -> None:
    """What a release waits for, and which commit answered, are read with nothing running."""
    line.write(asking())

    assert 0 == line.slipway("explain", "chat")
    assert "facts: [3 of 4] hold" in line.out
    assert 0 == line.slipway("explain", "chat", "--json")
    assert "chat-r2" == json.loads(line.out)["release"]
    assert 0 == line.slipway("why", "chat", "chat-r1-3f2b", "--json")
    assert [release(1).commit] == [one["commit"] for one in json.loads(line.out)["served"]]
    assert 2 == line.slipway("why", "chat", "yesteryear")


def test_every_verb_explains_itself_and_speaks_json() -> None:
    """A newcomer finds what a verb does, and each of its arguments and options; programs find ``--json``."""
    verbs = typer.main.get_command(app)
    assert isinstance(verbs, TyperGroup)

    for name, verb in verbs.commands.items():
        untold = [one.name for one in verb.params if not getattr(one, "help", "")]
        assert (name, bool(verb.help), []) == (name, True, untold)
        if name not in {"demo", "schema"}:
            assert any("--json" in one.opts for one in verb.params), name
