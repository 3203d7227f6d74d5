"""Damage of every kind is found and named, and nothing else is called damage."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stamina

from tasks._stores.folder import FolderStore
from tasks._stores.store import Store, StoredObject, open_store
from tasks._weights.layout import manifest_key, weights_key
from tasks._weights.verify import PIECE, READINGS, Damage, judge, verify
from tasks.errors import IntegrityError, NotFound, Unreachable
from tasks.records import FileEntry
from tasks.settings import StoreSettings
from tests.fakes.commits import MODEL, put_commit, put_object
from tests.fakes.s3_faults import Answer, Reset, S3Faults, s3_faults
from tests.fakes.s3_faults import Damage as Flip

COMMIT = "c" * 40
FOLDER = weights_key(MODEL, COMMIT)
SHARD = "model.safetensors"
FILES = {"config.json": b"{}", SHARD: b"weights " * 400_000}
SIZE = sum(len(data) for data in FILES.values())
WRONG = FILES[SHARD][:-1] + b"!"

ENTRY = FileEntry(path="a", size=5, sha256="0" * 64, crc64nvme="AAAAAAAAAAA=", etag="v1")


def stored(size: int = 5, version: str = "v1", crc: str | None = None) -> StoredObject:
    """Return what a store says of an object."""
    return StoredObject("a", size, version, None, crc)  # type: ignore[arg-type]  # nobody asks when


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=2):
        yield


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(None, Damage(path="a", what="is missing"), id="missing"),
        pytest.param(stored(size=4), Damage(path="a", what="has 4 bytes instead of 5"), id="other size"),
        pytest.param(stored(), True, id="version that was written"),
        pytest.param(stored(version="v2"), False, id="other version, no checksum: to be read"),
        pytest.param(stored(version="v2", crc="AAAAAAAAAAA="), True, id="other version, same checksum"),
        pytest.param(
            stored(crc="BAAAAAAAAAA="),
            Damage(path="a", what="has the CRC64NVME BAAAAAAAAAA=, not AAAAAAAAAAA="),
            id="other checksum",
        ),
    ],
)
def test_what_a_store_says_is_damage_or_proof_or_neither(found: StoredObject | None, expected: object) -> None:
    """A checksum decides where both sides know it; a version proves, and never convicts."""
    assert expected == judge(ENTRY, found)


def test_an_old_manifest_without_checksums_proves_nothing() -> None:
    """Version 1 recorded sizes and hashes alone, so its files are to be read."""
    assert judge(ENTRY.model_copy(update={"etag": None, "crc64nvme": None}), stored()) is False


@pytest.mark.parametrize(("deep", "read"), [(False, 0), (True, SIZE)], ids=["quick", "deep"])
def test_an_untouched_commit_is_whole(any_store: Store, deep: bool, read: int) -> None:
    """Quick reads no byte of it, deep every one, and progress ends at all."""
    put_commit(any_store, COMMIT, FILES)
    seen: list[tuple[int, int]] = []

    found = verify(any_store, MODEL, COMMIT, deep=deep, progress=lambda *bytes_: seen.append(bytes_))

    assert found.whole
    assert (2, SIZE, read, (), ()) == (found.files, found.bytes, found.read_bytes, found.damaged, found.unlisted)
    assert seen == sorted(seen)
    assert (SIZE, SIZE) == seen[-1]


@pytest.mark.parametrize("deep", [False, True], ids=["quick", "deep"])
@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        pytest.param(lambda store: store.remove(f"{FOLDER}/{SHARD}"), (SHARD, "is missing"), id="removed"),
        pytest.param(
            lambda store: put_object(store, f"{FOLDER}/{SHARD}", b"short"), (SHARD, "has 5 bytes"), id="truncated"
        ),
        pytest.param(lambda store: put_object(store, f"{FOLDER}/{SHARD}", WRONG), (SHARD, ""), id="overwritten"),
        pytest.param(
            lambda store: overwrite(store, f"{FOLDER}/{SHARD}", WRONG),
            (SHARD, hashlib.sha256(WRONG).hexdigest()),
            id="overwritten without a checksum",
        ),
        pytest.param(lambda store: store.remove(f"{FOLDER}/hash"), ("hash", "is missing"), id="no hash object"),
        pytest.param(
            lambda store: overwrite(store, f"{FOLDER}/hash", b"d" * 40), ("hash", "commit"), id="wrong hash object"
        ),
    ],
)
def test_damage_is_named(
    any_store: Store,
    harm: Callable[[Store], object],
    expected: tuple[str, str],
    deep: bool,
) -> None:
    """Whatever happened to one object, that one is named, with what is wrong, and no other."""
    put_commit(any_store, COMMIT, FILES)
    harm(any_store)

    found = verify(any_store, MODEL, COMMIT, deep=deep)

    assert not found.whole
    assert [expected[0]] == [damage.path for damage in found.damaged]
    assert expected[1] in found.damaged[0].what


def overwrite(store: Store, key: str, data: bytes) -> None:
    """Write other bytes to ``key``, as a tool does that knows no CRC64NVME."""
    present = store.get(key)
    store.put_if(key, data, expect=present[1] if present else None)


def test_a_restored_backup_is_whole(any_store: Store) -> None:
    """Other versions and no checksums, but the same bytes: quick reads those files, and they are as they were."""
    manifest = put_commit(any_store, COMMIT, FILES)
    for path, data in FILES.items():
        overwrite(any_store, f"{FOLDER}/{path}", data)
    before = tuple(file.model_copy(update={"etag": "of another bucket"}) for file in manifest.files)
    overwrite(any_store, manifest_key(MODEL, COMMIT), manifest.model_copy(update={"files": before}).to_json())

    found = verify(any_store, MODEL, COMMIT, deep=False)

    assert found.whole
    assert SIZE == found.read_bytes


@pytest.mark.slow
def test_deep_finds_what_a_folder_does_not_know(folder_store: FolderStore, tmp_path: Path) -> None:
    """A byte that changed in place, size and time as before, is found by reading alone."""
    put_commit(folder_store, COMMIT, FILES)
    file = tmp_path / "store" / FOLDER / SHARD
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(WRONG)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert verify(folder_store, MODEL, COMMIT, deep=False).whole
    assert [SHARD] == [damage.path for damage in verify(folder_store, MODEL, COMMIT, deep=True).damaged]


def test_what_is_not_listed_is_named_but_no_damage(any_store: Store) -> None:
    """An object that somebody laid beside the files is shown; the commit's own papers are not."""
    put_commit(any_store, COMMIT, FILES)
    any_store.put_if(f"{FOLDER}/.manifest.sig", b"signature", expect=None)
    any_store.put_if(f"{FOLDER}/sub/extra.safetensors", b"extra", expect=None)

    found = verify(any_store, MODEL, COMMIT, deep=False)

    assert found.whole
    assert ("sub/extra.safetensors",) == found.unlisted


