"""The ledger: no entry can be changed, removed, inserted or cut off without being found."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks._release.ledger import NOTHING, append, entries, verify
from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks.errors import Conflict, IntegrityError
from tasks.records import LedgerHead, Outcome, Progress, ServiceRecord
from tasks.settings import StoreSettings
from tests.fakes.commits import release

AT = datetime(2026, 1, 1, tzinfo=UTC)
FOLDER = "services/chat/ledger"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = FolderStore(StoreSettings(url=tmp_path.as_uri()))
    yield opened
    opened.close()


def ended(number: int, *, later_s: float = 0) -> Progress:
    """Return a release that has ended, or the same with another moment of its end."""
    closed = AT + timedelta(minutes=number, seconds=later_s)
    outcome = Outcome.PROMOTED
    return Progress(release=release("a" * 40, number), run="r", opened_at=AT, closed_at=closed, outcome=outcome)


def written(store: Store, count: int) -> ServiceRecord:
    """Write so many entries, and return the record that knows the last one."""
    head = NOTHING
    for number in range(1, count + 1):
        head, _ = append(store, head, ended(number))
    return ServiceRecord(service="chat", ledger=head)


def replace(store: Store, name: str, how: Callable[[bytes], bytes]) -> None:
    """Write over an entry."""
    there = store.get(f"{FOLDER}/{name}.json")
    assert there
    store.put_if(f"{FOLDER}/{name}.json", how(there[0]), expect=there[1])


def test_each_entry_holds_the_hash_of_the_one_before(store: Store) -> None:
    """They are read back in their order, as they were written."""
    record = written(store, 3)

    assert 3 == verify(store, record)
    assert [1, 2, 3] == [entry.sequence for entry in entries(store, "chat")]
    assert [ended(1), ended(2), ended(3)] == [entry.release for entry in entries(store, "chat")]
    assert NOTHING.sha256 == next(entries(store, "chat")).before


def test_an_empty_ledger_is_whole(store: Store) -> None:
    """Nothing was released yet."""
    assert 0 == verify(store, ServiceRecord(service="chat"))


def test_a_change_is_found_and_named(store: Store) -> None:
    """One word in an old entry breaks the one after it."""
    record = written(store, 3)
    replace(store, "00000001", lambda data: data.replace(b"promoted", b"refused"))

    with pytest.raises(IntegrityError, match="entry 2"):
        verify(store, record)


def test_a_change_of_the_last_entry_is_found(store: Store) -> None:
    """The record knows its hash."""
    record = written(store, 2)
    replace(store, "00000002", lambda data: data.replace(b"promoted", b"refused"))

    with pytest.raises(IntegrityError, match="its end"):
        verify(store, record)


@pytest.mark.parametrize("name", ["00000001", "00000002", "00000003"])
def test_a_missing_entry_is_found(store: Store, name: str) -> None:
    """The first, one in the middle, and the last."""
    record = written(store, 3)
    store.remove(f"{FOLDER}/{name}.json")

    with pytest.raises(IntegrityError):
        verify(store, record)


def test_an_entry_too_many_is_found(store: Store) -> None:
    """Nobody can add a release that the record does not know."""
    record = written(store, 2)
    append(store, record.ledger, ended(3))

    with pytest.raises(IntegrityError, match="its end"):
        verify(store, record)


def test_an_entry_before_the_record_is_that_of_a_release_on_its_way(store: Store) -> None:
    """A run died while it closed it; the next one finishes that."""
    record = written(store, 2)
    append(store, record.ledger, ended(3))
    open_one = ended(3).model_copy(update={"outcome": None, "closed_at": None})

    assert 3 == verify(store, record.model_copy(update={"current": open_one}))


def test_an_entry_of_no_meaning_is_found(store: Store) -> None:
    """It is named by its key."""
    record = written(store, 1)
    replace(store, "00000001", lambda _: b"{}")

    with pytest.raises(IntegrityError, match="00000001"):
        verify(store, record)


def test_a_foreign_object_in_the_ledger_is_found(store: Store) -> None:
    """Whatever its name."""
    record = written(store, 1)
    there = store.get(f"{FOLDER}/00000001.json")
    assert there
    store.put_if(f"{FOLDER}/copy.json", there[0], expect=None)

    with pytest.raises(IntegrityError):
        verify(store, record)


def test_what_a_dead_run_wrote_is_taken_as_it_is(store: Store) -> None:
    """The next one closes the release with the moment that the ledger has."""
    first = append(store, NOTHING, ended(1))

    assert first == append(store, NOTHING, ended(1, later_s=5))
    assert 1 == len(list(entries(store, "chat")))


@pytest.mark.parametrize("head", [NOTHING, LedgerHead(sequence=0, sha256="f" * 64)])
def test_another_release_in_its_place_is_never_written_over(store: Store, head: LedgerHead) -> None:
    """Then another run wrote it, or the record's head is not the ledger's."""
    append(store, NOTHING, ended(1))
    mine = ended(2) if head == NOTHING else ended(1)

    with pytest.raises(Conflict):
        append(store, head, mine)

    assert [ended(1)] == [entry.release for entry in entries(store, "chat")]
