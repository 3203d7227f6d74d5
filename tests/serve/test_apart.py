"""The fetch beside a replica."""

from pathlib import Path

import pytest

from serve.apart import fetch_apart
from serve.manifest import WeightsError
from tests.serve.nodes import COMMIT, FILES, local

pytestmark = pytest.mark.slow


def test_it_brings_the_same_folder(
    stored: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever the replica runs, and whatever else is on its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert cache / COMMIT == fetch_apart(stored.as_uri(), cache)
    assert FILES == local(cache / COMMIT)


def test_its_errors_are_those_of_the_fetch(stored: Path, cache: Path) -> None:
    """The last line that the controller sees of a failed replica is the sentence that says why."""
    (stored / ".manifest.json").unlink()

    with pytest.raises(
        WeightsError, match=r"^The store has no manifest at .*: the commit was never mirrored whole\.$"
    ):
        fetch_apart(stored.as_uri(), cache)


def test_a_process_that_dies_is_an_error(stored: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for memory, or unable to start."""
    monkeypatch.setattr("sys.executable", "/bin/false")

    with pytest.raises(WeightsError, match=rf"The process that fetched {stored.as_uri()} ended with status 1"):
        fetch_apart(stored.as_uri(), cache)
