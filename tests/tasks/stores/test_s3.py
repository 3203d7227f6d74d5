"""The store against a real S3 server: conditional writes, uploads that stay invisible, and its refusals."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import stamina
from pydantic import SecretStr

from tasks._stores.s3 import PART_SIZE, S3Store, S3Upload
from tasks._stores.store import Store, open_store
from tasks.errors import AccessDenied, BadInput, Conflict, NotFound, Unreachable
from tasks.local import ports
from tasks.settings import StoreSettings
from tests.fakes.s3 import open_uploads


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


@pytest.mark.slow
def test_a_write_whose_reply_was_lost_is_known_again(store: Store) -> None:
    """The second try of a write that had happened finds its own bytes, and counts as won."""

    class ReplyLost(S3Store):
        lost = False

    assert isinstance(store, S3Store)
    put = store._bucket.put

    def lose_first(key: str, data: bytes, expect: str | None, metadata: dict[str, str]) -> str:
        version = put(key, data, expect, metadata)
        if not ReplyLost.lost:
            ReplyLost.lost = True
            raise Unreachable("The reply was lost.")
        return version

    object.__setattr__(store._bucket, "put", lose_first)
    version = store.put_if("record.json", b"mine", expect=None)

    assert store.get("record.json") == (b"mine", version)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 5, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE + 5])
def test_an_upload_is_seen_only_when_complete(store: Store, store_settings: StoreSettings, size: int) -> None:
    """Before `complete` there is nothing; after it, the bytes and the metadata; and nothing stays open."""
    data = bytes(range(256)) * (size // 256 + 1)
    upload = store.open_upload("a/b.bin", size, expect=None, metadata={"sha256": "x"})
    for start in range(0, size, upload.part_size):
        upload.write(data[start : min(size, start + upload.part_size)])
    assert store.head("a/b.bin") is None

    upload.complete()
    upload.abort()

    found, seen = store.get("a/b.bin"), store.head("a/b.bin")
    assert found
    assert seen
    assert found[0] == data[:size]
    assert (seen.size, seen.metadata, seen.version) == (size, {"sha256": "x"}, found[1])
    assert open_uploads(store_settings) == []


@pytest.mark.slow
def test_an_aborted_upload_leaves_nothing(store: Store, store_settings: StoreSettings) -> None:
    """Neither an object nor an open upload is left, though parts were in flight."""
    upload = store.open_upload("a.bin", 3 * PART_SIZE, expect=None, metadata={})
    upload.write(bytes(PART_SIZE))
    upload.write(bytes(PART_SIZE))
    assert open_uploads(store_settings)

    upload.abort()

    assert store.head("a.bin") is None
    assert open_uploads(store_settings) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, PART_SIZE + 1])
def test_an_upload_replaces_only_what_it_was_to(store: Store, size: int) -> None:
    """`complete` over another version than the one named at the start is a conflict, in one part or many."""

    def bring(expect: str | None) -> None:
        upload = store.open_upload("a.bin", size, expect=expect, metadata={})
        for start in range(0, size, upload.part_size):
            upload.write(bytes(min(upload.part_size, size - start)))
        try:
            upload.complete()
        finally:
            upload.abort()

    bring(None)
    with pytest.raises(Conflict):
        bring(None)
    present = store.head("a.bin")
    assert present
    bring(present.version)


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


@pytest.mark.parametrize("url", ["bucket", "s3://", "file:///models", "https://bucket"])
def test_a_url_that_names_no_store_is_bad_input(url: str) -> None:
    """The message quotes it and says what one looks like."""
    with pytest.raises(BadInput, match="s3://bucket/prefix"):
        open_store(StoreSettings(url=url))


def test_one_key_of_two_is_bad_input() -> None:
    """Half a pair of keys cannot sign anything."""
    with pytest.raises(BadInput, match="both keys or none"):
        open_store(StoreSettings(url="s3://bucket", access_key=SecretStr("a")))


@pytest.mark.parametrize("size", [1, 10**9, 10**11, 2 * 10**12])
def test_parts_fit_what_s3_allows(size: int) -> None:
    """Whatever the size, there are at most 10,000 parts of at least 5 MiB and at most 5 GiB."""
    store = open_store(StoreSettings(url="s3://b", access_key=SecretStr("a"), secret_key=SecretStr("b")))
    upload = store.open_upload("a", size, expect=None, metadata={})
    store.close()

    assert isinstance(upload, S3Upload)
    assert 5 * 2**20 <= upload.part_size <= 5 * 2**30
    assert size / upload.part_size <= 10_000
