"""The receipt counts every request once, whatever their order, and finds the switches."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks._clients.receipt import UNANSWERED, ProbeReport, Receipt, Seen, receipt, report_of, seen_since
from tasks._clients.receipt_text import markdown, sentence, summary
from tasks._clients.requests import Beat, Kind, Lines, Outcome, Request, open_journal, read_journal
from tasks._clients.turns import Hole, Turn
from tasks.records import Verdict

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
unhurried = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROBE = ProbeReport(due=100, made=99, asked_s=100, open_s=99, cpu_s=0.5, wall_s=20, stall_s=0.01)
HOLE = Hole(since=EPOCH + timedelta(seconds=4), until=EPOCH + timedelta(seconds=9))


def request(
    number: int, started: float, lasting: float = 1.0, release: str | None = "chat-r1", **more: Any
) -> Request:
    """Return an ended request: a stream on a new connection unless told otherwise."""
    values: dict[str, Any] = {
        "id": number,
        "kind": Kind.STREAM,
        "kept_alive": False,
        "at": EPOCH + timedelta(seconds=started),
        "started": 1000 + started,
        "answered": 1000 + started if release else None,
        "ended": 1000 + started + lasting,
        "release": release,
        "outcome": Outcome.OK if release else Outcome.LOST,
    }
    return Request(**(values | more))


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Return up to thirty requests of any kind, release and end."""
    return [
        request(
            number,
            draw(st.floats(0, 60)),
            draw(st.floats(0, 30)),
            draw(st.sampled_from(["chat-r1", "chat-r2", None])),
            kind=draw(st.sampled_from(Kind)),
            kept_alive=draw(st.booleans()),
            outcome=draw(st.sampled_from(Outcome)),
            longest_gap_s=draw(st.floats(0, 5)),
        )
        for number in range(draw(st.integers(0, 30)))
    ]


@unhurried
@given(requests())
def test_totals_add_up(ended: list[Request]) -> None:
    """Every request is in each of the counts exactly once."""
    seen = receipt(ended)

    assert seen.requests == len(ended) == seen.streams + seen.plain
    assert sum(seen.by_release.values()) == len(ended)
    assert sum(sum(second.by_release.values()) for second in seen.seconds) == len(ended)
    assert sum(second.failed for second in seen.seconds) == seen.failed
    assert sum(second.slow for second in seen.seconds) == seen.slow
    assert sum(sum(faults.values()) for faults in seen.faults.values()) == seen.failed + seen.slow
    assert len(seen.losses) == min(20, seen.failed)
    assert all(0 <= switch.streams_open <= seen.streams for switch in seen.switches)


@unhurried
@given(requests(), st.randoms(use_true_random=False))
def test_order_does_not_matter(ended: list[Request], random: Any) -> None:
    """The same requests in another order make the same receipt."""
    shuffled = list(ended)
    random.shuffle(shuffled)

    assert receipt(shuffled) == receipt(ended)


@unhurried
@given(requests())
def test_survives_json(ended: list[Request]) -> None:
    """A receipt is equal after a round trip, and so is each line of the journal."""
    seen = receipt(ended, PROBE, turns=[Turn(release="chat-r1")], holes=[HOLE])

    assert Receipt.from_json(seen.to_json()) == seen
    assert [Request.from_json(r.model_dump_json()) for r in ended] == ended


@unhurried
@given(requests())
def test_any_failure_fails(ended: list[Request]) -> None:
    """The verdict is pass only when something was asked and every answer was whole."""
    clean = bool(ended) and all(r.outcome is Outcome.OK for r in ended)

    assert (receipt(ended).verdict is Verdict.PASS) is clean


@unhurried
@given(requests(), st.integers(0, 40))
def test_what_was_seen_since_a_moment(ended: list[Request], which: int) -> None:
    """Requests that started at the moment or later are counted, each failure and each slow one among them."""
    since = ended[which % len(ended)].at if ended else EPOCH
    later = [one for one in ended if one.at >= since]
    whole = receipt(later)

    assert Seen(requests=len(later), failed=whole.failed, slow=whole.slow) == seen_since(ended, since)


