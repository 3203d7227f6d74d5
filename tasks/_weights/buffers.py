"""The memory of parts on their way: bounded, whatever the model's size, and used again.

A new buffer of some megabytes costs a page fault for every 4 KiB of it, a quarter of a second per gigabyte; one
that was used before costs nothing.
"""

from threading import Condition


class Buffers:
    """Buffers of ``most`` bytes together; for several threads."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._spare: list[bytearray] = []
        self._returned = Condition()

    def take(self, size: int) -> bytearray:
        """Return a buffer of exactly ``size`` bytes, whatever they hold, waiting until there is room for it.

        One that is larger than all together may be had alone.
        """
        with self._returned:
            self._returned.wait_for(lambda: self._left >= size or self._left == self._most)
            self._left -= size
            spare = self._spare.pop() if self._spare else None
        return spare if spare is not None and len(spare) == size else bytearray(size)

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back."""
        with self._returned:
            self._left += len(buffer)
            if not self._spare or len(self._spare[-1]) == len(buffer):
                self._spare.append(buffer)
            self._returned.notify_all()
