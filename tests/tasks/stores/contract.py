"""What every store promises, as tests: a store's own tests subclass ``Contract`` and give it a fixture ``store``."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from awscrt.checksums import crc64nvme

from tasks._stores.store import OpenUpload, Store, Upload
from tasks.errors import Conflict, IntegrityError, NotFound


def some_bytes(size: int) -> bytes:
    """Return bytes of which no two parts are alike."""
    return b"".join(number.to_bytes(8) for number in range(size // 8 + 1))[:size]


def send(upload: Upload, data: bytes, *, start: int = 0) -> list[int]:
    """Hand ``data`` from byte ``start`` over in parts, and return how often ``sent`` was called for each."""
    calls: list[int] = []
    for number, at in enumerate(range(start, len(data), upload.part_size)):
        part = bytearray(data[at : at + upload.part_size])
        calls.append(0)

        def sent(number: int = number) -> None:
            calls[number] += 1

        upload.write(part, crc64nvme(part), sent)
    return calls


def bring(store: Store, key: str, data: bytes) -> None:
    """Store ``data`` by an upload."""
    upload = store.open_upload(key, len(data), metadata={})
    try:
        send(upload, data)
        upload.complete(crc64nvme(data))
    finally:
        upload.abort()


def content(store: Store, key: str) -> bytes:
    """Return all bytes of an object."""
    with store.open(key) as stream:
        return stream.read()


class Contract:
    """Tests that hold for every store; ``store`` is empty at the beginning of each."""

    @pytest.fixture
    def part_size(self, store: Store) -> int:
        """Return the bytes of a part."""
        return store.open_upload("size", 1, metadata={}).part_size

    @pytest.fixture(autouse=True)
    def _nothing_left(self, store: Store) -> Iterator[None]:
        yield
        assert [] == list(store.open_uploads(""))

    def test_put_if_is_compare_and_swap(self, store: Store) -> None:
        """A write counts only over the version that was read; every write makes a new version."""
        assert store.get("record.json") is None

        first = store.put_if("record.json", b"1", expect=None)
        second = store.put_if("record.json", b"2", expect=first)

        assert (b"2", second) == store.get("record.json")
        for stale in (None, first, '"0"'):
            with pytest.raises(Conflict):
                store.put_if("record.json", b"3", expect=stale)
        assert (b"2", second) == store.get("record.json")

    def test_nothing_can_be_expected_where_nothing_is(self, store: Store) -> None:
        """A write over a version of an object that was removed is a conflict and makes none."""
        version = store.put_if("a/record.json", b"1", expect=None)
        store.remove("a/record.json")

        with pytest.raises(Conflict):
            store.put_if("a/record.json", b"2", expect=version)

        assert store.get("a/record.json") is None

    def test_of_many_writers_one_wins(self, store: Store) -> None:
        """Eight writers of different bytes at once, to a new object and over an old one: each time one version."""
        version = None
        for numbers in (range(8), range(8, 16)):

            def write(number: int, expect: str | None = version) -> tuple[bytes, str] | None:
                data = b"%d" % number
                try:
                    return data, store.put_if("race.json", data, expect=expect)
                except Conflict:
                    return None

            with ThreadPoolExecutor(8) as pool:
                won = [found for found in pool.map(write, numbers) if found]

            assert [store.get("race.json")] == won
            version = won[0][1]

    def test_an_object_is_told_alike_everywhere(self, store: Store) -> None:
        """Reading, asking and listing agree on version, size and time."""
        version = store.put_if("a/b.json", b"12345", expect=None)

        head = store.head("a/b.json")
        assert head
        assert ("a/b.json", 5, version) == (head.key, head.size, head.version)
        assert abs(datetime.now(UTC) - head.modified) < timedelta(minutes=1)
        assert [(head.key, head.size, head.version)] == [(o.key, o.size, o.version) for o in store.list("a")]
        assert b"12345" == content(store, "a/b.json")

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        """A folder is no object, nor is something below one or beside it; opening says so."""
        store.put_if("a/b", b"1", expect=None)

        for key in ("a", "a/b/c", "a/x", "x/y"):
            assert store.get(key) is None
            assert store.head(key) is None
            store.remove(key)
            with pytest.raises(NotFound, match=key):
                content(store, key)
        assert ["a/b"] == [item.key for item in store.list("")]

    @pytest.mark.parametrize("parts", [0, 0.5, 1, 1.5, 3])
    def test_an_upload_is_seen_only_when_complete(self, store: Store, part_size: int, parts: float) -> None:
        """Before `complete` there is nothing; after it all bytes, their checksum, and nothing else is left."""
        data = some_bytes(int(parts * part_size))
        upload = store.open_upload("a/b.bin", len(data), metadata={})
        calls = send(upload, data)
        assert store.head("a/b.bin") is None
        assert [] == list(store.list(""))

        stored = upload.complete(crc64nvme(data))
        upload.abort()

        head = store.head("a/b.bin")
        assert head
        assert (len(data), head.version) == (stored.size, stored.version)
        assert stored.crc64nvme
        assert head.crc64nvme in {None, stored.crc64nvme}
        assert data == content(store, "a/b.bin")
        assert [1] * len(calls) == calls

    @pytest.mark.parametrize("parts", [0.5, 2])
    def test_wrong_bytes_are_not_published(self, store: Store, part_size: int, parts: float) -> None:
        """A checksum of the whole that is not that of the parts ends the upload without an object."""
        data = some_bytes(int(parts * part_size))
        upload = store.open_upload("a.bin", len(data), metadata={})
        send(upload, data)

        with pytest.raises(IntegrityError):
            upload.complete(crc64nvme(data[1:]))
        upload.abort()

        assert store.head("a.bin") is None

    @pytest.mark.parametrize("parts", [0.5, 2])
    def test_an_upload_replaces_nothing(self, store: Store, part_size: int, parts: float) -> None:
        """`complete` where an object is already is a conflict, and the object stays as it is."""
        data = some_bytes(int(parts * part_size))
        store.put_if("a.bin", b"first", expect=None)

        with pytest.raises(Conflict):
            bring(store, "a.bin", data)

        assert b"first" == content(store, "a.bin")

    def test_an_aborted_upload_leaves_nothing(self, store: Store, part_size: int) -> None:
        """Neither an object nor an open upload is left, though parts were on their way."""
        upload = store.open_upload("a/b.bin", 3 * part_size, metadata={})
        send(upload, bytes(2 * part_size))
        assert ["a/b.bin"] == [found.key for found in store.open_uploads("a")]

        upload.abort()
        upload.abort()

        assert [] == list(store.open_uploads("a"))
        assert [] == list(store.list(""))

    def test_an_upload_goes_on_where_another_left_it(self, store: Store, part_size: int) -> None:
        """What was stored counts, what came after it is sent again, and the object is whole."""
        data = some_bytes(3 * part_size + 5)
        first = store.open_upload("a/b.bin", len(data), metadata={})
        send(first, data[: 2 * part_size])
        first.suspend()
        assert 2 * part_size == first.stored
        assert [("a/b.bin", first.id)] == [(found.key, found.id) for found in store.open_uploads("")]

        second = store.open_upload("a/b.bin", len(data), metadata={}, resume=(first.id, part_size))
        assert (first.id, part_size) == (second.id, second.stored)
        send(second, data, start=part_size)
        second.complete(crc64nvme(data))

        assert data == content(store, "a/b.bin")

    def test_an_upload_that_ended_or_holds_less_is_not_found(self, store: Store, part_size: int) -> None:
        """Nobody goes on with what was never begun, holds fewer parts, was dropped or completed."""
        data = some_bytes(2 * part_size)

        def go_on(upload: str, kept: int) -> None:
            with pytest.raises(NotFound):
                store.open_upload("a.bin", len(data), metadata={}, resume=(upload, kept))

        first = store.open_upload("a.bin", len(data), metadata={})
        send(first, data[:part_size])
        first.suspend()
        go_on("0" * 32, part_size)
        go_on(first.id, 2 * part_size)
        store.drop_upload(OpenUpload("a.bin", first.id, datetime.now(UTC)))
        go_on(first.id, part_size)

        whole = store.open_upload("a.bin", len(data), metadata={})
        send(whole, data)
        ended = whole.id
        whole.complete(crc64nvme(data))
        go_on(ended, part_size)

    def test_uploads_of_a_folder_are_found_and_dropped(self, store: Store, part_size: int) -> None:
        """Those under the folder alone, with their time; to drop one twice does no harm."""
        for key in ("m/a/1", "m/ab/2"):
            upload = store.open_upload(key, 2 * part_size, metadata={})
            send(upload, bytes(part_size))
            upload.suspend()

        found = list(store.open_uploads("m/a"))
        assert ["m/a/1"] == [upload.key for upload in found]
        assert abs(datetime.now(UTC) - found[0].begun_at) < timedelta(minutes=1)
        for upload in (*store.open_uploads(""), *found):
            store.drop_upload(upload)

    def test_lists_and_deletes_a_folder(self, store: Store) -> None:
        """Only what lies in the folder, at any depth, and not what shares the beginning of its name."""
        for key in ("m/a/1", "m/a/b/2", "m/ab/3"):
            store.put_if(key, b"12", expect=None)

        assert {("m/a/1", 2), ("m/a/b/2", 2)} == {(item.key, item.size) for item in store.list("m/a")}
        assert 2 == store.delete("m/a")
        assert ["m/ab/3"] == [item.key for item in store.list("m")]
        assert 0 == store.delete("m/a")
        assert 1 == store.delete("")
        assert [] == list(store.list(""))

    def test_removes_one_object(self, store: Store) -> None:
        """The others stay, and a removed one can be written anew."""
        for key in ("a/1", "a/2"):
            store.put_if(key, b"1", expect=None)

        store.remove("a/1")
        store.remove("a/1")
        assert ["a/2"] == [item.key for item in store.list("")]

        version = store.put_if("a/1", b"2", expect=None)
        assert (b"2", version) == store.get("a/1")

    def test_copies_an_object(self, store: Store, part_size: int) -> None:
        """The copy has the same bytes, and keeps them when its source is removed."""
        data = some_bytes(2 * part_size)
        bring(store, "a/1.bin", data)
        source = store.head("a/1.bin")
        assert source

        copied = store.copy(source, "b/c/2.bin")
        store.remove("a/1.bin")

        assert copied
        head = store.head("b/c/2.bin")
        assert head
        assert ("b/c/2.bin", len(data), head.version) == (copied.key, copied.size, copied.version)
        assert data == content(store, "b/c/2.bin")

    def test_copies_only_what_is_still_there_and_over_nothing(self, store: Store) -> None:
        """A source that changed or is gone gives nothing, and an object at the new key stays."""
        version = store.put_if("a", b"1", expect=None)
        source = store.head("a")
        assert source
        store.put_if("b", b"2", expect=None)

        with pytest.raises(Conflict):
            store.copy(source, "b")
        store.put_if("a", b"3", expect=version)
        assert store.copy(source, "c") is None
        store.remove("a")
        assert store.copy(source, "c") is None

        assert b"2" == content(store, "b")
        assert store.head("c") is None
