"""The store as a node reads it, in a folder and in a real bucket."""

from contextlib import closing
from pathlib import Path

import pytest

from serve.manifest import WeightsError
from serve.sources import PIECE_BYTES, S3Source, Source, open_source
from tasks._stores.store import Store
from tests.fakes.commits import put_object
from tests.fakes.s3_faults import Answer, S3Faults, Shorten
from tests.serve.nodes import COMMIT, FILES, entry

DATA = bytes(range(256)) * 10_000
FILE = entry("model.safetensors", DATA)


def taken(source: Source, first: int, last: int, size: int = len(DATA)) -> bytes:
    """Read a range of the file, of which the manifest declares ``size``."""
    with closing(source):
        return b"".join(source.read(FILE.__class__(FILE.path, size, FILE.sha256), first, last))


@pytest.mark.parametrize(
    "url", ["https://host/x", "s3://bucket", "s3:///x", "file://host/x", "file://", "models", ""]
)
def test_what_is_no_store_is_refused(url: str) -> None:
    """Weights come from a bucket's prefix or a folder of this machine."""
    with pytest.raises(WeightsError, match="read from s3://bucket/prefix or file:///folder, not from"):
        open_source(url, 1)


def test_a_folder_may_have_any_name(stored: Path) -> None:
    """Its URL is percent-encoded, as Python and browsers write it."""
    assert " " in str(stored)
    for url in (stored.as_uri(), f"{stored.as_uri()}/", stored.as_uri().replace("file://", "file://localhost")):
        assert FILES["tokenizer.json"] == open_source(url, 1).get("tokenizer.json")


@pytest.mark.parametrize(
    ("first", "last"), [(0, len(DATA)), (1, PIECE_BYTES + 2), (len(DATA) - 1, len(DATA)), (7, 7)]
)
def test_a_range_of_a_file_is_read(tmp_path: Path, first: int, last: int) -> None:
    """First inclusive, last exclusive, wherever a piece ends."""
    (tmp_path / FILE.path).write_bytes(DATA)

    assert DATA[first:last] == taken(open_source(tmp_path.as_uri(), 1), first, last)


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_told_by_any_of_its_ranges(tmp_path: Path, size: int) -> None:
    """A file that goes on behind its declared end would have the right hash up to there."""
    (tmp_path / FILE.path).write_bytes(DATA)

    with pytest.raises(
        WeightsError, match=r"is not what the manifest declares: 2,560,000 bytes in the store instead"
    ):
        taken(open_source(tmp_path.as_uri(), 1), 0, 10, size)


class TestABucket:
    """SeaweedFS, with faults in front of it."""

    pytestmark = pytest.mark.slow

    @pytest.fixture
    def source(self, store: Store, faults: S3Faults) -> Source:
        """Return a commit in the bucket."""
        del faults
        put_object(store, f"models/o/n/{COMMIT}/{FILE.path}", DATA)
        return open_source(f"{store.url}/models/o/n/{COMMIT}", 2)

    def test_ranges_are_read(self, source: Source) -> None:
        """As from a folder."""
        assert DATA[1:-1] == taken(source, 1, len(DATA) - 1)

    @pytest.mark.parametrize(("first", "size"), [(0, len(DATA) - 1), (0, len(DATA) + 1)])
    def test_another_size_is_told(self, source: Source, first: int, size: int) -> None:
        """Every answer to a range names the size of the whole."""
        with pytest.raises(WeightsError, match=r"2,560,000 bytes in the store instead of"):
            taken(source, first, first + 10, size)

    def test_a_range_behind_the_end_says_what_it_means(self, source: Source) -> None:
        """S3 answers 416."""
        with pytest.raises(OSError, match=r"answered 416 \(InvalidRange\): it is shorter than the manifest declares"):
            taken(source, len(DATA), len(DATA) + 10, len(DATA) + 10)

    def test_a_look_tells_size_and_checksum(self, source: Source, store: Store) -> None:
        """What the mirror wrote into the manifest is what a look finds."""
        assert isinstance(source, S3Source)
        with closing(source):
            found = source.look(FILE.path)
            names = source.names()

        known = store.head(f"models/o/n/{COMMIT}/{FILE.path}")
        assert known is not None
        assert (known.size, known.version, known.crc64nvme) == (found.size, found.etag, found.crc64nvme)
        assert found.crc64nvme is not None
        assert {FILE.path} == names

    @pytest.mark.parametrize(
        ("fault", "kind", "said"),
        [
            (Answer(404, "NoSuchKey"), FileNotFoundError, "answered 404"),
            (Answer(403, "AccessDenied"), PermissionError, "answered 403"),
            (Answer(400, "ExpiredToken"), OSError, "answered 400"),
            (Shorten(1000), ConnectionError, "1000"),
        ],
    )
    def test_errors_are_told_apart(
        self, source: Source, faults: S3Faults, fault: Answer | Shorten, kind: type[OSError], said: str
    ) -> None:
        """Only what may pass is a connection's error."""
        faults.add(fault, "GET", FILE.path, times=None)

        with pytest.raises(OSError, match=said) as caught:
            taken(source, 0, 5000)
        assert kind is type(caught.value)

    def test_a_server_that_is_too_busy_for_a_moment_is_asked_again(self, source: Source, faults: S3Faults) -> None:
        """Before the first byte that is boto3's work."""
        faults.add(Answer(503, "SlowDown"), "GET", FILE.path, times=2)

        assert DATA[:10] == taken(source, 0, 10)

    def test_no_server_is_a_connections_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may be starting."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setattr("serve.sources.ASKED", 1)

        with pytest.raises(ConnectionError, match=f"s3://bucket/{COMMIT}/{FILE.path}: "):
            taken(open_source(f"s3://bucket/{COMMIT}", 1), 0, 10)
