"""What the probe keeps: frozen lines of its journal, one for each request and one for each second that it ran.

Every request that was started becomes exactly one ``Request``.  ``ok`` is a whole answer by a named release;
``truncated`` one that began and was cut; ``lost`` everything else a client would call a failure; ``wrong``, which
only the receipt can tell, an answer by a release that was not live then.  The beats tell the silence of a
probe that was killed from the quiet of a server.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field, TypeAdapter

from tasks.records import Value


class Kind(StrEnum):
    """How the answer was asked for."""

    STREAM = "stream"
    PLAIN = "plain"


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    LOST = "lost"
    TRUNCATED = "truncated"
    WRONG = "wrong"


class Request(Value):
    """One request of the probe, after its end.

    ``at`` is when it started, UTC.  The other moments are seconds of this machine's monotonic clock:
    ``answered`` is the arrival of the headers, ``first`` and ``last`` that of the first and last token.
    ``longest_gap_s`` is the longest time between two events of a stream.  ``note`` says in one line why the
    request was not ok, or what is odd about one that was.
    """

    id: Annotated[int, Field(ge=0)]
    kind: Kind
    kept_alive: bool
    at: datetime
    started: float
    answered: float | None = None
    first: float | None = None
    last: float | None = None
    ended: float
    release: str | None = None
    commit: str | None = None
    status: int | None = None
    finish_reason: str | None = None
    chunks: int = 0
    longest_gap_s: float = 0.0
    outcome: Outcome
    note: str = ""


class Beat(Value):
    """What the probe did since the beat before; ``first`` where a probe began with it.

    ``due`` plain requests had to be started by the rate, and ``made`` were.  ``asked_s`` is the time that its streams
    should have been open, summed over them, and ``open_s`` the time they were.  ``stall_s`` is the longest time that
    the probe's own loop was late: a gap no longer than that may be the probe's, not the server's.
    """

    at: datetime
    first: bool = False
    due: int = 0
    made: int = 0
    asked_s: float = 0.0
    open_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    stall_s: float = 0.0


@dataclass(frozen=True)
class Lines:
    """What a journal holds, in the order it was written."""

    requests: tuple[Request, ...] = ()
    beats: tuple[Beat, ...] = ()


_LINE: TypeAdapter[Request | Beat] = TypeAdapter(Request | Beat)


def open_journal(path: Path) -> IO[bytes]:
    """Open a journal to be gone on with, without the half-written last line of a killed probe; raises ``OSError``."""
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)
    return path.open("ab", buffering=0)


def read_journal(path: Path) -> Lines:
    """Return the lines of a probe's journal; a half-written last line of a killed one is dropped.

    Raises ``OSError`` where it cannot be read, ``pydantic.ValidationError`` where a whole line is wrong.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    read = [_LINE.validate_json(line) for line in lines]
    return Lines(
        requests=tuple(line for line in read if isinstance(line, Request)),
        beats=tuple(line for line in read if isinstance(line, Beat)),
    )
