"""Files on their way: every byte once, in any order, and nothing half done under a final name."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve import download as downloads
from serve.download import LeaseLost, download, in_order
from serve.manifest import File, WeightsError
from serve.sources import FolderSource
from tests.serve.nodes import FILES, entry, local

LISTED = [entry(path, data) for path, data in FILES.items()]
Pieces = Callable[[Iterator[bytes]], Iterator[bytes]]


class Frail(FolderSource):
    """A folder whose streams end as a test says; ``asked`` are the ranges it was asked for."""

    def __init__(self, root: Path, fault: Pieces = iter) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, int, int]] = []
        self._fault = fault

    def read(self, file: File, first: int, last: int) -> Iterator[bytes]:
        """Note what is asked for, and go wrong."""
        self.asked.append((file.path, first, last))
        yield from self._fault(super().read(file, first, last))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSE_S", 0.0)
    monkeypatch.setattr(downloads, "LOOK_S", 0.01)
    monkeypatch.setattr("serve.sources.PIECE_BYTES", 10_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the files go."""
    (tmp_path / "cache" / "commit").mkdir(parents=True)
    return tmp_path / "cache" / "commit"


def run(source: FolderSource, folder: Path, files: list[File] = LISTED, lost: Event | None = None) -> list[str]:
    """Download, and return what was reported whole and how much was fetched."""
    whole: list[str] = []
    with closing(source):
        download(
            source,
            folder,
            files,
            lost=lost or Event(),
            fetched=lambda _: None,
            whole=lambda file: whole.append(file.path),
        )
    return sorted(whole)


def once(fault: Pieces) -> Pieces:
    """Return a fault of the first stream alone."""
    first = itertools.count()
    guard = threading.Lock()

    def streams(pieces: Iterator[bytes]) -> Iterator[bytes]:
        with guard:
            number = next(first)
        return pieces if number else fault(pieces)

    return streams


def breaking(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield one piece and break."""
    yield next(pieces)
    raise ConnectionResetError("reset by peer")


def dumb(_: Iterator[bytes]) -> Iterator[bytes]:
    """Break before the first piece."""
    raise ConnectionResetError("reset by peer")
    yield b""


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(1, 4), st.integers(10, 50))
def test_every_byte_is_asked_for_once(sizes: list[int], together: int, size: int) -> None:
    """And those of a file from its beginning on, or its hash would wait; of at most so many files side by side."""
    files = [File(str(number), length, "") for number, length in enumerate(sizes)]
    order = in_order(files, together, size)

    spans = []
    for file in files:
        places = [place for place, each in enumerate(order) if each.file.path == file.path]
        ranges = [order[place] for place in places]
        assert list(range(0, max(file.size, 1), size)) == [each.first for each in ranges]
        assert [*(each.first for each in ranges[1:]), file.size] == [each.last for each in ranges]
        spans.append(range(places[0], places[-1] + 1))
    assert together >= max((sum(place in span for span in spans) for place in range(len(order))), default=0)


def test_large_files_come_first() -> None:
    """One core hashes one file, so that the last should be small."""
    assert ["c", "b", "a"] == [each.file.path for each in in_order([File(n, ord(n), "") for n in "abc"], 1, 100)]


@pytest.mark.parametrize("range_bytes", [1_000_000, 30_000, 7_777])
def test_files_arrive_whole_from_any_ranges(
    stored: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int
) -> None:
    """However many of them a file has, the hash finds them in order."""
    monkeypatch.setattr(downloads, "RANGE_BYTES", range_bytes)
    source = Frail(stored)

    assert sorted(FILES) == run(source, folder)
    assert FILES == local(folder)
    assert len(source.asked) == len(set(source.asked)) >= 200_000 // range_bytes


def test_a_stream_that_breaks_is_gone_on_with_where_it_broke(stored: Path, folder: Path) -> None:
    """What has arrived is not asked for twice, however often a long file breaks."""
    source = Frail(stored, breaking)

    assert ["model-1.safetensors"] == run(source, folder, LISTED[1:2])
    assert [first for _, first, _ in source.asked] == list(range(0, 200_000, 10_000))


def test_a_stream_that_ends_early_is_gone_on_with(stored: Path, folder: Path) -> None:
    """A server may close a connection without a word."""
    source = Frail(stored, once(lambda pieces: itertools.islice(pieces, 3)))

    assert ["model-1.safetensors"] == run(source, folder, LISTED[1:2])
    assert [0, 30_000] == [first for _, first, _ in source.asked]


def test_a_store_that_gives_nothing_is_given_up(stored: Path, folder: Path) -> None:
    """After the last attempt the error says why, and nothing is left."""
    source = Frail(stored, dumb)

    with pytest.raises(WeightsError, match=r"The store broke off 4 times: reset by peer\."):
        run(source, folder, LISTED[1:2])
    assert downloads.ATTEMPTS == len(source.asked)
    assert {} == local(folder)


@pytest.mark.parametrize("wrong", [b"v" + b"w" * 199_999, b"w" * 199_999 + b"v"])
def test_wrong_bytes_never_get_their_name(stored: Path, folder: Path, wrong: bytes) -> None:
    """The error names the file and both hashes; the others may be whole already."""
    (stored / "model-1.safetensors").write_bytes(wrong)

    with pytest.raises(WeightsError, match=r"model-1\.safetensors is not what the manifest declares") as caught:
        run(FolderSource(stored), folder)

    assert LISTED[1].sha256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert local(folder).items() <= {path: FILES[path] for path in FILES if path != "model-1.safetensors"}.items()


def test_a_lost_lease_ends_the_work(stored: Path, folder: Path) -> None:
    """Whoever took over must not find a second one at work; not even a store that is silent delays that."""
    lost, silent = Event(), Event()

    def stalled(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield next(pieces)
        lost.set()
        silent.wait(10)
        yield from pieces

    try:
        with pytest.raises(LeaseLost):
            run(Frail(stored, stalled), folder, LISTED[1:2], lost)
        assert {} == local(folder)
    finally:
        silent.set()


def test_a_cache_that_cannot_be_written_to_is_named(stored: Path, folder: Path) -> None:
    """A file stands where a folder belongs."""
    (folder / "sub").write_bytes(b"")

    with pytest.raises(WeightsError, match=rf"The cache {folder.parent} cannot be written to: "):
        run(FolderSource(stored), folder)
