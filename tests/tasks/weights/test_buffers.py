"""The memory of parts: bounded, exact in size, and used again."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from tasks._weights.buffers import Buffers

DEADLINE_S = 10


def test_a_buffer_is_used_again() -> None:
    """What was given back is taken before anything new is made."""
    buffers = Buffers(100)
    first = buffers.take(40)
    buffers.give(first)

    assert buffers.take(40) is first
    assert len(buffers.take(10)) == 10


def test_who_asks_for_more_than_there_is_waits() -> None:
    """A third buffer is had only once another came back."""
    buffers, asked = Buffers(100), Event()
    first, _ = buffers.take(50), buffers.take(50)

    def ask() -> bytearray:
        asked.set()
        return buffers.take(50)

    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(ask)
        assert asked.wait(DEADLINE_S)
        assert not third.done()
        buffers.give(first)
        assert third.result(DEADLINE_S) is first


def test_one_that_is_larger_than_all_may_be_had_alone() -> None:
    """A part of a huge file does not wait for ever."""
    buffers = Buffers(100)

    assert len(buffers.take(500)) == 500
