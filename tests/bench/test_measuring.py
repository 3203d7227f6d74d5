"""What is measured of a process tree is what the tree did."""

import os
from pathlib import Path

import pytest

from tests.bench.measuring import Command, Failed, measure

pytestmark = pytest.mark.slow

MB = 10**6
BUSY = """
import sys, time
held = bytearray(80_000_000)
open("file", "wb").write(held[:5_000_000])
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
time.sleep(0.3)
"""


def command(folder: Path, *words: str) -> Command:
    """Return a command that runs in ``folder``."""
    return Command(words, {"PATH": os.environ["PATH"]}, folder)


def test_a_grandchild_counts(tmp_path: Path) -> None:
    """Processor time, memory and disk of a process that the shell started belong to the run, and stages add up."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "busy.py").write_text(BUSY)
    busy = command(folder, "bash", "-c", f"true | python3 {tmp_path / 'busy.py'}; true")
    used = measure([busy, busy], tmp_path / "log")

    assert used.seconds >= 1.2
    assert 0.6 <= used.cpu_s < used.seconds
    assert 80 * MB <= used.memory < 120 * MB
    assert 5 * MB <= used.disk < 6 * MB


def test_a_command_that_fails_tells_what_it_said(tmp_path: Path) -> None:
    """The error holds the exit code and the end of the log."""
    with pytest.raises(Failed, match="ended with 3: no room"):
        measure([command(tmp_path, "bash", "-c", "echo no room; exit 3")], tmp_path / "log")
