"""Who may fetch: one at a time, and never nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from serve import lease
from serve.lease import leased, this_boot
from tests.serve.nodes import ROOT

HOLD = (
    "import sys, pathlib, serve.lease as l\nwith l.leased(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a lease may be."""
    return tmp_path / "commit.lease"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    monkeypatch.setattr(lease, "RENEW_S", 0.01)


def left_by(path: Path, *, boot: str, age_s: float = 0.0) -> None:
    """Put a lease there whose holder is not to be seen: dead, or on another machine."""
    path.write_text(json.dumps({"owner": "other", "boot": boot}))
    os.utime(path, (time.time() - age_s,) * 2)


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_one_holds_it_and_the_next_has_it_afterwards(path: Path) -> None:
    """Nothing is left of it at the end, nor of those who asked in vain."""
    with leased(path) as first:
        with leased(path) as second:
            assert second is None
        assert isinstance(first, Event)
        assert [path] == list(path.parent.iterdir())
    with leased(path) as third:
        assert third is not None

    assert [] == list(path.parent.iterdir())


def test_it_is_touched_while_its_holder_lives(path: Path) -> None:
    """Its age is what tells another machine that somebody is at work."""
    with leased(path):
        os.utime(path, (0, 0))
        until(lambda: time.time() - path.stat().st_mtime < lease.LIFETIME_S)


@pytest.mark.parametrize(
    ("boot", "age_s", "free"),
    [
        ("another", 0.0, False),
        ("another", lease.LIFETIME_S - 5, False),
        ("another", lease.LIFETIME_S + 5, True),
        (this_boot(), 0.0, True),
        (this_boot(), lease.LIFETIME_S + 5, True),
    ],
)
def test_a_lease_whose_holder_cannot_be_alive_is_free(path: Path, boot: str, age_s: float, free: bool) -> None:
    """Under this kernel a holder that lives has it flocked; of another machine only its age is known."""
    left_by(path, boot=boot, age_s=age_s)

    with leased(path) as lost:
        assert free == (lost is not None)
    assert path.exists() != free


@pytest.mark.parametrize("content", ["", "[]", "{", '{"owner": 1}'])
def test_a_lease_that_says_nothing_is_free_when_it_is_old(path: Path, content: str) -> None:
    """Whatever wrote it does not renew it."""
    path.write_text(content)
    with leased(path) as lost:
        assert lost is None
    os.utime(path, (0, 0))
    with leased(path) as lost:
        assert lost is not None


def test_a_holder_that_was_replaced_knows_and_leaves_the_lease_alone(path: Path) -> None:
    """A stopped process that wakes must not end the work of the one that took over."""
    with leased(path) as lost:
        assert lost is not None
        path.unlink()
        left_by(path, boot="another")
        until(lost.is_set)

    assert "other" == json.loads(path.read_text())["owner"]


def test_of_several_that_find_a_dead_holder_one_takes_over(path: Path) -> None:
    """The flock on the old lease is held through the exchange; whoever is slower finds another file there."""
    left_by(path, boot=this_boot())
    start, end = Barrier(8), Barrier(8)

    def ask(_: int) -> bool:
        start.wait(10)
        with leased(path) as lost:
            end.wait(10)
            return lost is not None

    with ThreadPoolExecutor(8) as pool:
        assert [True] == [had for had in pool.map(ask, range(8)) if had]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_holds_it_no_more_is_replaced(path: Path, how: signal.Signals) -> None:
    """The kernel lets go for the dead at once; against the stopped only the age of the lease speaks."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdin=-1, stdout=-1)
    try:
        assert holder.stdout
        assert b"1\n" == holder.stdout.readline()
        with leased(path) as lost:
            assert lost is None
        holder.send_signal(how)
        if how is signal.SIGKILL:
            holder.wait(10)
        else:
            os.utime(path, (0, 0))
        with leased(path) as lost:
            assert lost is not None
    finally:
        holder.kill()
        holder.communicate()
