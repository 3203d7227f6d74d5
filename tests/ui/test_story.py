"""A person runs, watches, answers, goes back and forth in the Prefect UI alone; the record says the same.

One story on one stack: each test goes on where the one before has ended.
"""

import re

import pytest
from playwright.sync_api import expect

from tasks.records import Outcome, Progress
from tests.ui.conftest import SERVICE, Stage
from tests.ui.person import Person

pytestmark = [pytest.mark.slow, pytest.mark.ui]


def last(stage: Stage) -> Progress:
    """Return the release that ended last."""
    return stage.record().past[-1]


def live(stage: Stage) -> str:
    """Return the name of the live release."""
    record = stage.record()
    return record.live.name if record.live else "nothing"


def test_the_first_look_shows_what_can_be_run(person: Person, stage: Stage) -> None:
    """A new user finds every deployment, and what it is for."""
    person.open("/deployments")

    for name in ("release", "promote", "refresh", "mirror", "drill"):
        expect(person.page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    person.picture("deployments")
    person.finds("release")
    person.turns_to("Description")
    person.sees("Carries one commit of a service's model to live traffic, or refuses it.")
    assert stage.record().live is None


def test_a_release_is_run_from_its_form_and_watched(person: Person, stage: Stage) -> None:
    """The form explains itself, the steps appear with their names, and the run says what is live."""
    commit = stage.publish("good")
    person.opens_form("release")
    person.sees("The service to release a commit for, by its name.")
    person.fills({"Service": SERVICE, "Reason": "a first release", "Your name": "ada"})
    person.picture("release-form", high=1300)

    person.submits()
    person.sees(re.compile(rf"{SERVICE}-r1: release .*@{commit[:12]}"), within_ms=120_000)
    person.sees(f"{SERVICE}-r1: mirror the weights: ", within_ms=120_000)
    person.picture("steps-appear")
    person.awaits("Completed")
    person.picture("promoted")

    ended = last(stage)
    assert ("ada", "a first release", Outcome.PROMOTED) == (ended.actor, ended.reason, ended.outcome)
    assert (commit, f"{SERVICE}-r1") == (ended.release.commit, live(stage))
    person.turns_to("Details")
    person.sees(f"{SERVICE}-r1 is live")


def test_the_artifacts_tell_the_release(person: Person, stage: Stage) -> None:
    """The report, the checks, the receipt with its drawing and the weights are each a page."""
    person.turns_to("Artifacts")
    person.sees(f"receipt-{SERVICE}")
    person.picture("artifacts", high=1200)

    report = person.reads(f"release-{SERVICE}")
    person.picture("report", high=1400)
    checks = person.reads(f"{SERVICE}-r1-quality")
    weights = person.reads(f"{SERVICE}-r1-mirror")
    person.picture("weights")
    receipt = person.reads(f"receipt-{SERVICE}")
    drawing = person.page.get_by_role("img", name="requests by release")
    expect(drawing).to_be_visible()
    person.picture("first-receipt", high=1200)

    ended = last(stage)
    assert all(f"{check.name}: " in report for check in ended.checks)
    assert "asked for by ada: a first release" in report
    assert f"slipway report {SERVICE} {SERVICE}-r1" in report
    assert "pass facts: " in checks
    assert "Progress: 100%" in weights
    assert "No client lost anything" in receipt
    assert drawing.evaluate("picture => picture.naturalWidth") > 100


def test_a_release_waits_for_a_person_who_must_say_who_they_are(person: Person, stage: Stage) -> None:
    """The run is Paused, its form says what it is about, takes no answer without a name, and then goes on."""
    commit = stage.publish("tuned")
    stage.ask_people()
    person.runs("release", {"Service": SERVICE, "Reason": "better answers", "Your name": "ada"})
    person.awaits("Paused")
    person.picture("paused")

    person.asks_to_answer()
    person.sees(f"Shall {SERVICE}-r2, {commit[:12]}, take live traffic?")
    person.sees("asked for by ada: better answers")
    person.fills({"Your answer": "approve"})
    person.page.get_by_role("button", name="Submit").click()
    person.picture("nobody-answers")
    asked = stage.record().current
    assert asked is not None
    assert asked.question is not None
    person.fills({"Your name": "grace", "Your reason": "reads well"})
    person.answers()
    person.awaits("Completed")

    ended = last(stage)
    assert [(True, "grace", "reads well")] == [(one.granted, one.who, one.why) for one in ended.approvals]
    assert f"{SERVICE}-r2" == live(stage)
    assert "granted by grace, reads well" in person.reads(f"release-{SERVICE}")
    assert f"answered by {SERVICE}-r2" in person.reads(f"receipt-{SERVICE}")
    person.picture("receipt", high=1200)


def test_a_release_is_rejected_with_a_reason(person: Person, stage: Stage) -> None:
    """The run is Failed, and says who refused it and why; what was live stays live."""
    (stage.models / "tuned" / "README.md").write_text("Tuned once more.\n")
    stage.publish("tuned")
    person.runs("release", {"Service": SERVICE, "Your name": "ada"})
    person.awaits("Paused")
    person.asks_to_answer()
    person.fills({"Your answer": "reject", "Your name": "grace", "Your reason": "not on a Friday"})
    person.picture("answer")
    person.answers()
    person.awaits("Failed")

    person.turns_to("Details")
    message = person.sees(re.compile(f"{SERVICE}-r3 was refused: .*grace.*not on a Friday"))
    person.picture("rejected")
    ended = last(stage)
    assert Outcome.REFUSED is ended.outcome
    assert ended.failure is not None
    assert ended.failure.reason in message.inner_text()
    assert f"{SERVICE}-r2" == live(stage)


def test_a_bad_commit_is_refused_and_the_page_says_why(person: Person, stage: Stage) -> None:
    """A failed check is the message of the run and the first line of its checks, with the answers beside it."""
    stage.publish("damaged")
    person.runs("release", {"Service": SERVICE, "Your name": "ada"})
    person.awaits("Failed")

    person.picture("refused")
    person.turns_to("Details")
    person.sees(re.compile(f"{SERVICE}-r4 was refused: facts"))
    checks = person.reads(f"{SERVICE}-r4-quality")
    person.picture("refused-checks")
    assert "fail facts: " in checks
    assert "Evidence of facts" in checks
    assert (Outcome.REFUSED, f"{SERVICE}-r2") == (last(stage).outcome, live(stage))


def test_live_traffic_is_led_back_and_forth_by_hand(person: Person, stage: Stage) -> None:
    """Roll back from its form, then promote by name from the other, each with a name and a reason."""
    person.opens_form("roll-back")
    person.fills({"Service": SERVICE, "Reason": "complaints", "Your name": "ada"})
    person.picture("roll-back-form")
    person.submits()
    person.awaits("Completed")
    person.sees(f"{SERVICE}-r1: roll back to it")
    back = last(stage)
    assert ("ada", "complaints", f"{SERVICE}-r1") == (back.actor, back.reason, live(stage))

    person.opens_form("promote")
    person.fills({"Service": SERVICE, "Release": f"{SERVICE}-r2", "Reason": "was no fault", "Your name": "bob"})
    person.picture("promote-form")
    person.submits()
    person.awaits("Completed")
    person.sees(f"{SERVICE}-r2: promote it again")
    person.picture("promoted-again")
    forth = last(stage)
    assert ("bob", "was no fault", f"{SERVICE}-r2") == (forth.actor, forth.reason, live(stage))


def test_the_list_of_runs_reads_like_a_story(person: Person) -> None:
    """Every run is named for what it did to which release."""
    person.open("/runs")

    for name in ("r1: release ", "r2: release ", "r3: release ", "r4: release ", "r1: roll back", "r2: promote it"):
        expect(person.page.get_by_role("link", name=f"{SERVICE}-{name}").first).to_be_visible()
    person.picture("runs", high=1300)


def test_a_service_that_follows_its_branch_has_a_schedule(person: Person) -> None:
    """What happens by itself, and when, is on the page of its deployment."""
    person.finds(SERVICE)

    person.sees(re.compile("04:00"))
    expect(person.page.get_by_role("link", name="refresh", exact=True).first).to_be_visible()
    person.picture("schedule")


def test_nothing_went_wrong_in_the_browser_and_nothing_left_the_machine(person: Person) -> None:
    """No script failed, the server refused nothing, and every address was the stack's."""
    assert [] == person.faults
    assert set() == person.abroad
