"""What a watcher counts while the probe writes: each line once, and nothing where there is no journal."""

from datetime import timedelta
from pathlib import Path

from tasks._clients.requests import Beat, Kind, Outcome, Request
from tasks._clients.tally import Tally
from tasks._release.journal import evidence_name
from tests.flows.command_line import NOW, ended


def line(number: int, release: str | None = "chat-r1", outcome: Outcome = Outcome.OK) -> bytes:
    """Return the journal's line of a request that started ``number`` seconds after the beginning."""
    at = NOW + timedelta(seconds=number)
    request = Request(
        id=number, kind=Kind.PLAIN, kept_alive=True, at=at, started=0, ended=1, release=release, outcome=outcome
    )
    return request.model_dump_json().encode() + b"\n"


def test_lines_are_counted_once_as_they_come(tmp_path: Path) -> None:
    """A line that is half written waits for the next look; shares are of the last seconds."""
    tally, release = Tally(tmp_path), ended(2)
    journal = tmp_path / f"{evidence_name(release)}.jsonl"
    beat = Beat(at=NOW, asked_s=2.2, open_s=2.1, wall_s=1.05).model_dump_json().encode() + b"\n"
    late = line(30, "chat-r2")
    journal.write_bytes(line(0) + line(1, None, Outcome.LOST) + beat + late[:20])

    first = tally.look(release)
    with journal.open("ab") as file:
        file.write(late[20:] + line(31, "chat-r1", Outcome.TRUNCATED))
    second = tally.look(release)

    assert first is not None
    assert second is not None
    assert (2, 1, 0, 2, {"chat-r1": 100.0}) == (
        first.requests,
        first.lost,
        first.truncated,
        first.streams_open,
        first.shares,
    )
    assert (4, 1, 1) == (second.requests, second.lost, second.truncated)
    assert {"chat-r1": 50.0, "chat-r2": 50.0} == second.shares


def test_another_release_is_counted_anew(tmp_path: Path) -> None:
    """Each has a journal of its own; one that is elsewhere or damaged counts nothing."""
    tally = Tally(tmp_path)
    (tmp_path / f"{evidence_name(ended(1))}.jsonl").write_bytes(line(0) + line(1))
    (tmp_path / f"{evidence_name(ended(2))}.jsonl").write_bytes(line(0))
    (tmp_path / f"{evidence_name(ended(3))}.jsonl").write_bytes(b"{}\n")

    counted = [tally.look(ended(number)) for number in (1, 2, 3, 4)]

    assert [2, 1, None, None] == [one.requests if one else None for one in counted]
