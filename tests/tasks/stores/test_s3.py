"""The store against a real S3 server: conditional writes, uploads that stay invisible, and its refusals."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest
import stamina
from awscrt import checksums
from botocore import exceptions
from pydantic import SecretStr

from tasks._stores import s3_copy
from tasks._stores.s3 import S3Store
from tasks._stores.s3_upload import PART_SIZE, S3Upload, as_text
from tasks._stores.store import Store, StoredObject, Upload, open_store
from tasks.errors import AccessDenied, BadInput, Conflict, IntegrityError, NotFound, Unreachable
from tasks.local import ports
from tasks.settings import StoreSettings
from tests.fakes.s3 import open_uploads
from tests.tasks.stores.contract import Contract


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=2):
        yield


@pytest.mark.slow
def test_put_if_is_compare_and_swap(store: Store) -> None:
    """A write counts only over the version that was read; every write makes a new version."""
    assert store.get("record.json") is None

    first = store.put_if("record.json", b"1", expect=None)
    second = store.put_if("record.json", b"2", expect=first)

    assert store.get("record.json") == (b"2", second)
    for stale in (None, first, '"0"'):
        with pytest.raises(Conflict):
            store.put_if("record.json", b"3", expect=stale)
    assert store.get("record.json") == (b"2", second)


@pytest.mark.slow
def test_of_many_writers_one_wins(store: Store) -> None:
    """Eight writers of different bytes at once: one version, and it is the winner's."""

    def write(number: int) -> int | None:
        try:
            store.put_if("race.json", b"%d" % number, expect=None)
        except Conflict:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(write, range(8)) if number is not None]

    found = store.get("race.json")
    assert len(winners) == 1
    assert found
    assert found[0] == b"%d" % winners[0]


def lose_reply(store: Store, operation: str) -> None:
    """Let the next request of ``operation`` happen, and its reply be lost."""
    assert isinstance(store, S3Store)
    clients, lost = (store._bucket.client, store._bucket.part_client), []

    def lose(**_: Any) -> None:
        if not lost:
            lost.append(operation)
            raise exceptions.ReadTimeoutError(endpoint_url="lost")

    for client in clients:
        client.meta.events.register(f"after-call.s3.{operation}", lose)


def send(upload: Upload, data: bytes, start: int = 0, stop: int | None = None) -> int:
    """Hand over ``data`` in parts, from byte ``start`` up to ``stop``, and return the checksum of the whole."""
    size = upload.part_size
    for at in range(start, len(data) if stop is None else stop, size):
        part = bytearray(data[at : at + size])
        upload.write(part, checksums.crc64nvme(part), lambda: None)
    crc: int = checksums.crc64nvme(data)
    return crc


def bring(store: Store, key: str, data: bytes) -> StoredObject:
    """Upload ``data``, as a mirror does."""
    upload = store.open_upload(key, len(data), metadata={"sha256": "x"})
    return upload.complete(send(upload, data))


def some(size: int) -> bytes:
    """Return bytes that differ from part to part."""
    return random.Random(size).randbytes(size)  # noqa: S311 - filler


@pytest.mark.slow
def test_a_write_whose_reply_was_lost_is_known_again(store: Store) -> None:
    """The second try of a write that had happened finds its own bytes, and counts as won."""
    lose_reply(store, "PutObject")

    version = store.put_if("record.json", b"mine", expect=None)

    assert store.get("record.json") == (b"mine", version)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 2 * PART_SIZE + 5])
def test_an_upload_whose_last_reply_was_lost_is_whole(store: Store, size: int) -> None:
    """The object that the lost reply was about is known by size, metadata and checksum."""
    lose_reply(store, "PutObject" if size < PART_SIZE else "CompleteMultipartUpload")

    stored = bring(store, "a.bin", some(size))

    assert store.head("a.bin") == replace(stored, modified=ANY)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 5, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE + 5])
def test_an_upload_is_seen_only_when_complete(store: Store, store_settings: StoreSettings, size: int) -> None:
    """Before `complete` there is nothing; after it, the bytes, metadata and checksum; and nothing stays open."""
    data = some(size)
    upload = store.open_upload("a/b.bin", size, metadata={"sha256": "x"})
    crc = send(upload, data)
    assert store.head("a/b.bin") is None

    stored = upload.complete(crc)
    upload.abort()

    with store.open("a/b.bin") as stream:
        assert stream.read() == data
    assert store.head("a/b.bin") == replace(stored, modified=ANY)
    assert (stored.size, stored.metadata, stored.crc64nvme) == (size, {"sha256": "x"}, as_text(crc))
    assert open_uploads(store_settings) == []


