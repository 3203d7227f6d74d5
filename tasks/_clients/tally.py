"""What the probe has counted so far, read from its journal while it is written: for a person who watches a release.

Only where the journal is: on the machine that the release's run is on.  The receipt, which judges, comes at the end.
"""

from collections import Counter, deque
from datetime import timedelta
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from tasks._clients.requests import Beat, Outcome, Request
from tasks._release.journal import evidence_name
from tasks.records import Progress, Value

LATELY = timedelta(seconds=10)
"""The time over which the share of each release is counted."""
_LINE: TypeAdapter[Request | Beat] = TypeAdapter(Request | Beat)


class Counted(Value):
    """Requests that have ended, and streams that are open; ``lately`` counts the last answers by release."""

    requests: int = 0
    lost: int = 0
    truncated: int = 0
    streams_open: int = 0
    lately: dict[str, int] = Field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """Return the percent of the last answers that each release gave."""
        every = sum(self.lately.values())
        return {release: 100 * number / every for release, number in self.lately.items()} if every else {}


class Tally:
    """Reads the journal of one release at a time in ``folder``, each line of it once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begin("")

    def look(self, progress: Progress) -> Counted | None:
        """Return what is counted of ``progress``; None where its journal is not, or cannot be read."""
        if evidence_name(progress) != self._name:
            self._begin(evidence_name(progress))
        try:
            with (self._folder / f"{self._name}.jsonl").open("rb") as journal:
                journal.seek(self._read)
                data = journal.read()
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.splitlines():
                self._count(_LINE.validate_json(line))
        except (OSError, ValidationError):
            return None
        self._read += len(whole)
        return self._counted()

    def _begin(self, name: str) -> None:
        self._name = name
        self._read = self._open = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._answers: deque[Request] = deque()

    def _count(self, line: Request | Beat) -> None:
        if isinstance(line, Beat):
            self._open = round(line.open_s / line.wall_s) if line.wall_s else 0
            return
        self._outcomes[line.outcome] += 1
        if line.release:
            self._answers.append(line)

    def _counted(self) -> Counted:
        while self._answers and self._answers[-1].at - self._answers[0].at > LATELY:
            self._answers.popleft()
        return Counted(
            requests=self._outcomes.total(),
            lost=self._outcomes[Outcome.LOST],
            truncated=self._outcomes[Outcome.TRUNCATED],
            streams_open=self._open,
            lately=dict(sorted(Counter(str(one.release) for one in self._answers).items())),
        )
