"""The release engine's decisions: one next action for every reachable state, and an end to every path."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._release import transitions
from tasks._release.machine import (
    FORWARD,
    PLANS,
    Action,
    ActionKind,
    Health,
    Observed,
    Placement,
    doubt,
    judge,
    next_action,
)
from tasks.records import (
    Approval,
    CheckResult,
    Failure,
    Kind,
    LedgerHead,
    Outcome,
    Progress,
    Release,
    Request,
    ServiceRecord,
    StepName,
    StepState,
    Verdict,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
UNDO = (StepName.MOVE_BACK, StepName.REMOVE)
FATES = ["dies before", "dies after", "fails", "cluster restarts"]


def a_release(number: int) -> Release:
    """Return the release of that number."""
    return Release(service="chat", number=number, model="a/b", commit=f"{number:040x}", hub="http://hub", spec={})


def a_request(number: int, kind: Kind = Kind.RELEASE) -> Request:
    """Return the request for the release of that number."""
    return Request(id=f"request-{number}", kind=kind, release=a_release(number), at=AT)


def a_record(*, live: int | None, new: int, kind: Kind = Kind.RELEASE) -> ServiceRecord:
    """Return a record with one release live and another one just opened."""
    record = ServiceRecord(service="chat", next_number=new, live=a_release(live) if live else None)
    return transitions.opened(transitions.asked(record, a_request(new, kind)), run="run", at=AT)


class FakeCluster:
    """What a target would show, changed by the steps as a real one is; a ``cramped`` one holds one release."""

    def __init__(self, live: str | None, *, cramped: bool = False) -> None:
        self.apps = {live} if live else set()
        self.live = live
        self.cramped = cramped

    def observed(self) -> Observed:
        """Return what it shows."""
        return Observed(
            placements={name: Placement(health=Health.HEALTHY, live=name == self.live) for name in self.apps}
        )

    def apply(self, step: StepName, record: ServiceRecord) -> None:
        """Change what it shows as the step does."""
        release = transitions.on_its_way(record).release
        old = record.previous if record.live == release else record.live
        if step is StepName.MOVE_BACK and old:
            self._make_room_for(old.name)
            self.apps.add(old.name)
        if step is StepName.START:
            self._make_room_for(release.name)
            self.apps.add(release.name)
        elif step is StepName.SHIFT:
            self.live = release.name
        elif step is StepName.MOVE_BACK:
            self.live = old.name if old else None
        elif step is StepName.REMOVE:
            self.apps.discard(release.name)

    def _make_room_for(self, name: str) -> None:
        if self.cramped and name not in self.apps:
            self.restart()

    def restart(self) -> None:
        """Come back empty."""
        self.apps, self.live = set(), None


def play(
    record: ServiceRecord, cluster: FakeCluster, fate: dict[StepName, str]
) -> tuple[ServiceRecord, list[StepName]]:
    """Carry the record to its end; ``fate`` says once of a step what befalls it, or the cluster after it."""
    fate, done = dict(fate), []
    for _ in range(60):
        action = next_action(record, cluster.observed())
        if action.kind is ActionKind.IDLE:
            return record, done
        if action.kind is ActionKind.CLOSE:
            assert action.outcome is not None
            last = transitions.ending(record, action.outcome, at=AT)
            record = transitions.closed(record, last, LedgerHead(sequence=1))
            continue
        if action.kind is ActionKind.GIVE_WAY:
            record = transitions.gave_way(record)
            continue
        if action.kind is ActionKind.OPEN:
            record = transitions.opened(record, run="run", at=AT)
            continue
        step = action.step
        assert step is not None
        record, happens = transitions.begun(record, step, at=AT), fate.pop(step, "")
        if happens == "dies before":
            continue
        if happens == "fails" and step in FORWARD:
            failure = Failure(step=step, outcome=Outcome.FAILED, reason="because")
            record = transitions.broken(record, step, None if step is StepName.TIDY else failure, at=AT)
            continue
        cluster.apply(step, record)
        done.append(step)
        if happens == "cluster restarts":
            cluster.restart()
        if happens != "dies after":
            outage = cluster.cramped and step is StepName.ROOM and record.live is not None
            record = transitions.ended(record, step, detail="", checks=(), at=AT, outage=outage)
    pytest.fail(f"no end after 60 actions: {done}")


def test_a_release_without_trouble_takes_every_step_once_in_order() -> None:
    """The plain path does every step of its plan and promotes."""
    record, done = play(a_record(live=1, new=2), FakeCluster("chat-r1"), {})

    assert list(FORWARD) == done
    assert Outcome.PROMOTED is record.past[-1].outcome
    assert (a_release(2), a_release(1)) == (record.live, record.previous)


@given(
    live=st.booleans(),
    cramped=st.booleans(),
    fate=st.dictionaries(st.sampled_from(StepName), st.sampled_from(FATES)),
)
def test_every_path_ends_and_leaves_one_release_live(live: bool, cramped: bool, fate: dict[StepName, str]) -> None:
    """Whatever dies or fails, the release ends, and the record and the target agree on what is live."""
    old = "chat-r1" if live else None
    cluster = FakeCluster(old, cramped=cramped)

    record, _ = play(a_record(live=1 if live else None, new=2), cluster, fate)

    named = record.live.name if record.live else None
    promoted = record.past[-1].outcome is Outcome.PROMOTED
    assert ("chat-r2" if promoted else old) == named
    if "cluster restarts" not in fate.values():
        assert cluster.live == named
    assert promoted or "chat-r2" not in cluster.apps
    assert not promoted or cluster.live == "chat-r2"


@pytest.mark.parametrize("step", [step for step in FORWARD if step is not StepName.TIDY])
def test_a_failed_step_ends_without_the_candidate(step: StepName) -> None:
    """Any failure before the end of the bake removes the candidate and leaves the old release live."""
    cluster = FakeCluster("chat-r1")

    record, done = play(a_record(live=1, new=2), cluster, {step: "fails"})

    assert {"chat-r1"} == cluster.apps
    assert a_release(1) == record.live
    assert (StepName.MOVE_BACK in done) is (step in (StepName.SHIFT, StepName.BAKE, StepName.RECEIPT))


def test_traffic_moves_back_before_the_candidate_is_removed() -> None:
    """Undoing moves traffic first and gives capacity back later."""
    _, done = play(a_record(live=1, new=2), FakeCluster("chat-r1"), {StepName.BAKE: "fails"})

    assert [StepName.MOVE_BACK, StepName.REMOVE] == [step for step in done if step in UNDO]


def test_a_failed_bake_is_a_roll_back() -> None:
    """A release that had live traffic is rolled back, not merely failed."""
    record, _ = play(a_record(live=1, new=2), FakeCluster("chat-r1"), {StepName.BAKE: "fails"})

    assert Outcome.ROLLED_BACK is record.past[-1].outcome


def test_failing_to_tidy_up_does_not_undo_a_promotion() -> None:
    """The release is decided before older ones are removed."""
    record, _ = play(a_record(live=1, new=2), FakeCluster("chat-r1"), {StepName.TIDY: "fails"})

    assert Outcome.PROMOTED is record.past[-1].outcome


def a_check(verdict: Verdict) -> CheckResult:
    """Return a check that says so."""
    return CheckResult(name="facts", verdict=verdict, summary="1 of 12 right")


def judged(verdict: Verdict) -> ServiceRecord:
    """Return a record whose quality checks gave that verdict."""
    record = transitions.begun(a_record(live=1, new=2), StepName.QUALITY, at=AT)
    return transitions.ended(record, StepName.QUALITY, detail="", checks=(a_check(verdict),), at=AT)


def test_a_check_that_fails_refuses_the_release() -> None:
    """The reason is the check's."""
    progress = transitions.on_its_way(judged(Verdict.FAIL))

    assert progress.failure == Failure(step=StepName.QUALITY, outcome=Outcome.REFUSED, reason="facts: 1 of 12 right")
    assert (a_check(Verdict.FAIL),) == progress.checks
    step = progress.step(StepName.QUALITY)
    assert step is not None
    assert StepState.FAILED is step.state