@pytest.mark.slow
def test_an_aborted_upload_leaves_nothing(store: Store, store_settings: StoreSettings) -> None:
    """Neither an object nor an open upload is left, though parts were in flight, and every buffer came back."""
    back: list[int] = []
    upload = store.open_upload("a.bin", 3 * PART_SIZE, metadata={})
    for number in range(2):
        part = bytearray(PART_SIZE)
        upload.write(part, checksums.crc64nvme(part), lambda number=number: back.append(number))  # type: ignore[misc]
    assert open_uploads(store_settings)

    upload.abort()

    assert sorted(back) == [0, 1]
    assert store.head("a.bin") is None
    assert open_uploads(store_settings) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, PART_SIZE + 1])
def test_an_object_is_never_replaced(store: Store, size: int) -> None:
    """`complete` where there is another object is a conflict, in one part or many; the same object is as good."""
    first = bring(store, "a.bin", some(size))

    upload = store.open_upload("a.bin", size, metadata={"sha256": "y"})
    crc = send(upload, bytes(size))
    with pytest.raises(Conflict):
        upload.complete(crc)
    upload.abort()

    assert store.head("a.bin") == replace(first, modified=ANY)
    assert bring(store, "a.bin", some(size)).version == first.version


@pytest.mark.slow
def test_another_process_goes_on_with_an_upload(store: Store, store_settings: StoreSettings) -> None:
    """Of a suspended upload the stored parts are kept and only the rest is sent."""
    data = some(3 * PART_SIZE + 7)
    first = store.open_upload("a.bin", len(data), metadata={})
    send(first, data, 0, 2 * PART_SIZE)
    first.suspend()
    assert first.stored == 2 * PART_SIZE
    assert [(one.key, one.id) for one in store.open_uploads("")] == [("a.bin", first.id)]

    other = open_store(store_settings)
    upload = other.open_upload("a.bin", len(data), metadata={}, resume=(first.id, first.stored))
    upload.complete(send(upload, data, first.stored))
    other.close()

    found = store.get("a.bin")
    assert found
    assert found[0] == data
    assert open_uploads(store_settings) == []