def test_what_is_not_published_cannot_be_verified(any_store: Store) -> None:
    """No manifest is an error with a remedy, one that makes no sense or is another commit's an integrity error."""
    with pytest.raises(NotFound, match="slipway mirror"):
        verify(any_store, MODEL, COMMIT, deep=False)
    other = put_commit(any_store, "d" * 40)
    version = any_store.put_if(manifest_key(MODEL, COMMIT), other.to_json(), expect=None)
    with pytest.raises(IntegrityError, match=f"that of {MODEL}@d"):
        verify(any_store, MODEL, COMMIT, deep=False)
    any_store.put_if(manifest_key(MODEL, COMMIT), b"{}", expect=version)
    with pytest.raises(IntegrityError, match="cannot be read"):
        verify(any_store, MODEL, COMMIT, deep=False)


@pytest.fixture
def faulty(store: Store, store_settings: StoreSettings) -> Iterator[tuple[Store, S3Faults]]:
    """Return a store that reaches a published commit through a proxy, and the proxy's faults."""
    put_commit(store, COMMIT, FILES)
    with s3_faults(store_settings) as (settings, faults):
        opened = open_store(settings)
        try:
            yield opened, faults
        finally:
            opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Reset(reply=PIECE), Flip(reply=PIECE)], ids=["broken", "damaged"])
def test_trouble_on_the_way_is_no_damage(faulty: tuple[Store, S3Faults], fault: Reset | Flip) -> None:
    """A reading that breaks off, or brings a wrong byte, is done again before anything is said of the file."""
    store, faults = faulty
    faults.add(fault, "GET", SHARD)

    found = verify(store, MODEL, COMMIT, deep=True)

    assert found.whole
    assert 2 == len(faults.asked("GET", SHARD))
    assert SIZE <= found.read_bytes <= 2 * SIZE


@pytest.mark.slow
def test_a_store_that_cannot_be_read_is_no_damage(faulty: tuple[Store, S3Faults]) -> None:
    """Readings are bounded, and their trouble is told as what it is; so is that of the quick look."""
    store, faults = faulty
    faults.add(Reset(reply=PIECE), "GET", SHARD, times=None)
    with pytest.raises(Unreachable):
        verify(store, MODEL, COMMIT, deep=True)
    assert READINGS == len(faults.asked("GET", SHARD))

    faults.clear()
    faults.add(Answer(503, "SlowDown"), "HEAD", SHARD, times=None)
    with pytest.raises(Unreachable):
        verify(store, MODEL, COMMIT, deep=False)
