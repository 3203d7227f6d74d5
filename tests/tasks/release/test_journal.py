"""The journal: changes by compare-and-swap, applied anew to what came first, and refused to who was fenced off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._release import journal as _journal
from tasks._release.journal import Journal, evidence_key, read_records
from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks.errors import Conflict, IntegrityError, Unreachable
from tasks.records import ServiceRecord
from tasks.settings import StoreSettings
from tests.fakes.commits import on_its_way

KEY = "services/chat/record.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = FolderStore(StoreSettings(url=tmp_path.as_uri()))
    yield opened
    opened.close()


def counted(record: ServiceRecord) -> ServiceRecord:
    """Return the record with its number one higher."""
    return record.model_copy(update={"next_number": record.next_number + 1})


def test_a_service_without_a_record_has_a_fresh_one(store: Store) -> None:
    """To read it writes nothing."""
    assert ServiceRecord(service="chat") == Journal(store, "chat").record
    assert store.get(KEY) is None


def test_two_writers_lose_no_change(store: Store) -> None:
    """Each change is applied to what the other one wrote."""
    one, other = Journal(store, "chat"), Journal(store, "chat")

    for number, journal in enumerate((one, other, other, one)):
        ended = on_its_way("a" * 40, reason=str(number))
        journal.change(lambda record, ended=ended: record.model_copy(update={"past": (*record.past, ended)}))

    assert ["0", "1", "2", "3"] == [past.reason for past in Journal(store, "chat").record.past]


def test_a_change_of_nothing_writes_nothing(store: Store) -> None:
    """The version stays what another writer read."""
    journal = Journal(store, "chat")
    journal.change(counted)
    before = store.get(KEY)

    journal.change(lambda record: record)

    assert before == store.get(KEY)


def test_a_write_whose_answer_was_lost_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises once, as it must; done again it finds its own words."""
    journal, put = Journal(store, "chat"), store.put_if

    def lose(*arguments: Any, **named: Any) -> str:
        put(*arguments, **named)
        raise Unreachable("The store went away.")

    def nine(record: ServiceRecord) -> ServiceRecord:
        return record.model_copy(update={"next_number": 9})

    monkeypatch.setattr(store, "put_if", lose)
    with pytest.raises(Unreachable):
        journal.change(nine)
    monkeypatch.undo()

    assert 9 == journal.change(nine).next_number


def test_a_higher_number_shuts_the_writer_before_out(store: Store) -> None:
    """It is refused by its first write, though what it read is old; asking and answering go on."""
    zombie, heir, asker = Journal(store, "chat"), Journal(store, "chat"), Journal(store, "chat")
    zombie.fence(1)
    heir.fence(2)

    with pytest.raises(Conflict, match="taken chat over"):
        zombie.change(counted)
    asker.change(counted)

    assert (2, 2) == (Journal(store, "chat").record.fence, Journal(store, "chat").record.next_number)
    heir.change(counted)


def test_a_record_that_always_changes_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on the tries, not an endless loop."""
    monkeypatch.setattr(_journal, "ATTEMPTS", 3)
    journal, other = Journal(store, "chat"), Journal(store, "chat")

    def outrun(record: ServiceRecord) -> ServiceRecord:
        other.change(counted)
        return record.model_copy(update={"fence": 5})

    with pytest.raises(Conflict, match="faster"):
        journal.change(outrun)


@pytest.mark.parametrize("data", [b"", b"{", b'{"service": "chat", "version": 3}'])
def test_a_record_that_cannot_be_read_is_never_begun_anew(store: Store, data: bytes) -> None:
    """Nor one that a newer version wrote: what is live would be forgotten."""
    store.put_if(KEY, data, expect=None)

    with pytest.raises(IntegrityError, match=KEY):
        Journal(store, "chat")

    found = store.get(KEY)
    assert found
    assert data == found[0]


def test_a_record_of_version_1_is_read_and_written_as_the_newest(store: Store) -> None:
    """What it lacks is as if nothing had happened yet."""
    store.put_if(KEY, b'{"version": 1, "service": "chat", "next_number": 4}', expect=None)
    journal = Journal(store, "chat")

    assert (1, 4, None) == (journal.record.version, journal.record.next_number, journal.record.waiting)
    assert (2, 5) == (journal.change(counted).version, Journal(store, "chat").record.next_number)


def test_every_service_of_a_store_is_found_by_its_record(store: Store) -> None:
    """Other objects beside the records are not taken for one."""
    for service in ("chat", "mail"):
        Journal(store, service).change(counted)
    store.put_if("services/chat/evidence/chat-r1/record.json", b"{}", expect=None)

    assert ["chat", "mail"] == [record.service for record in read_records(store)]


def test_evidence_of_one_release_at_two_times_lies_apart() -> None:
    """A release that was live, replaced, and live again has two receipts."""
    first = on_its_way("a" * 40)
    again = first.model_copy(update={"opened_at": first.opened_at.replace(year=2027)})

    assert evidence_key(first, "receipt.json") != evidence_key(again, "receipt.json")
    assert evidence_key(first, "receipt.json").startswith("services/chat/evidence/chat-r1-")
