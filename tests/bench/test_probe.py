"""The probe's own benchmark measures what it says, and prints a report that can be read by a program."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_report() -> None:
    """Both figures of C6 are there, from a run in which the probe asked and nothing failed."""
    command = [sys.executable, "-m", "tests.bench.probe", "--json", "--seconds", "1.5", "--patience", "0"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert [figure["goal"] for figure in report["figures"]] == ["C6", "C6"]
    assert all(figure["value"] > 0 for figure in report["figures"])
    assert report["seen"]["streams"] >= 20
    assert report["seen"]["lost"] == 0
