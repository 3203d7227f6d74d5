"""Claims: one holder at a time, taken over from the dead and the silent, lost without harm."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks._processes import this_process
from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks._weights import claims
from tasks._weights.claims import (
    LIFETIME_S,
    Claim,
    FileState,
    HeldClaim,
    is_free,
    read_claim,
    take_claim,
)
from tasks._weights.layout import claim_key
from tasks.errors import Conflict, Unreachable
from tasks.settings import StoreSettings

MODEL, COMMIT = "acme/tiny", "a" * 40
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(seconds=LIFETIME_S + 1)
FILES = (FileState(path="a.safetensors"),)
DEADLINE_S = 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = FolderStore(StoreSettings(url=tmp_path.as_uri()))
    yield opened
    opened.close()


def taken(store: Store) -> HeldClaim:
    """Return the claim, which must be free."""
    held = take_claim(store, MODEL, COMMIT)
    assert isinstance(held, HeldClaim)
    return held


def claim(process: str, *, held: bool = True, renewed_at: datetime = NOW) -> Claim:
    """Return a claim as it is stored."""
    return Claim(model=MODEL, commit=COMMIT, owner="o", process=process, renewed_at=renewed_at, held=held)


def test_who_comes_second_sees_who_came_first(store: Store) -> None:
    """The second gets the first one's claim, until that is finished."""
    first = taken(store)

    found = take_claim(store, MODEL, COMMIT)
    assert isinstance(found, Claim)
    assert (found.process, found.held) == (this_process(), True)
    first.finish()

    assert read_claim(store, MODEL, COMMIT) is None
    assert taken(store).files == ()


def test_a_block_that_fails_leaves_what_was_done(store: Store) -> None:
    """The next holder goes on from what the last one noted."""
    held = taken(store)

    held.note(FILES)
    with pytest.raises(Unreachable), held.kept():
        raise Unreachable("The Hub is away.")

    assert taken(store).files == FILES


def test_a_block_that_fails_with_nothing_done_leaves_nothing(store: Store) -> None:
    """A refused commit leaves no trace."""
    held = taken(store)

    with pytest.raises(Unreachable), held.kept():
        raise Unreachable("The Hub is away.")

    assert read_claim(store, MODEL, COMMIT) is None


def test_a_claim_is_renewed_while_its_block_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that works long without a word is not taken for dead."""
    monkeypatch.setattr(claims, "RENEW_S", 0.01)
    held = taken(store)
    first = read_claim(store, MODEL, COMMIT)
    assert first

    with held.kept():
        deadline = time.monotonic() + DEADLINE_S
        while (now := read_claim(store, MODEL, COMMIT)) and now.renewed_at == first.renewed_at:
            assert time.monotonic() < deadline


def test_whoever_lost_its_claim_cannot_write_it(store: Store) -> None:
    """A holder that was thought dead finds out at its next writing, and leaves the new holder's claim alone."""
    zombie = taken(store)
    stored = store.get(claim_key(MODEL, COMMIT))
    assert stored
    silent = Claim.from_json(stored[0]).model_copy(update={"renewed_at": NOW})
    store.put_if(claim_key(MODEL, COMMIT), silent.to_json(), expect=stored[1])
    heir = taken(store)

    for act in (zombie.renew, zombie.finish):
        with pytest.raises(Conflict):
            act()
    with pytest.raises(Conflict), zombie.kept():
        zombie.renew()

    heir.renew()


def test_a_claim_that_cannot_be_read_is_nobodys(store: Store) -> None:
    """Somebody wrote over it: it is taken, not trusted."""
    store.put_if(claim_key(MODEL, COMMIT), b"{}", expect=None)

    assert taken(store).files == ()


@pytest.mark.parametrize(
    ("found", "free"),
    [
        pytest.param(claim("other/boot/1/2.00"), False, id="held elsewhere"),
        pytest.param(claim("other/boot/1/2.00", held=False), True, id="let go of"),
        pytest.param(
            claim("other/boot/1/2.00", renewed_at=NOW - timedelta(seconds=LIFETIME_S + 1)), True, id="silent"
        ),
        pytest.param(claim(this_process()), False, id="our own"),
        pytest.param(claim(this_process().rsplit("/", 1)[0] + "/0.00"), True, id="a process that had our id"),
    ],
)
def test_when_a_claim_is_free(found: Claim, free: bool) -> None:
    """Only what its holder let go of, or is known or must be thought dead."""
    assert is_free(found, NOW) == free


@pytest.mark.slow
def test_the_claim_of_a_killed_process_is_free_at_once(store: Store, tmp_path: Path) -> None:
    """On the machine where the holder died nobody waits for its lifetime to pass."""
    script = (
        "import sys; from tasks._stores.folder import FolderStore; from tasks.settings import StoreSettings;"
        "from tasks._weights.claims import take_claim;"
        "take_claim(FolderStore(StoreSettings(url=sys.argv[1])), sys.argv[2], sys.argv[3]);"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, tmp_path.as_uri(), MODEL, COMMIT]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert isinstance(take_claim(store, MODEL, COMMIT), Claim)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()

    taken(store)