def test_a_check_that_could_not_measure_asks_a_person() -> None:
    """It is neither a pass nor a fail, so nothing goes on and nothing is undone."""
    record = judged(Verdict.INCONCLUSIVE)

    progress = transitions.on_its_way(record)
    assert progress.failure is None
    assert progress.question is not None
    assert "facts: 1 of 12 right" == progress.question.text
    assert Action(kind=ActionKind.ASK) == next_action(record, Observed())


@pytest.mark.parametrize("granted", [True, False])
def test_a_person_decides_what_could_not_be_measured(granted: bool) -> None:
    """Granted, the release goes on; refused, it is undone with the person's name."""
    answer = Approval(step=StepName.QUALITY, granted=granted, who="ada", why="I read them", at=AT)

    progress = transitions.on_its_way(transitions.answered(judged(Verdict.INCONCLUSIVE), answer))

    assert (answer,) == progress.approvals
    assert progress.question is None
    reason = progress.failure.reason if progress.failure else None
    assert (None if granted else "ada refused it: I read them") == reason


def test_an_answer_to_another_question_is_no_answer() -> None:
    """A form that was left open does not decide what was asked later."""
    answer = Approval(step=StepName.APPROVE, granted=True, who="ada", at=AT)

    with pytest.raises(transitions.NotFound, match="waits for this answer"):
        transitions.answered(judged(Verdict.INCONCLUSIVE), answer)


