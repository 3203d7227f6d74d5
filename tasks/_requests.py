"""One request of the probe, as it is kept: a frozen line of the journal.

Every request that was started becomes exactly one of these.  ``ok`` is a whole answer by a named release;
``truncated`` one that began and was cut; ``lost`` everything else a client would call a failure.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

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


def read_journal(path: Path) -> tuple[Request, ...]:
    """Return the requests of a probe's journal; a half-written last line of a killed one is dropped.

    Raises ``OSError`` where it cannot be read, ``pydantic.ValidationError`` where a whole line is wrong.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return tuple(Request.from_json(line) for line in lines)
