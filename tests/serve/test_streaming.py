"""Weights that nobody hashes are at least looked at."""

from pathlib import Path

import pytest

from serve.manifest import File, WeightsError
from serve.sources import Looked
from serve.streaming import objection, prepare, stream_environment
from tasks._stores.store import Store
from tasks._weights.layout import manifest_key, weights_key
from tests.fakes.commits import MODEL, put_commit, put_object
from tests.fakes.s3_faults import Answer, S3Faults
from tests.serve.nodes import COMMIT, local, manifest

FILES = {"config.json": b"{}", "a.safetensors": b"a" * 100_000, "b.safetensors": b"b" * 1000, "sub/vocab.txt": b"v"}
SMALL = {"config.json": b"{}", "sub/vocab.txt": b"v"}
CRC, OTHER = "AAAAAAAAAAA=", "BBBBBBBBBBA="


@pytest.mark.parametrize(
    ("crc64nvme", "etag", "found", "said"),
    [
        (CRC, '"1"', Looked(9, '"1"', CRC), "has 9 bytes instead of 10"),
        (CRC, '"1"', Looked(10, '"2"', CRC), None),
        (CRC, '"1"', Looked(10, '"1"', OTHER), "has another CRC64NVME than the manifest"),
        (CRC, '"1"', Looked(10, '"1"', None), None),
        (CRC, '"1"', Looked(10, '"2"', None), "is not the object that was mirrored"),
        (None, '"1"', Looked(10, '"1"', CRC), None),
        (None, None, Looked(10, '"1"', CRC), "has no checksum in its manifest"),
        (CRC, None, Looked(10, '"1"', None), "has no checksum in its manifest"),
    ],
)
def test_an_object_is_believed_on_its_checksum_or_its_etag(
    crc64nvme: str | None, etag: str | None, found: Looked, said: str | None
) -> None:
    """A size proves nothing: all checkpoints of one architecture have the same."""
    against = objection(File("a", 10, "0" * 64, crc64nvme, etag), found)

    assert (said is None) == (against is None)
    assert (against or "").startswith(said or "")


def test_the_streamer_finds_the_server_that_boto3_finds() -> None:
    """It knows one variable of boto3's two, and asks for a bucket in the host's name unless told otherwise."""
    s3 = {"AWS_ENDPOINT_URL_S3": "http://s3", "AWS_ENDPOINT_URL": "http://all"}

    assert {} == stream_environment({})
    assert "http://s3" == stream_environment(s3)["AWS_ENDPOINT_URL"]
    assert stream_environment({"AWS_ENDPOINT_URL": "http://all"}) == {
        "AWS_ENDPOINT_URL": "http://all",
        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
    }


def test_a_folder_is_not_streamed_from(stored: Path, cache: Path) -> None:
    """There is no server that vouches for its files."""
    with pytest.raises(
        WeightsError, match=r"streamed from s3:// alone, not from file://.*: leave load_format out\.$"
    ):
        prepare(stored.as_uri(), cache)


@pytest.mark.slow
class TestABucket:
    """SeaweedFS, which keeps CRC64NVME as S3 does."""

    @pytest.fixture
    def url(self, store: Store, faults: S3Faults) -> str:
        """Return the address of a commit."""
        del faults
        put_commit(store, COMMIT, FILES)
        return f"{store.url}/{weights_key(MODEL, COMMIT)}"

    def test_everything_but_the_weights_is_fetched(self, url: str, cache: Path, faults: S3Faults) -> None:
        """Into a folder that nobody takes for a whole copy; of the weights not a byte."""
        folder = prepare(url, cache)

        assert cache / f"{COMMIT}-streamed" == folder
        assert SMALL == local(folder)
        assert [] == faults.asked("GET", "safetensors")
        assert 2 == len(faults.asked("HEAD", "safetensors"))

    @pytest.mark.parametrize(
        ("data", "said"),
        [(b"a" * 99_999, "has 99,999 bytes instead of 100,000"), (b"A" * 100_000, "has another CRC")],
    )
    def test_weights_that_were_replaced_are_refused(
        self, url: str, store: Store, cache: Path, data: bytes, said: str
    ) -> None:
        """By an object of any size."""
        put_object(store, f"{weights_key(MODEL, COMMIT)}/a.safetensors", data)

        with pytest.raises(WeightsError, match=rf"a\.safetensors at {url} {said}"):
            prepare(url, cache)

    def test_weights_that_are_gone_are_named(self, url: str, store: Store, cache: Path) -> None:
        """Before the engine starts."""
        store.remove(f"{weights_key(MODEL, COMMIT)}/b.safetensors")

        with pytest.raises(WeightsError, match=rf"b\.safetensors at {url} is missing\."):
            prepare(url, cache)

    def test_weights_that_nobody_mirrored_are_refused(self, url: str, store: Store, cache: Path) -> None:
        """The streamer would load them with the others: it goes by what lies in the folder."""
        put_object(store, f"{weights_key(MODEL, COMMIT)}/c.safetensors", b"c")

        with pytest.raises(WeightsError, match=rf"c\.safetensors at {url} is not in the manifest"):
            prepare(url, cache)

    def test_a_manifest_without_checksums_is_not_enough(self, url: str, store: Store, cache: Path) -> None:
        """Version 1 has none."""
        store.remove(manifest_key(MODEL, COMMIT))
        store.put_if(manifest_key(MODEL, COMMIT), manifest(FILES, version=1), expect=None)

        with pytest.raises(WeightsError, match=r"a\.safetensors at .* has no checksum in its manifest"):
            prepare(url, cache)

    def test_a_store_that_refuses_the_look_is_named(self, url: str, cache: Path, faults: S3Faults) -> None:
        """A role may be allowed to read and not to list."""
        faults.add(Answer(403, "AccessDenied"), "GET", "list-type=2")

        with pytest.raises(WeightsError, match=rf"The weights at {url} cannot be looked at: .* answered 403"):
            prepare(url, cache)
