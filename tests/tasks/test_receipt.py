"""The receipt counts every request once, whatever their order, and finds the switches."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks._receipt import ProbeReport, Receipt, receipt
from tasks._receipt_text import markdown, sentence, summary
from tasks._requests import Kind, Outcome, Request, read_journal
from tasks.records import Verdict

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROBE = ProbeReport(asked_s=100, open_s=99, cpu_s=0.5, wall_s=20, stall_s=0.01)


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
    assert sum(second.failed for second in seen.seconds) == seen.lost + seen.truncated
    assert len(seen.losses) == min(20, seen.lost + seen.truncated)
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
    seen = receipt(ended, PROBE)

    assert Receipt.from_json(seen.to_json()) == seen
    assert [Request.from_json(r.model_dump_json()) for r in ended] == ended


@unhurried
@given(requests())
def test_any_failure_fails(ended: list[Request]) -> None:
    """The verdict is pass only when something was asked and every answer was whole."""
    clean = bool(ended) and all(r.outcome is Outcome.OK for r in ended)

    assert (receipt(ended).verdict is Verdict.PASS) is clean


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


def test_answer_by_a_release_that_was_never_live() -> None:
    """A whole answer by a release outside the live ones is a loss that names it."""
    ended = [request(0, 0), request(1, 1, release="chat-r9")]
    seen = receipt(ended, may_answer={"chat-r1"})

    assert (seen.lost, seen.requests) == (1, 2)
    assert seen.losses[0].note == "answered by chat-r9, which was never live"


@pytest.mark.parametrize(
    ("ended", "open_s", "verdict"),
    [
        pytest.param([], 100, Verdict.INCONCLUSIVE, id="nothing asked"),
        pytest.param([request(0, 0)], 90, Verdict.INCONCLUSIVE, id="probe too slow"),
        pytest.param([request(0, 0)], 95, Verdict.PASS, id="just enough"),
        pytest.param([request(0, 0), request(1, 0, release=None)], 90, Verdict.FAIL, id="loss weighs more"),
    ],
)
def test_verdict(ended: list[Request], open_s: float, verdict: Verdict) -> None:
    """A loss fails; a probe that did not ask what it should proves nothing."""
    assert receipt(ended, PROBE.model_copy(update={"open_s": open_s})).verdict is verdict


def test_words() -> None:
    """The line, the sentence and the table hold the numbers, and foreign text cannot break the table."""
    lost = request(1, 0.5, release=None, note="HTTP 500: a | b")
    switched = [request(2 + n, 2 + n, release="chat-r2") for n in range(3)]
    seen = receipt([request(0, 0, lasting=4), lost, *switched], PROBE)

    assert summary(seen).startswith("5 requests (5 streams), 1 lost, 0 truncated, 1 streams open across 1 switches")
    assert sentence(seen) == "Clients lost answers: 1 lost and 0 truncated, of 5 requests."
    assert "HTTP 500: a \\| b" in markdown(seen)
    assert "| chat-r1 → chat-r2 | 1 |" in markdown(seen)
    assert "asked 99.0% of what it was told to" in markdown(seen)


def test_journal_of_a_killed_probe(tmp_path: Any) -> None:
    """Whole lines of a journal are read back; a half-written last one is dropped, a broken inner one is not."""
    path = tmp_path / "probe.jsonl"
    ended = [request(0, 0), request(1, 1)]
    lines = b"".join(r.model_dump_json().encode() + b"\n" for r in ended)
    path.write_bytes(lines + lines[:40])

    assert list(read_journal(path)) == ended

    path.write_bytes(lines[:40] + b"\n" + lines)
    with pytest.raises(ValueError, match="Request"):
        read_journal(path)
