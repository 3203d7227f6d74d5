"""The command line inside the test's own process: quick, and with a record to look at afterwards."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.cli import main
from tasks._release.journal import Journal
from tasks._stores.folder import FolderStore
from tasks.records import Kind, Outcome, Progress, Question, Release, ServiceRecord, StepName
from tasks.settings import StoreSettings

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


@dataclass
class Line:
    """A person at a terminal: a folder of specs, a store, and what was said."""

    folder: Path
    store: FolderStore
    read: Callable[[], tuple[str, str]]
    out: str = field(default="", init=False)
    err: str = field(default="", init=False)

    def slipway(self, *arguments: str) -> int:
        """Type a line; return the exit code, with what was said in ``out`` and ``err``."""
        before = sys.argv, signal.getsignal(signal.SIGTERM)
        sys.argv = ["slipway", *arguments]
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.argv = before[0]
            signal.signal(signal.SIGTERM, before[1])
        self.out, self.err = self.read()
        assert isinstance(code, int)
        return code

    def write(self, record: ServiceRecord) -> None:
        """Make ``record`` the service's."""
        Journal(self.store, record.service).change(lambda _: record)

    @property
    def record(self) -> ServiceRecord:
        """Return the record of the service ``chat``."""
        return Journal(self.store, "chat").record


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """Return a terminal where the service ``chat`` is described, with an empty store and nothing running."""
    for name in ("services", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "services" / "chat.yaml").write_text("service: chat\nmodel: acme/tiny\n")
    url = (tmp_path / "store").as_uri()
    known = {"SLIPWAY_HOME": tmp_path / "home", "SLIPWAY_SERVICES": tmp_path / "services", "SLIPWAY_STORE__URL": url}
    for variable, value in known.items():
        monkeypatch.setenv(variable, str(value))
    monkeypatch.chdir(tmp_path)
    with closing(FolderStore(StoreSettings(url=url))) as store:
        yield Line(tmp_path, store, capsys.readouterr)


def release(number: int) -> Release:
    """Return a release of its own commit."""
    return Release(
        service="chat", number=number, model="acme/tiny", commit=f"{number:040x}", hub="https://hub.example", spec={}
    )


def ended(number: int, outcome: Outcome = Outcome.PROMOTED, **fields: object) -> Progress:
    """Return a release that took a minute, ``number`` hours after the beginning."""
    at = NOW - 10 * HOUR + number * HOUR
    return Progress(
        release=release(number), run="run", opened_at=at, closed_at=at + HOUR / 60, outcome=outcome
    ).model_copy(update=fields)


def asking(*, until: datetime = NOW + HOUR) -> ServiceRecord:
    """Return a record whose second release waits for a person."""
    question = Question(step=StepName.QUALITY, text="facts: [3 of 4] hold", asked_at=NOW, until=until)
    current = Progress(kind=Kind.RELEASE, release=release(2), run="run-2", request="run-2", opened_at=NOW)
    return ServiceRecord(
        service="chat",
        next_number=3,
        live=release(1),
        current=current.model_copy(update={"question": question}),
        past=(ended(1),),
    )