def test_switch_with_streams_open_across() -> None:
    """A switch is where new requests meet the new release; what the old one still streams is counted."""
    old = [request(n, n / 10, lasting=20) for n in range(30)]
    plain = request(30, 5, lasting=20, kind=Kind.PLAIN)
    late = [request(31, 4, lasting=1), request(32, 11, lasting=9, kept_alive=True)]
    new = [request(40 + n, 10 + n, release="chat-r2") for n in range(5)]
    seen = receipt([*new, *old, plain, *late])

    (switch,) = seen.switches
    assert (switch.from_release, switch.to_release) == ("chat-r1", "chat-r2")
    assert switch.after_s == 10
    assert switch.at == EPOCH + timedelta(seconds=10)
    assert switch.streams_open == 30
    assert b'"from": "chat-r1"' in seen.to_json()


def test_roll_back_is_a_second_switch() -> None:
    """Going back counts as a switch of its own, even after a short stay."""
    plan = [("chat-r1", 0), ("chat-r2", 10), ("chat-r1", 12)]
    ended = [request(n, start + n / 10, 0.1, name) for name, start in plan for n in range(15)]

    switches = [(s.from_release, s.to_release) for s in receipt(ended).switches]
    assert switches == [("chat-r1", "chat-r2"), ("chat-r2", "chat-r1")]


def test_alternating_answers_are_one_switch() -> None:
    """While a switch spreads over several proxies, answers alternate; that is one switch, not many."""
    order = ["chat-r1"] * 9 + ["chat-r2", "chat-r1", "chat-r2", "chat-r1"] + ["chat-r2"] * 9
    ended = [request(n, n * 0.3, 0.1, name) for n, name in enumerate(order)]

    assert len(receipt(ended).switches) == 1


def test_kept_alive_stragglers_make_no_switch() -> None:
    """A kept-alive connection that stays on the old release does not hide or repeat the switch."""
    new = [request(n, n, 0.5, "chat-r1" if n < 5 else "chat-r2") for n in range(10)]
    stuck = [request(100 + n, n + 0.5, 0.4, "chat-r1", kept_alive=True) for n in range(10)]

    assert [s.after_s for s in receipt([*new, *stuck]).switches] == [5]


def test_answer_by_a_release_that_was_not_live() -> None:
    """A whole answer by a release outside its turn is wrong, is counted for it, and fails the receipt."""
    ended = [request(0, 0), request(1, 1, release="chat-r9")]
    seen = receipt(ended, turns=[Turn(release="chat-r1")])

    assert (seen.wrong, seen.lost, seen.requests) == (1, 0, 2)
    assert seen.losses[0].note == "answered by chat-r9, which was not live then"
    assert seen.faults == {"chat-r9": {"wrong": 1}}
    assert seen.verdict is Verdict.FAIL


def test_slow_answers_are_counted_by_second_and_release() -> None:
    """A late first token, a late plain answer and a gap are slow; a long stream is not; none of them is a loss."""
    ended = [
        request(0, 0, 9, first=1003.0),
        request(1, 0.2, 3, kind=Kind.PLAIN),
        request(2, 0.4, 9, "chat-r2", first=1001.0, longest_gap_s=2.5),
        request(3, 0.6, 90, first=1001.0),
        request(4, 0.8, 3, None),
    ]
    seen = receipt(ended, slow_s=2)

    assert (seen.slow, seen.failed, seen.slow_s) == (3, 1, 2)
    assert seen.faults == {UNANSWERED: {"lost": 1}, "chat-r1": {"slow": 2}, "chat-r2": {"slow": 1}}
    assert {second.second: second.slow for second in seen.seconds} == {3: 1, 9: 2, 90: 0}
    assert receipt(ended[:4], slow_s=2).verdict is Verdict.PASS
    assert sentence(seen).endswith("3 took longer than 2 s.")


@pytest.mark.parametrize(
    ("ended", "probe", "more", "verdict"),
    [
        pytest.param([], {}, {}, Verdict.INCONCLUSIVE, id="nothing asked"),
        pytest.param([request(0, 0)], {"open_s": 90}, {}, Verdict.INCONCLUSIVE, id="too few streams"),
        pytest.param([request(0, 0)], {"made": 94}, {}, Verdict.INCONCLUSIVE, id="rate not kept"),
        pytest.param([request(0, 0)], {"open_s": 95, "made": 95}, {}, Verdict.PASS, id="just enough"),
        pytest.param([request(0, 0, release=None)], {"made": 9}, {}, Verdict.FAIL, id="loss weighs more"),
        pytest.param([request(0, 0)], {}, {"holes": [HOLE]}, Verdict.PASS, id="hole"),
        pytest.param(
            [request(0, 0)],
            {},
            {"holes": [HOLE.model_copy(update={"moving": True})]},
            Verdict.INCONCLUSIVE,
            id="hole across a switch",
        ),
        pytest.param([request(0, 0)], {}, {"broken": "OSError"}, Verdict.INCONCLUSIVE, id="probe broke"),
    ],
)
def test_verdict(ended: list[Request], probe: dict[str, Any], more: dict[str, Any], verdict: Verdict) -> None:
    """A loss fails; a probe that did not ask what it should, or did not see the switch, proves nothing."""
    assert receipt(ended, PROBE.model_copy(update=probe), **more).verdict is verdict