@pytest.mark.slow
def test_an_upload_that_ended_or_holds_less_is_not_gone_on_with(store: Store) -> None:
    """Neither an aborted upload nor one with fewer parts is taken up, so that nothing is missing in the middle."""
    data = some(3 * PART_SIZE)
    upload = store.open_upload("a.bin", len(data), metadata={})
    send(upload, data, 0, PART_SIZE)
    upload.suspend()

    for kept in (2 * PART_SIZE, PART_SIZE // 2):
        with pytest.raises(NotFound):
            store.open_upload("a.bin", len(data), metadata={}, resume=(upload.id, kept))
    for one in store.open_uploads(""):
        store.drop_upload(one)
        store.drop_upload(one)
    with pytest.raises(NotFound):
        store.open_upload("a.bin", len(data), metadata={}, resume=(upload.id, PART_SIZE))


@pytest.mark.slow
def test_a_part_that_another_writer_changed_is_never_seen(store: Store, store_settings: StoreSettings) -> None:
    """A writer that was thought dead overwrites a stored part: the object has our bytes, or there is none."""
    data = some(2 * PART_SIZE + 1)
    zombie = store.open_upload("a.bin", len(data), metadata={})
    send(zombie, data, 0, PART_SIZE)
    zombie.suspend()
    upload = store.open_upload("a.bin", len(data), metadata={}, resume=(zombie.id, PART_SIZE))
    crc = send(upload, data, PART_SIZE)
    send(zombie, bytes(len(data)), PART_SIZE, 2 * PART_SIZE)
    zombie.suspend()

    with suppress(IntegrityError):
        upload.complete(crc)
    upload.abort()

    found = store.get("a.bin")
    assert found is None or found[0] == data
    assert open_uploads(store_settings) == []


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [2**30, PART_SIZE], ids=["whole", "in parts"])
def test_copies_within_the_store(
    store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """A copy has the bytes of the version asked for; of a version that is gone, or over an object, none is made."""
    monkeypatch.setattr(s3_copy, "LARGEST_AT_ONCE", at_once)
    data = some(2 * PART_SIZE + 5)
    source = bring(store, "a.bin", data)

    copied = store.copy(source, "b.bin")

    found = store.get("b.bin")
    assert copied
    assert found
    assert (copied.size, copied.version, copied.crc64nvme) == (len(data), found[1], source.crc64nvme)
    assert found[0] == data
    assert store.copy(replace(source, version='"0"'), "c.bin") is None
    assert store.copy(replace(source, key="gone.bin"), "c.bin") is None
    with pytest.raises(Conflict):
        store.copy(source, "b.bin")
    assert open_uploads(store_settings) == []


@pytest.mark.slow
def test_lists_and_deletes_a_folder(store: Store) -> None:
    """Only what lies in the folder, at any depth, and not what shares the beginning of its name."""
    for key in ("m/a/1", "m/a/b/2", "m/ab/3"):
        store.put_if(key, b"12", expect=None)

    assert {(item.key, item.size) for item in store.list("m/a")} == {("m/a/1", 2), ("m/a/b/2", 2)}
    assert store.delete("m/a") == 2
    assert [item.key for item in store.list("m")] == ["m/ab/3"]
    assert store.delete("m/a") == 0


@pytest.mark.slow
def test_a_missing_bucket_is_not_found(s3_server: StoreSettings) -> None:
    """Reading, writing and listing name the bucket."""
    store = open_store(s3_server.model_copy(update={"url": "s3://no-such-bucket/x"}))
    for call in (
        lambda: store.get("a"),
        lambda: store.put_if("a", b"", expect=None),
        lambda: list(store.list("a")),
    ):
        with pytest.raises(NotFound, match="no-such-bucket"):
            call()
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_keys_are_denied_and_never_shown(s3_server: StoreSettings, wrong: str) -> None:
    """A wrong key is told as such, without the key."""
    store = open_store(s3_server.model_copy(update={wrong: SecretStr("CANARY")}))
    with pytest.raises(AccessDenied) as caught:
        store.put_if("a", b"", expect=None)
    assert "CANARY" not in f"{caught.value} {caught.value.__cause__}"
    store.close()


def test_a_store_that_is_down_is_unreachable() -> None:
    """Nothing listens: one sentence that names the store, within seconds."""
    endpoint = f"http://{ports.HOST}:{ports.choose()}"
    settings = StoreSettings(
        url="s3://bucket/x", endpoint=endpoint, access_key=SecretStr("a"), secret_key=SecretStr("b")
    )
    store = open_store(settings)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=f"The store at s3://bucket/x on {endpoint} does not answer."):
        store.get("a")
    assert time.monotonic() - begun < 5
    store.close()


@pytest.mark.parametrize("url", ["bucket", "s3://", "file://models", "https://bucket"])
def test_a_url_that_names_no_store_is_bad_input(url: str) -> None:
    """The message quotes it and says what one looks like."""
    with pytest.raises(BadInput, match=r"s3://bucket/prefix|file:///"):
        open_store(StoreSettings(url=url))


def test_one_key_of_two_is_bad_input() -> None:
    """Half a pair of keys cannot sign anything."""
    with pytest.raises(BadInput, match="both keys or none"):
        open_store(StoreSettings(url="s3://bucket", access_key=SecretStr("a")))


@pytest.mark.parametrize("size", [1, 10**9, 10**11, 2 * 10**12])
def test_parts_fit_what_s3_allows(size: int) -> None:
    """Whatever the size, there are at most 10,000 parts of at least 5 MiB and at most 5 GiB."""
    store = open_store(StoreSettings(url="s3://b", access_key=SecretStr("a"), secret_key=SecretStr("b")))
    upload = store.open_upload("a", size, metadata={})
    store.close()

    assert isinstance(upload, S3Upload)
    assert 5 * 2**20 <= upload.part_size <= 5 * 2**30
    assert size / upload.part_size <= 10_000


@pytest.mark.slow
class TestS3(Contract):
    """The contract of every store."""
