"""What a return to an earlier release would do: the record and the target say it, and nothing is asked for."""

from tasks._plans.foreseen import foreseen, undoing
from tasks._plans.planned import Meets
from tasks._release.machine import Health, Observed, Placement
from tasks._release.wishes import to_promote, to_restore, to_roll_back
from tasks.records import Failure, Kind, Outcome, Request, ServiceRecord, StepName
from tests.flows.command_line import NOW, asking, ended, release

RECORD = ServiceRecord(service="chat", next_number=3, live=release(2), previous=release(1), past=(ended(1), ended(2)))
ASKED = {"run": "", "actor": "", "reason": "", "at": NOW}
RUNNING = Placement(health=Health.HEALTHY)


def shown(**placements: Placement) -> Observed:
    """Return what a target shows, by release."""
    return Observed(placements={name.replace("_", "-"): one for name, one in placements.items()})


def test_a_roll_back_to_what_runs_takes_seconds() -> None:
    """One that was removed has to start first, and a target that is away does not tell."""
    wish = to_roll_back(RECORD, None, **ASKED)
    warm, cold, away = (foreseen(RECORD, wish, seen) for seen in (shown(chat_r1=RUNNING), shown(), None))

    assert [("chat-r1", True), ("chat-r1", False), ("chat-r1", None)] == [
        (one.release, one.warm) for one in (warm, cold, away)
    ]
    assert "it would begin at once" in warm.lines()[0]
    assert "seconds" in warm.lines()[2]
    assert "started first" in cold.lines()[2]
    assert StepName.SHIFT in warm.steps


def test_what_is_live_already_is_left_so() -> None:
    """A restore of what answers does nothing; of what is gone it does something."""
    wish = to_restore(RECORD, **ASKED)
    live = foreseen(RECORD, wish, shown(chat_r2=Placement(health=Health.HEALTHY, live=True)))

    assert Meets.LIVE is live.meets
    assert "nothing would happen" in live.lines()[0]
    assert Meets.NOTHING is foreseen(RECORD, wish, shown()).meets


def test_what_is_on_its_way_gives_way_or_ends_first() -> None:
    """As the engine would treat it."""
    busy = asking()
    wish = to_promote(busy, "chat-r1", **ASKED)

    assert (Meets.REPLACES, "chat-r2") == (foreseen(busy, wish, None).meets, foreseen(busy, wish, None).other)


def test_a_roll_back_without_a_name_undoes_what_is_on_its_way() -> None:
    """Unless that is being undone already, or leads back itself."""
    busy = asking()
    assert busy.current is not None
    failed = busy.current.model_copy(update={"failure": Failure(step=None, outcome=Outcome.REFUSED, reason="no")})
    back = busy.current.model_copy(update={"kind": Kind.ROLL_BACK})
    said = [
        found.lines()[0] if (found := undoing(busy.model_copy(update={"current": one}))) else ""
        for one in (busy.current, failed, back, None)
    ]

    assert "would be undone" in said[0]
    assert "already" in said[1]
    assert "not turned round" in said[2]
    assert "" == said[3]


def test_nothing_is_promised_for_a_wish_that_waits() -> None:
    """A request for the same is known by its id."""
    wish = to_promote(RECORD, "chat-r1", **ASKED)
    waiting = RECORD.model_copy(
        update={"waiting": Request(id="run-9", kind=Kind.PROMOTE, release=release(1), at=NOW)}
    )

    assert (Meets.ASKED, "run-9") == (foreseen(waiting, wish, None).meets, foreseen(waiting, wish, None).other)
