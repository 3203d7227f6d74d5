"""A file of a Hub to be read once, in order: a stream that broke is taken up again where it broke."""

import logging
from collections.abc import Generator
from typing import Self

from tasks._retry import attempts
from tasks._weights.hub import Hub, HubFile
from tasks.errors import IntegrityError, TransientError, Unreachable

POOR_STREAMS = 5
ENOUGH_BYTES = 2**18
"""So many streams in a row that broke after fewer bytes than this end the reading: a Hub that trickles gives each
of them something, and would never run out of tries."""

log = logging.getLogger(__name__)


class Source:
    """The bytes of ``file`` from byte ``start`` on; a context manager that ends its stream."""

    def __init__(self, hub: Hub, model: str, commit: str, file: HubFile, start: int = 0) -> None:
        self._hub, self._model, self._commit, self._file = hub, model, commit, file
        self._at = start
        self._stream: Generator[bytes] | None = None
        self._rest = memoryview(b"")
        self._begun_at = start
        self._poor = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def read_into(self, view: memoryview) -> int:
        """Put the next bytes into ``view`` and return how many, at least one.

        Attempts are counted until a byte arrives, so that a long file may break more often than a short one.
        Raises ``Unreachable`` when none helped.
        """
        if not self._rest and not self._flows():
            for attempt in attempts():
                with attempt:
                    self._begin()
        taken = min(len(view), len(self._rest))
        view[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        self._at += taken
        return taken

    def end(self) -> None:
        """Raise ``IntegrityError`` when the Hub goes on beyond the declared size."""
        if self._rest or self._goes_on():
            file = self._file
            raise IntegrityError(f"{file.path} is longer than the {file.size:,} bytes that the Hub declares.")

    def _flows(self) -> bool:
        """Say whether the stream that is open, if any, gave more bytes."""
        self._rest = memoryview(b"")  # lets go of the last piece before the next one is there
        try:
            self._rest = memoryview(next(self._stream or iter(()), b""))
        except TransientError as error:
            self._poor = 0 if self._at - self._begun_at >= ENOUGH_BYTES else self._poor + 1
            if self._poor == POOR_STREAMS:
                raise
            log.info("%s Taking up %s from byte %d.", error, self._file.path, self._at)
        if not self._rest:
            self._stream = None
        return self._stream is not None

    def _begin(self) -> None:
        self._begun_at = self._at
        self._stream = self._hub.stream(self._model, self._commit, self._file.path, start=self._at)
        self._rest = memoryview(next(self._stream, b""))
        if not self._rest:
            raise Unreachable("The Hub ended a file before its declared size.", remedy="Try again later.")

    def _goes_on(self) -> bool:
        try:
            return self._stream is not None and next(self._stream, None) is not None
        except TransientError:
            return False  # it broke, but behind the last byte


def read_start(hub: Hub, model: str, commit: str, file: HubFile, size: int) -> bytes:
    """Return the first ``size`` bytes of a file, in one request where nothing breaks."""
    data = bytearray()
    for attempt in attempts():
        with attempt:
            for piece in hub.stream(model, commit, file.path, start=len(data), stop=size):
                data += piece
                if len(data) >= size:
                    return bytes(data[:size])
            raise Unreachable("The Hub ended a file before its declared size.", remedy="Try again later.")
    raise AssertionError  # the last attempt has returned or raised
