"""``python -m tests.bench.webhook [--json] [--seconds S]``: crowds and floods of the webhook receiver.

``slipway receive`` runs as a process before a real Prefect server.  First the same commit is told 100 times at once,
then 100 commits; what counts are the runs that Prefect has.  Then forged calls come at 5,000 a second, on connections
that are kept and on one for each, while every half second somebody calls in earnest with a new commit.  Its memory is
what the kernel says, sampled all the while.  Receiver, Prefect, flood and callers share the machine's cores, so a
quiet moment is waited for.  Standard output holds the report alone; the exit code is 1 where a bar was not met.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect.testing.utilities import prefect_test_harness

from tasks.runs import REFRESH
from tests.bench.figures import AT_LEAST, AT_MOST, MB, Figure
from tests.bench.measuring import await_quiet, machine
from tests.fakes.webhooks import ROOT, SPEC, ReceiverProcess, payload, receiver_process, sha

CROWD, RATE, SECONDS = 100, 5000.0, 10.0
SERVED_S, EVERY_S = 1.0, 0.5
CONNECTIONS = 400
MEMORY_MB = 64.0
"""Room for what the receiver's own bounds allow: 256 bodies of 256 KiB."""
PACKAGES = ("uvicorn", "httptools", "uvloop", "starlette", "prefect")
COMMITS = itertools.count(1000)


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.webhook", description="Measures the receiver.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each flood lasts")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="longest wait for quiet")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        figures = _measured(Path(folder), str(PREFECT_API_URL.value()), asked.seconds, asked.patience)
    sys.stdout.write(_document(figures) if asked.json else _lines(figures))
    sys.exit(0 if all(figure.met for figure in figures) else 1)


def _measured(folder: Path, api: str, seconds: float, patience: float) -> list[Figure]:
    for service in ("chat", "other"):
        (folder / f"{service}.yaml").write_text(SPEC.replace("chat", service))
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "prefect"),
        "SLIPWAY_SERVICES": str(folder),
        "SLIPWAY_STORE__URL": (folder / "store").as_uri(),
    }
    with SyncPrefectClient(api=api) as client, receiver_process(environment, folder / "receive.log") as receiver:
        name = REFRESH.partition("/")[0]
        client.create_deployment(client.create_flow_from_name(name), name, enforce_parameter_schema=False)
        found = await_quiet(patience)
        process = psutil.Process(receiver.process.pid)
        before = process.memory_info().rss
        figures = list(_crowds(client, receiver))
        for kind in ("kept", "new"):
            figures += _flooded(client, receiver, kind, seconds, found)
        grown = (max(process.memory_info().rss, _peak(process)) - before) / MB
        detail = {"at_first_mb": round(before / MB, 1), "peak_mb": round(_peak(process) / MB, 1)}
        figures.append(Figure("E2", "memory that the receiver took on", grown, "MB", AT_MOST, MEMORY_MB, "", detail))
    return figures


def _crowds(client: SyncPrefectClient, receiver: ReceiverProcess) -> list[Figure]:
    """Return how many runs a crowd of calls made, for each service."""
    figures = []
    for name, told in (
        ("identical", [payload(sha(1))] * CROWD),
        ("different", [payload(sha(number)) for number in range(2, 2 + CROWD)]),
    ):
        known = {run.id for run in _runs(client)}
        begun = time.monotonic()
        answers = receiver.call(*told)
        detail = {"seconds": round(time.monotonic() - begun, 3), "services": 2}
        statuses = sorted({answer.status_code for answer in answers})
        made = [run for run in _runs(client) if run.id not in known]
        why = "" if statuses == [202] else f"answers were {statuses}"
        most = max((sum(run.parameters == one.parameters for run in made) for one in made), default=0)
        figures.append(
            Figure("E2", f"runs of a service by {CROWD} {name} calls", most, "runs", AT_MOST, 1, why, detail)
        )
        _end(client)
    return figures


def _flooded(
    client: SyncPrefectClient, receiver: ReceiverProcess, kind: str, seconds: float, found: dict[str, float]
) -> list[Figure]:
    """Return how long genuine calls took during a flood, and how much of that was refused."""
    port = receiver.url.split(":")[2].partition("/")[0]
    command = [sys.executable, "-m", "tests.bench.flood", port, str(RATE), str(seconds), str(CONNECTIONS), kind]
    took, statuses = [], []
    before = psutil.Process(receiver.process.pid).cpu_times()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as flood:
        time.sleep(EVERY_S)
        while flood.poll() is None:
            (answer,), one = _timed(lambda: receiver.call(payload(sha(next(COMMITS)))))
            took.append(one)
            statuses.append(answer.status_code)
            _end(client)
            time.sleep(EVERY_S)
        assert flood.stdout
        told = json.loads(flood.stdout.read())
    spent = psutil.Process(receiver.process.pid).cpu_times()
    cpu = spent.user + spent.system - before.user - before.system
    detail = {
        "flood": told,
        "genuine": len(took),
        "all_s": [round(one, 3) for one in took],
        "receiver_cpu_s": round(cpu, 2),
        "machine_before": found,
    }
    why = "" if set(statuses) == {202} else f"answers were {sorted(set(statuses))}"
    return [
        Figure("E2", f"slowest genuine call, {kind} connections", max(took), "s", AT_MOST, SERVED_S, why, detail),
        Figure("E2", f"forged calls a second, {kind} connections", told["per_second"], "/s", AT_LEAST, 0.95 * RATE),
    ]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.monotonic()
    return call(), time.monotonic() - begun


def _runs(client: SyncPrefectClient) -> list[FlowRun]:
    return client.read_flow_runs(limit=200)


def _end(client: SyncPrefectClient) -> None:
    """End the runs that wait, as their flow would."""
    for run in _runs(client):
        if run.state is None or not run.state.is_final():
            client.set_flow_run_state(run.id, Completed(), force=True)


def _peak(process: psutil.Process) -> int:
    """Return the most memory that a process has had, as the kernel counts it."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _document(figures: list[Figure]) -> str:
    report: dict[str, Any] = {
        "figures": [figure.to_json() for figure in figures],
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine()),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
    return json.dumps(report, indent=2) + "\n"


def _lines(figures: list[Figure]) -> str:
    return "".join(
        f"{figure.goal}  {figure.name}: {'-' if figure.value is None else f'{figure.value:.4g}'} {figure.unit}, "
        f"wanted {figure.compare} {figure.bound:g}, {'met' if figure.met else f'not met {figure.why}'.rstrip()}\n"
        for figure in figures
    )


if __name__ == "__main__":
    main()
