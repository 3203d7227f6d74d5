"""``python -m tests.bench.probe [--json] [--seconds S]``: goal C6, whether the probe keeps its rate and at what cost.

The probe runs in this process as it does in a release, against a fake engine in a process of its own.  It holds 20
streams open, which together bring the 345 tokens a second of the paper trail's headline case, and starts one plain
request each second.  Its cost is what the kernel counted for this whole process meanwhile, not for the probe's
thread alone; it grows with the tokens, and with how busy the cores are otherwise, so a quiet moment is waited for.
Standard output holds the report alone; the exit code is 1 where a request failed.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tasks._clients.probe import Probe
from tasks._clients.receipt import Receipt, receipt
from tests.bench.figures import AT_LEAST, AT_MOST, Figure
from tests.bench.measuring import await_quiet, machine

STREAMS, RATE, TOKENS_PER_S = 20, 1.0, 345.0
TOKENS = 64
OPEN_DEADLINE_S = 20.0
GRACE_S = 20.0
PACKAGES = ("httpx", "httpcore", "h11", "anyio", "pydantic")


def main() -> None:
    """Measure and print the report; with ``--engine``, be the engine that the other process asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.probe", description="Measures the probe itself.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long is measured")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="longest wait for quiet")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        _be_the_engine()
        return
    found = await_quiet(asked.patience)
    with _engine() as url:
        proof, share = _measure(url, asked.seconds)
    figures = _figures(proof, share, found)
    sys.stdout.write(_document(figures, proof) if asked.json else _lines(figures))
    sys.exit(0 if not proof.failed else 1)


def _measure(url: str, seconds: float) -> tuple[Receipt, float]:
    """Return what the probe saw, and the share of one core that this process took while all streams were open."""
    with Probe(
        url, model="chat", prompts=["Hi"], rate=RATE, streams=STREAMS, max_tokens=TOKENS, deadline_s=60
    ) as probe:
        probe.wait_until_open(STREAMS, OPEN_DEADLINE_S)
        wall, spent = time.monotonic(), time.process_time()
        time.sleep(seconds)
        share = (time.process_time() - spent) / (time.monotonic() - wall)
        requests = probe.stop(GRACE_S)
    return receipt(requests, probe.report), share


def _figures(proof: Receipt, share: float, found: dict[str, float]) -> list[Figure]:
    why = f"{proof.failed} requests failed" if proof.failed else ""
    load = {"streams": STREAMS, "tokens_per_s": TOKENS_PER_S, "plain_per_s": RATE, "machine_before": found}
    assert proof.probe is not None
    achieved = None if why else proof.probe.achieved
    cost = None if why else share
    detail = load | {"probe": proof.probe.model_dump()}
    return [
        Figure("C6", "the probe's achieved rate, of the asked one", achieved, "", AT_LEAST, 0.95, why, detail),
        Figure("C6", f"cores that the probe takes at {STREAMS} open streams", cost, "", AT_MOST, 0.05, why, load),
    ]


def _document(figures: list[Figure], proof: Receipt) -> str:
    report: dict[str, Any] = {
        "figures": [figure.to_json() for figure in figures],
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine()),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "compared": {"the probe": "in this process", "the engine": "a fake one, in a process of its own"},
        "seen": proof.model_dump(mode="json", exclude={"seconds"}),
    }
    return json.dumps(report, indent=2) + "\n"


def _lines(figures: list[Figure]) -> str:
    return "".join(
        f"{figure.goal}  {figure.name}: {'-' if figure.value is None else f'{figure.value:.4f}'}, "
        f"wanted {figure.compare} {figure.bound:g}, {'met' if figure.met else f'not met {figure.why}'.rstrip()}\n"
        for figure in figures
    )


@contextmanager
def _engine() -> Iterator[str]:
    """Run the engine in a process of its own and give its address; it ends with the block."""
    command = [sys.executable, "-m", "tests.bench.probe", "--engine"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _be_the_engine() -> None:
    """Serve until standard input ends, which it does with the process that measures."""
    from tests.fakes.engine import Engine, serving  # noqa: PLC0415 - the process that measures has no server

    engine = Engine(answer=lambda _messages: "word " * TOKENS, delay_s=STREAMS / TOKENS_PER_S)
    with serving(engine) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
