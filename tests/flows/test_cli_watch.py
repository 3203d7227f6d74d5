"""``status`` of one service, and ``status --watch``: a screen, lines, or JSON, each until Ctrl-C."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli import live
from flows.cli.sight import sight
from tasks._stores.folder import FolderStore
from tasks.errors import Unreachable
from tasks.records import CheckResult, Outcome, ServiceRecord, Step, StepName, StepState, Verdict
from tasks.settings import read_settings
from tests.flows.command_line import NOW, Line, asking, ended, line

__all__ = ["line"]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0


def under_way() -> ServiceRecord:
    """Return a record whose second release has been mirrored, and is judged now."""
    asked = asking()
    assert asked.current is not None
    done = Step(
        name=StepName.MIRROR,
        state=StepState.DONE,
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=9),
        detail="12 [MB] fetched " + "and checked " * 9,
    )
    now = Step(name=StepName.QUALITY, state=StepState.STARTED, started_at=NOW + timedelta(seconds=20))
    doubt = CheckResult(name="tools", verdict=Verdict.INCONCLUSIVE, summary="[no] tool was called")
    fields = {"steps": (done, now), "checks": (doubt,), "question": None, "actor": "ann", "reason": "newer"}
    return asked.model_copy(update={"current": asked.current.model_copy(update=fields)})


def promoted() -> ServiceRecord:
    """Return the record after that."""
    return ServiceRecord(
        service="chat", next_number=3, live=ended(2).release, past=(ended(1), ended(2, Outcome.PROMOTED))
    )


def looks(*changes: Callable[[], object]) -> Callable[[], dict[str, Any]]:
    """Return what looks at the services of the environment after each change, and then is interrupted."""
    left = iter(changes)

    def look() -> dict[str, Any]:
        change = next(left, None)
        if change is None:
            raise KeyboardInterrupt
        change()
        with sight(read_settings()) as once:
            return once()

    return look


def test_the_screen_fits_a_narrow_terminal(line: Line) -> None:
    """Steps with their times, what is to come, verdicts that are no pass, and who asked: in 80 columns."""
    line.write(under_way())
    with sight(read_settings()) as look:
        console = Console(width=80, highlight=False, markup=False, record=True, file=io.StringIO())
        console.print(live.screen(look(), NOW + timedelta(seconds=60)))
    shown = console.export_text()

    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  release for ann: newer, since 60.0 s" in lines
    assert any(one.split()[:4] == ["ok", "mirror", "9.0", "s"] and one.endswith("…") for one in lines)
    assert any(one.split() == ["now", "quality", "40.0", "s"] for one in lines)
    assert "to come: room, start, ready, smoke, paired" in shown
    assert "    inconclusive: tools: [no] tool was called" in lines


def test_without_a_terminal_each_thing_is_told_once(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes on, then what changed, then how it ended; nothing is repeated while nothing happens."""
    monkeypatch.setattr(live, "EVERY_S", 0)
    steps = [lambda: line.write(under_way()), lambda: None, lambda: line.write(promoted())]

    live.watch(looks(*steps), as_json=False)

    told = capsys.readouterr().out.splitlines()
    assert 1 == sum("chat-r2: ok mirror, 9.0 s  12 [MB] fetched" in one for one in told)
    assert 1 == sum("chat-r2: inconclusive: tools: [no] tool was called" in one for one in told)
    assert "chat: last: chat-r2 was promoted after 60 s" == told[-1]
    assert len(told) == len(set(told))


def test_json_is_a_line_for_each_change(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs read what `status --json` says, and when."""
    monkeypatch.setattr(live, "EVERY_S", 0)
    steps = [lambda: line.write(under_way()), lambda: None, lambda: line.write(promoted())]

    live.watch(looks(*steps), as_json=True)

    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert ["mirror", "quality"] == [step["name"] for step in first["services"]["chat"]["current"]["steps"]]
    assert None is second["services"]["chat"]["current"]
    assert "promoted" == second["services"]["chat"]["last"]["outcome"]
    assert datetime.fromisoformat(first["at"]).tzinfo == UTC


def test_status_of_one_service(line: Line) -> None:
    """Also of one whose spec is gone; a name that nobody knows is told with the nearest."""
    (line.folder / "services" / "other.yaml").write_text("service: other\nmodel: acme/tiny\n")
    line.write(asking())

    assert 0 == line.slipway("status", "chat", "--json")
    assert ["chat"] == list(json.loads(line.out)["services"])
    (line.folder / "services" / "chat.yaml").unlink()
    assert 0 == line.slipway("status", "chat")
    assert 3 == line.slipway("status", "othr")
    assert "Did you mean 'other'?" in line.err


def test_a_target_that_does_not_tell_is_no_reason_to_restore(line: Line) -> None:
    """Whoever reads is told what is missing, and not to start something that may run."""
    line.write(promoted())

    assert 0 == line.slipway("status")
    assert "whether chat-r2 runs is not known. No Ray cluster" in line.out
    assert "slipway restore" not in line.out


def test_a_store_that_is_away_is_asked_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every service is told of, and one wait is enough for all."""
    (line.folder / "services" / "other.yaml").write_text("service: other\nmodel: acme/tiny\n")
    asked: list[str] = []

    def away(_store: FolderStore, key: str) -> None:
        asked.append(key)
        raise Unreachable("The store does not answer.")

    monkeypatch.setattr(FolderStore, "get", away)

    assert 0 == line.slipway("status", "--json")
    told = json.loads(line.out)["services"]

    assert ["chat", "other"] == list(told)
    assert told["chat"] == told["other"] == {"error": "The store does not answer."}
    assert 1 == len(asked)


def test_a_store_that_cannot_be_is_told_of_each_service(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status itself is no failure: it says what is wrong."""
    monkeypatch.setenv("SLIPWAY_STORE__URL", (line.folder / "gone").as_uri())

    assert 0 == line.slipway("status")
    assert "Create it or mount it first" in line.out


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(line: Line) -> None:
    """On a real terminal: a screen of its own, drawn anew when the size changes; then the last state, and code 0."""
    line.write(under_way())
    parent, child = pty.openpty()
    command = [sys.executable, "-c", "from flows.cli import main; main()", "status", "--watch"]
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    watching = subprocess.Popen(command, cwd=ROOT, env=variables, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = b""
    try:
        shown = read_until(parent, shown, b"quality")
        watching.send_signal(signal.SIGWINCH)
        watching.send_signal(signal.SIGINT)
        shown = read_until(parent, shown, b"\x1b[?1049l")
        code = watching.wait(timeout=DEADLINE_S)
    finally:
        watching.kill()
        watching.wait()
        os.close(parent)

    assert 0 == code
    assert b"\x1b[?1049h" in shown
    assert b"Traceback" not in shown


def read_until(terminal: int, shown: bytes, mark: bytes) -> bytes:
    """Return what was shown, ``mark`` included."""
    deadline = time.monotonic() + DEADLINE_S
    while mark not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536)
    return shown


def test_times_are_written_as_people_read_them() -> None:
    """Tenths matter below a hundred seconds."""
    assert ["0.0 s", "9.9 s", "2 m 05 s"] == [live._span(seconds) for seconds in (-1, 9.94, 125.7)]
