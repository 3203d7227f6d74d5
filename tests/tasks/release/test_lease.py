"""The lease on a service: one holder, taken over from the dead and the silent with a higher number."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks._processes import this_process
from tasks._release import lease as _lease
from tasks._release.lease import LIFETIME_S, HeldLease, Lease, is_free, read_lease, take_lease
from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks.errors import Conflict, Unreachable
from tasks.settings import StoreSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "services/chat/lease.json"
ELSEWHERE = "other/boot/1/2.00"
DEADLINE_S = 10


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = FolderStore(StoreSettings(url=tmp_path.as_uri()))
    yield opened
    opened.close()


def taken(store: Store, run: str = "a", *, above: int = 0) -> HeldLease:
    """Return the lease, which must be free."""
    held = take_lease(store, "chat", run, above=above)
    assert isinstance(held, HeldLease)
    return held


def lease(**fields: Any) -> Lease:
    """Return a lease as it is stored."""
    usual = {"service": "chat", "fence": 7, "run": "a", "process": ELSEWHERE, "renewed_at": NOW, "held": True}
    return Lease(**{**usual, **fields})


def write(store: Store, found: Lease) -> None:
    """Write a lease over whatever there is."""
    there = store.get(KEY)
    store.put_if(KEY, found.to_json(), expect=there[1] if there else None)


class Forgetful:
    """A store that writes, and then does not answer, as often as it is told to."""

    def __init__(self, store: Store) -> None:
        self._store, self.lost = store, 0

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write, and answer or not."""
        version = self._store.put_if(key, data, expect=expect)
        if self.lost:
            self.lost -= 1
            raise Unreachable("The store went away.")
        return version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_who_comes_second_is_told_who_holds_it(store: Store) -> None:
    """The first one's run and process are named, and its number stays."""
    first = taken(store)

    found = take_lease(store, "chat", "b", above=0)

    assert isinstance(found, Lease)
    assert ("a", this_process(), first.fence) == (found.run, found.process, found.fence)


def test_a_lease_that_was_let_go_of_is_taken_with_a_higher_number(store: Store) -> None:
    """Nobody waits for its end."""
    first = taken(store)
    with first.kept():
        pass

    assert first.fence + 1 == taken(store, "b").fence


def test_a_lease_never_begins_to_count_anew(store: Store) -> None:
    """The record knows a higher number than a lease that was lost, or that cannot be read."""
    assert 42 == taken(store, above=41).fence

    there = store.get(KEY)
    assert there
    store.put_if(KEY, b"{}", expect=there[1])

    assert 43 == taken(store, above=42).fence


def test_whoever_lost_the_lease_cannot_renew_it(store: Store) -> None:
    """A holder that was silent for too long finds out, and leaves the heir's lease alone."""
    zombie = taken(store)
    write(store, lease(fence=zombie.fence))
    heir = taken(store, "b")
    there = read_lease(store, "chat")

    with pytest.raises(Conflict, match="taken chat over"):
        zombie.renew()
    with zombie.kept():
        pass

    assert there == read_lease(store, "chat")
    assert zombie.fence + 1 == heir.fence
    heir.renew()


def test_a_renewal_whose_answer_was_lost_does_not_lose_the_lease(store: Store) -> None:
    """What stands there bears our own number, which nobody else ever has."""
    forgetful: Any = Forgetful(store)
    held = taken(forgetful)
    forgetful.lost = 1
    with pytest.raises(Unreachable):
        held.renew()

    held.renew()

    found = read_lease(store, "chat")
    assert found
    assert (held.fence, True) == (found.fence, found.held)


def test_a_lease_is_renewed_while_its_block_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes long is not taken for dead, and a store that is away for a moment changes nothing."""
    monkeypatch.setattr(_lease, "RENEW_S", 0.01)
    forgetful: Any = Forgetful(store)
    held = taken(forgetful)
    first = read_lease(store, "chat")
    assert first
    forgetful.lost = 1

    with held.kept():
        deadline = time.monotonic() + DEADLINE_S
        while forgetful.lost or ((now := read_lease(store, "chat")) and now.renewed_at == first.renewed_at):
            assert time.monotonic() < deadline

    last = read_lease(store, "chat")
    assert last
    assert not last.held


def test_a_service_that_nobody_released_has_no_lease(store: Store) -> None:
    """To ask is no reason to make one."""
    assert read_lease(store, "chat") is None


@pytest.mark.parametrize(
    ("found", "free"),
    [
        pytest.param(lease(), False, id="held elsewhere"),
        pytest.param(lease(held=False), True, id="let go of"),
        pytest.param(lease(renewed_at=NOW - timedelta(seconds=LIFETIME_S)), False, id="at its very end"),
        pytest.param(lease(renewed_at=NOW - timedelta(seconds=LIFETIME_S + 1)), True, id="silent"),
        pytest.param(lease(process=this_process()), False, id="our own"),
        pytest.param(lease(process=this_process().rsplit("/", 1)[0] + "/0.00"), True, id="of one that had our id"),
    ],
)
def test_when_a_lease_is_free(found: Lease, free: bool) -> None:
    """A death on this machine counts at once, one elsewhere after the lifetime."""
    assert free is is_free(found, NOW)
