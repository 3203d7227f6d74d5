"""The boundaries: enough of them, each named once, and a real death at the one that was asked for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks._release.boundaries import AROUND, BOUNDARIES, MOMENTS, boundary
from tasks.records import StepName

ROOT = Path(__file__).parents[3]
DIES = "from tasks._release.boundaries import boundary; cross = boundary('shift:effect'); cross('{}'); print('lives')"


def test_every_step_has_its_boundaries() -> None:
    """A new step is tested without a new name."""
    assert len(BOUNDARIES) == len(set(BOUNDARIES)) == len(AROUND) + len(StepName) * len(MOMENTS)
    assert all(f"{step.value}:{moment}" in BOUNDARIES for step in StepName for moment in MOMENTS)


def test_without_a_name_nothing_dies() -> None:
    """As it is outside of tests."""
    for name in BOUNDARIES:
        boundary("")(name)


@pytest.mark.slow
def test_the_one_that_was_named_kills_without_a_word() -> None:
    """No handler runs and nothing is flushed; any other is crossed alive."""
    dead, alive = (
        subprocess.run(
            [sys.executable, "-c", DIES.format(name)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        for name in ("shift:effect", "shift:outcome")
    )

    assert (-signal.SIGKILL, "", "") == (dead.returncode, dead.stdout, dead.stderr)
    assert (0, "lives\n") == (alive.returncode, alive.stdout)