def test_holes_are_told() -> None:
    """A hole is in the receipt in seconds from the first request, and in its words."""
    seen = receipt([request(0, 1)], PROBE, holes=[HOLE])

    assert [(gap.from_s, gap.to_s, gap.moving) for gap in seen.gaps] == [(3, 8, False)]
    assert sentence(seen).endswith("No probe ran for 5 s from 3 s after the first request.")
    assert "| no probe ran from 3 s after the first request | for 5.0 s |" in markdown(seen)


def test_a_hole_before_the_first_request_has_no_time_below_zero() -> None:
    """What no probe saw before anything was asked is told by how long before that was."""
    seen = receipt([request(20, 21)], PROBE, holes=[HOLE])

    assert sentence(seen).endswith("No probe ran for 5 s from 17 s before the first request.")


def test_nobody_was_live() -> None:
    """Where no release could answer, that nothing was asked is said as what it is, and is no pass."""
    seen = receipt([], PROBE, turns=())

    assert sentence(seen) == "Nobody was live, so there was nothing to see."
    assert seen.verdict is Verdict.INCONCLUSIVE


def test_clocks_of_several_runs() -> None:
    """Requests of runs whose monotonic clocks begin anew lie where the wall clock says, lasting as they did."""
    anew = request(2, 10, release="chat-r2").model_copy(update={"started": 3.0, "answered": 3.0, "ended": 5.0})
    later = [anew, request(3, 20, release="chat-r2")]
    seen = receipt([*later, request(0, 0), request(1, 1)])

    assert [second.second for second in seen.seconds] == [1, 2, 12, 21]
    assert [switch.after_s for switch in seen.switches] == [10]


def test_beats_add_up() -> None:
    """What several probes did is the sum of their beats, and the worst of their stalls."""
    beats = [Beat(at=EPOCH, due=2, made=1, asked_s=1, open_s=0.5, stall_s=0.1), Beat(at=EPOCH, due=2, made=2)]
    seen = report_of(beats)

    assert (seen.due, seen.made, seen.stall_s) == (4, 3, 0.1)
    assert seen.achieved == 0.5


def test_words() -> None:
    """The line, the sentence and the table hold the numbers, and foreign text cannot break the table."""
    lost = request(1, 0.5, release=None, note="HTTP 500: a | b")
    switched = [request(2 + n, 2 + n, release="chat-r2") for n in range(3)]
    seen = receipt([request(0, 0, lasting=4), lost, *switched], PROBE)

    assert summary(seen).startswith("5 requests (5 streams), 1 lost, 0 truncated, 0 wrong, 0 slow, 1 streams open")
    assert sentence(seen) == "Clients lost answers: 1 lost, 0 truncated and 0 by a wrong release, of 5 requests."
    assert "HTTP 500: a \\| b" in markdown(seen)
    assert "| chat-r1 → chat-r2 | 1 |" in markdown(seen)
    assert "asked 99.0% of what it was told to" in markdown(seen)


def test_journal_of_a_killed_probe(tmp_path: Any) -> None:
    """Whole lines are read back and gone on with; a half-written last one is dropped, a broken inner one is not."""
    path = tmp_path / "probe.jsonl"
    ended, beat = [request(0, 0), request(1, 1)], Beat(at=EPOCH, first=True)
    lines = b"".join(line.model_dump_json().encode() + b"\n" for line in (beat, *ended))
    path.write_bytes(lines + lines[:40])

    assert read_journal(path) == Lines(requests=tuple(ended), beats=(beat,))

    with open_journal(path) as journal:
        journal.write(beat.model_dump_json().encode() + b"\n")
    assert read_journal(path) == Lines(requests=tuple(ended), beats=(beat, beat))

    path.write_bytes(lines[:40] + b"\n" + lines)
    with pytest.raises(ValueError, match="Request"):
        read_journal(path)