def on_its_way(**fields: Any) -> Progress:
    """Return a release on its way."""
    return transitions.on_its_way(a_record(live=1, new=2)).model_copy(update=fields)


def test_checks_that_all_pass_stop_nothing() -> None:
    """A release goes on over passes alone."""
    passed = (a_check(Verdict.PASS),)

    assert judge(on_its_way(), StepName.SMOKE, passed) is None
    assert "" == doubt(Kind.RELEASE, StepName.SMOKE, passed)


def test_a_loss_while_going_back_does_not_lead_forth_again() -> None:
    """What is bad enough to leave stays left."""
    lost = (CheckResult(name="receipt", verdict=Verdict.FAIL, summary="1 lost"),)

    assert judge(on_its_way(kind=Kind.ROLL_BACK), StepName.RECEIPT, lost) is None
    assert judge(on_its_way(), StepName.RECEIPT, lost) is not None


def test_a_loss_in_an_outage_that_the_spec_consented_to_undoes_nothing() -> None:
    """It was said aloud before, and what was removed for it would have to be loaded anew."""
    lost = (CheckResult(name="receipt", verdict=Verdict.FAIL, summary="9 lost"),)

    assert judge(on_its_way(outage=True), StepName.RECEIPT, lost) is None
    assert judge(on_its_way(outage=True), StepName.SMOKE, lost) is not None


@pytest.mark.parametrize("step", FORWARD[FORWARD.index(StepName.START) : FORWARD.index(StepName.SHIFT)])
def test_what_was_removed_to_make_room_comes_back_when_the_candidate_fails(step: StepName) -> None:
    """The old release is live again, though traffic had never been led to the new one."""
    cluster = FakeCluster("chat-r1", cramped=True)

    record, done = play(a_record(live=1, new=2), cluster, {step: "fails"})

    assert StepName.MOVE_BACK in done
    assert ("chat-r1", {"chat-r1"}) == (cluster.live, cluster.apps)
    assert a_release(1) == record.live


def test_a_newer_request_takes_the_place_of_what_has_not_shifted() -> None:
    """The older release ends as superseded, and the newer one is made."""
    record = transitions.asked(up_to(StepName.QUALITY), a_request(3))

    record, done = play(record, FakeCluster("chat-r1"), {})

    assert [Outcome.SUPERSEDED, Outcome.PROMOTED] == [one.outcome for one in record.past]
    assert ["request-2", "request-3"] == [one.request for one in record.past]
    assert StepName.MOVE_BACK not in done


@pytest.mark.parametrize("step", [StepName.BAKE, StepName.TIDY, StepName.RECEIPT])
def test_a_newer_request_waits_for_what_has_shifted(step: StepName) -> None:
    """Traffic is not led about by whoever asks last."""
    cluster = FakeCluster("chat-r1")
    cluster.apps.add("chat-r2")
    cluster.live = "chat-r2"

    record, _ = play(transitions.asked(up_to(step), a_request(3)), cluster, {})

    assert [Outcome.PROMOTED, Outcome.PROMOTED] == [one.outcome for one in record.past]


