"""What will be moved: nothing that is there, nothing from the Hub that the store can copy, and nothing is trusted."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tasks._stores.store import StoredObject
from tasks._weights.claims import FileState, UploadState
from tasks._weights.hub import HubFile
from tasks._weights.layout import weights_key
from tasks._weights.planning import Plan, plan
from tasks.records import FileEntry, Manifest

MODEL, OLD, NEW = "acme/tiny", "a" * 40, "b" * 40
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARD = HubFile(path="1.safetensors", size=100, sha256="1" * 64)
CONFIG = HubFile(path="config.json", size=10, git_sha1="2" * 40)


def entry(file: HubFile, etag: str | None = '"1"') -> FileEntry:
    """Return the manifest's line of a file."""
    return FileEntry(
        path=file.path, size=file.size, sha256=file.sha256 or "3" * 64, git_sha1=file.git_sha1, etag=etag
    )


def stored(file: HubFile, version: str = '"1"') -> StoredObject:
    """Return the file's object in the folder of the new commit."""
    return StoredObject(f"{weights_key(MODEL, NEW)}/{file.path}", file.size, version, NOW)


def donor(*entries: FileEntry) -> Manifest:
    """Return the manifest of the old commit, which moved 50 bytes per second."""
    return Manifest(
        model=MODEL, commit=OLD, source="https://hub", created_at=NOW, files=entries, seconds=2.0, from_hub=100
    )


def planned(*states: FileState, objects: tuple[StoredObject, ...] = (), donors: tuple[Manifest, ...] = ()) -> Plan:
    """Return the plan for the shard and the configuration."""
    return plan(MODEL, NEW, (SHARD, CONFIG), objects, states, donors)


def test_of_nothing_all_is_fetched() -> None:
    """Everything comes from the Hub, at a rate that nobody knows."""
    done = planned()

    assert (done.fetches, done.copies, done.whole) == ((SHARD, CONFIG), (), ())
    assert (done.to_fetch, done.to_copy, done.there, done.seconds) == (110, 0, 0, None)


def test_whole_files_of_an_earlier_mirror_stay() -> None:
    """What its claim vouches for and the store still has is not moved."""
    done = planned(FileState(path=SHARD.path, entry=entry(SHARD)), objects=(stored(SHARD),))

    assert (done.whole, done.fetches, done.foreign) == ((entry(SHARD),), (CONFIG,), ())
    assert done.there == 100


@pytest.mark.parametrize(
    "found",
    [
        pytest.param((), id="gone"),
        pytest.param((stored(SHARD, '"2"'),), id="another version"),
        pytest.param((replace(stored(SHARD), size=99),), id="another size"),
    ],
)
def test_what_the_store_no_longer_has_is_fetched(found: tuple[StoredObject, ...]) -> None:
    """An object that changed since is removed, not trusted."""
    done = planned(FileState(path=SHARD.path, entry=entry(SHARD)), objects=found)

    assert SHARD in done.fetches
    assert done.foreign == tuple(item.key for item in found)


def test_an_object_that_nobody_vouches_for_is_removed() -> None:
    """It may be anything."""
    done = planned(objects=(stored(SHARD),))

    assert (done.fetches, done.foreign) == ((SHARD, CONFIG), (stored(SHARD).key,))


def test_files_of_another_commit_are_copied_by_either_hash() -> None:
    """Large ones are known by sha256, small ones by git's blob id, wherever they lie; their version is named."""
    other = entry(SHARD.model_copy(update={"path": "moved/2.safetensors"}))
    done = planned(donors=(donor(other, entry(CONFIG)),))

    assert [job.source.key for job in done.copies] == [
        f"{weights_key(MODEL, OLD)}/moved/2.safetensors",
        f"{weights_key(MODEL, OLD)}/config.json",
    ]
    assert [job.source.version for job in done.copies] == ['"1"', '"1"']
    assert (done.to_fetch, done.to_copy) == (0, 110)


@pytest.mark.parametrize(
    "other", [entry(SHARD, None), entry(SHARD).model_copy(update={"sha256": "9" * 64})], ids=["no version", "other"]
)
def test_what_is_not_surely_the_file_is_not_copied(other: FileEntry) -> None:
    """A manifest that tells no version cannot tell whether its object is still the one that was hashed."""
    assert planned(donors=(donor(other),)).copies == ()


def test_what_was_sent_of_a_file_counts() -> None:
    """Of a file on its way only the rest is to come; the rate is that of the last mirror."""
    begun = UploadState(id="u", part_size=10, stored=60, hash_state="00", crc64nvme=0)
    done = planned(FileState(path=SHARD.path, upload=begun), donors=(donor(),))

    assert (done.to_fetch, done.there, done.seconds) == (50, 60, 1.0)
    assert "50 MB" not in done.sentence
    assert "about 1 s" in done.sentence
