"""The benchmark of the weights' road runs from end to end, and its report has the shape that is promised."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.servers import ROOT

pytestmark = pytest.mark.slow

LIMIT_S = 300


def test_a_small_benchmark_measures_verifies_and_cleans_up(tmp_path: Path) -> None:
    """Unchanged and changed commits on 200 MB: figures with goals, every byte read back, nothing left behind."""
    words = ["--size", "small", "--only", "W5,W6", "--patience", "0", "--json", "--home", str(tmp_path)]
    command = [sys.executable, "-m", "tests.bench.weights", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    figures = {figure["name"]: figure for figure in report["figures"]}

    assert {"W5", "W6"} == {figure["goal"] for figure in report["figures"]}
    for figure in report["figures"]:
        assert {"value", "unit", "wanted", "met", "missed_by"} <= figure.keys()
        assert figure["value"] is not None, figure
    assert figures["requests when nothing changed"]["met"]
    changed = figures["bytes of unchanged shards from the Hub"]
    assert [changed["changed_bytes"]] == pytest.approx(changed["changed_bytes_sent"], rel=0.01)
    assert report["runs"]
    assert all(run["verified"] and not run["left_over"] for run in report["runs"])
    assert {"machine", "versions", "compared", "stores", "ceilings", "absent"} <= report.keys()
    assert {"hub", "lock"} == {path.name for path in tmp_path.iterdir()}