def test_a_request_for_what_is_on_its_way_changes_nothing() -> None:
    """The same commit and spec, asked for twice, are one release."""
    record = transitions.asked(up_to(StepName.QUALITY), a_request(2).model_copy(update={"id": "again"}))

    assert ActionKind.GIVE_WAY is not next_action(record, Observed()).kind


def test_a_roll_back_leads_to_the_release_before_and_keeps_both() -> None:
    """Its plan has no check and no tidying: what it leads to was live before."""
    record = a_record(live=2, new=1, kind=Kind.ROLL_BACK).model_copy(update={"previous": a_release(1)})
    cluster = FakeCluster("chat-r2")
    cluster.apps.add("chat-r1")

    record, done = play(record, cluster, {})

    assert list(PLANS[Kind.ROLL_BACK]) == done
    assert (a_release(1), a_release(2)) == (record.live, record.previous)
    assert {"chat-r1", "chat-r2"} == cluster.apps


def test_what_is_dropped_is_what_was_meant() -> None:
    """A request that came meanwhile is not lost."""
    record = transitions.asked(ServiceRecord(service="chat"), a_request(3))

    assert record == transitions.dropped(record, a_request(2))
    assert transitions.dropped(record, a_request(3)).waiting is None


def test_a_roll_back_on_its_way_is_not_turned_round_by_another() -> None:
    """A person who rolls back what already goes back gets just that."""
    record = a_record(live=2, new=1, kind=Kind.ROLL_BACK)

    assert record == transitions.abandoned(record, "again")


def test_old_releases_keep_their_verdicts_and_lose_their_evidence() -> None:
    """The record stays small, whatever was found; the ledger has it all."""
    check = a_check(Verdict.PASS).model_copy(update={"evidence": ("much to read",)})
    record = ServiceRecord(service="chat")
    for number in range(1, 6):
        record = transitions.opened(transitions.asked(record, a_request(number)), run="run", at=AT)
        last = transitions.ending(transitions.with_checks(record, (check,)), Outcome.PROMOTED, at=AT)
        record = transitions.closed(record, last, LedgerHead(sequence=number))

    assert [(), (), *[("much to read",)] * 3] == [past.checks[0].evidence for past in record.past]


@pytest.mark.parametrize("kind", [Kind.PROMOTE, Kind.ROLL_BACK])
def test_what_was_kept_warm_is_not_removed_because_it_was_not_led_to(kind: Kind) -> None:
    """The release before stays, whatever came of leading to it."""
    record = a_record(live=2, new=1, kind=kind).model_copy(update={"previous": a_release(1)})
    cluster = FakeCluster("chat-r2")
    cluster.apps.add("chat-r1")

    record, done = play(record, cluster, {StepName.READY: "fails"})

    assert StepName.REMOVE not in done
    assert ({"chat-r1", "chat-r2"}, a_release(1)) == (cluster.apps, record.previous)


@given(
    kind=st.sampled_from([Kind.PROMOTE, Kind.ROLL_BACK]),
    fate=st.dictionaries(st.sampled_from(StepName), st.sampled_from(FATES)),
)
def test_going_back_ends_whatever_happens(kind: Kind, fate: dict[StepName, str]) -> None:
    """Record and target agree on what is live, and something is."""
    record = a_record(live=2, new=1, kind=kind).model_copy(update={"previous": a_release(1)})
    cluster = FakeCluster("chat-r2")
    cluster.apps.add("chat-r1")

    record, _ = play(record, cluster, fate)

    assert record.live is not None
    if "cluster restarts" not in fate.values():
        assert cluster.live == record.live.name


def up_to(step: StepName) -> ServiceRecord:
    """Return a record in which every step before ``step`` is done."""
    record = a_record(live=1, new=2)
    for done in FORWARD[: FORWARD.index(step)]:
        record = transitions.ended(transitions.begun(record, done, at=AT), done, detail="", checks=(), at=AT)
    return record


