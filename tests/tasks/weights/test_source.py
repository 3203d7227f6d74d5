"""A file read once, in order, from a Hub that breaks off: nothing twice, nothing missing."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import stamina

from tasks._weights.hub import HubFile
from tasks._weights.source import Source, read_start
from tasks.errors import IntegrityError, NotFound, Unreachable

DATA = bytes(range(200))
FILE = HubFile(path="a.bin", size=len(DATA), git_sha1="0" * 40)


class BreakingHub:
    """A Hub whose streams each end as told: after so many bytes, with an error or, at None, quietly."""

    def __init__(self, *ends: tuple[int, Exception | None], data: bytes = DATA) -> None:
        self._ends, self._data = iter(ends), data
        self.starts: list[int] = []

    def stream(
        self, _model: str, _commit: str, _path: str, *, start: int = 0, stop: int | None = None
    ) -> Generator[bytes]:
        """Yield pieces of 30 bytes."""
        self.starts.append(start)
        size, error = next(self._ends, (len(self._data), None))
        rest = self._data[start : min(start + size, stop or len(self._data))]
        for at in range(0, len(rest), 30):
            yield rest[at : at + 30]
        if error:
            raise error


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=2):
        yield


def read(hub: Any, most: int = 50) -> bytes:
    """Return the whole file, read in pieces of at most ``most`` bytes."""
    data = bytearray()
    with Source(hub, "acme/tiny", "c", FILE) as source:
        while len(data) < FILE.size:
            piece = bytearray(min(most, FILE.size - len(data)))
            taken = source.read_into(memoryview(piece))
            assert taken > 0
            data += piece[:taken]
        source.end()
    return bytes(data)


@pytest.mark.parametrize("most", [1, 50, 1000])
def test_a_file_comes_in_order(most: int) -> None:
    """Whatever the size of the reader's pieces, one stream is enough."""
    hub = BreakingHub()

    assert read(hub, most) == DATA
    assert hub.starts == [0]


def test_a_broken_stream_is_taken_up_where_it_broke() -> None:
    """An error and a quiet end alike cost a new stream from the next byte."""
    hub = BreakingHub((70, Unreachable("reset")), (50, None), (30, Unreachable("reset")))

    assert read(hub) == DATA
    assert hub.starts == [0, 70, 120, 150]


def test_a_stream_that_gives_nothing_again_and_again_ends_the_reading() -> None:
    """Tries without a byte are bounded."""
    hub = BreakingHub((70, None), (0, None), (0, None), (0, None))

    with pytest.raises(Unreachable):
        read(hub)
    assert hub.starts == [0, 70, 70]


def test_what_no_repetition_helps_is_not_repeated() -> None:
    """A file that is gone is asked for once."""
    hub = BreakingHub((0, NotFound("gone")))

    with pytest.raises(NotFound):
        read(hub)
    assert hub.starts == [0]


def test_a_file_that_goes_on_is_refused() -> None:
    """One byte behind the declared end is one too many."""
    with pytest.raises(IntegrityError, match=r"a\.bin"):
        read(BreakingHub(data=DATA + b"x"))


def test_the_start_of_a_file_survives_a_break() -> None:
    """It is whole, exactly as long as asked for, and taken up where it broke."""
    hub: Any = BreakingHub((40, Unreachable("reset")))

    assert read_start(hub, "acme/tiny", "c", FILE, 100) == DATA[:100]
    assert hub.starts == [0, 40]