@pytest.mark.parametrize("step", FORWARD[3:])
def test_a_candidate_that_vanished_is_started_again(step: StepName) -> None:
    """Whatever is next, the candidate is started first when the target has lost it."""
    action = next_action(up_to(step), FakeCluster("chat-r1").observed())

    assert Action(kind=ActionKind.STEP, step=StepName.START) == action


@pytest.mark.parametrize("step", FORWARD[3:])
def test_a_candidate_that_somebody_removed_is_not_started_over_that(step: StepName) -> None:
    """Where what was started stays, its absence is looked at as a fault of the candidate."""
    gone = FakeCluster("chat-r1").observed().model_copy(update={"lasting": True})

    action = next_action(up_to(step), gone)

    assert Action(kind=ActionKind.STEP, step=StepName.READY) == action


def test_a_candidate_that_was_never_started_is_started_anywhere() -> None:
    """A run that died before the effect of the start left nothing."""
    nothing = FakeCluster("chat-r1").observed().model_copy(update={"lasting": True})

    action = next_action(up_to(StepName.START), nothing)

    assert Action(kind=ActionKind.STEP, step=StepName.START) == action


def test_a_candidate_that_was_started_again_is_waited_for() -> None:
    """It is not judged while it still starts."""
    starting = Observed(placements={"chat-r2": Placement(health=Health.STARTING)})

    action = next_action(up_to(StepName.QUALITY), starting)

    assert Action(kind=ActionKind.STEP, step=StepName.READY) == action


@pytest.mark.parametrize("step", [StepName.BAKE, StepName.TIDY, StepName.RECEIPT])
def test_a_release_that_lost_the_live_address_is_led_there_again(step: StepName) -> None:
    """What comes after the shift is done with the traffic, or not at all."""
    cluster = FakeCluster("chat-r1")
    cluster.apps.add("chat-r2")

    action = next_action(up_to(step), cluster.observed())

    assert Action(kind=ActionKind.STEP, step=StepName.SHIFT) == action


def test_a_candidate_is_not_removed_while_it_is_live() -> None:
    """What the target shows counts more than what was once done."""
    cluster = FakeCluster("chat-r1")
    cluster.apps.add("chat-r2")
    record = transitions.abandoned(up_to(StepName.BAKE), "because")
    record = transitions.ended(
        transitions.begun(record, StepName.MOVE_BACK, at=AT), StepName.MOVE_BACK, detail="", checks=(), at=AT
    )
    cluster.live = "chat-r2"

    action = next_action(record, cluster.observed())

    assert Action(kind=ActionKind.STEP, step=StepName.MOVE_BACK) == action


def test_moving_back_restores_what_was_warm_before() -> None:
    """The release kept warm before the shift is kept warm again after it was undone."""
    record = up_to(StepName.SHIFT).model_copy(update={"live": a_release(1), "previous": a_release(9)})
    for step in (StepName.SHIFT, StepName.MOVE_BACK):
        record = transitions.ended(transitions.begun(record, step, at=AT), step, detail="", checks=(), at=AT)

    assert (a_release(1), a_release(9)) == (record.live, record.previous)


def test_the_write_that_ends_the_shift_says_what_is_live() -> None:
    """No crash can fall between the end of the shift and the record of its result."""
    record = transitions.begun(a_record(live=1, new=2), StepName.SHIFT, at=AT)

    record = transitions.ended(record, StepName.SHIFT, detail="", checks=(), at=AT)

    assert (a_release(2), a_release(1)) == (record.live, record.previous)


def test_a_record_survives_a_round_trip() -> None:
    """What is written is what is read."""
    record, _ = play(a_record(live=1, new=2), FakeCluster("chat-r1"), {StepName.BAKE: "fails"})

    assert record == ServiceRecord.from_json(record.to_json())


def test_two_releases_are_never_on_their_way_at_once() -> None:
    """Opening a release while one is on its way is a conflict."""
    with pytest.raises(transitions.Conflict, match="chat-r2 is still on its way"):
        transitions.opened(transitions.asked(a_record(live=1, new=2), a_request(3)), run="", at=AT)
