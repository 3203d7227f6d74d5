"""``python -m tests.bench.weights [--json] [--only W1,W2] [--size small|full]``: the goals of the weights' road.

Everything is measured side by side in one run, in turns, from one Hub server and into like stores, and every stored
byte is read back after each run.  Standard output holds the report alone, a table or JSON; what happens meanwhile is
said on standard error.  The exit code is 1 when a run failed or stored a wrong byte, whatever the figures are.

What the figures cannot pass, and why.  One gigabyte costs the pipe about 0.7 s of a core for sha256, 0.3 for
receiving, 0.3 for sending, 0.1 for the copy between the two, 0.1 for CRC64NVME and the journal and 0.2 in botocore,
and 0.7 s once for imports: 1.7 to 2.2 CPU-s/GB in all, where W3 asks for 1.5.  Two cores that run Hub and sink
too (0.4 CPU-s/GB) so move at most 0.8 GB/s, which is what W2 comes to; its ratio is that of the two-pass
baseline's own speed on the machine.  On SeaweedFS (W1) both ways wait for its 11 CPU-s/GB, of which the second pass
hides behind the first less than half.

What a killed mirror fetches twice (W7) is what was in memory, at most 24 MiB, what the kernel held of two
connections, and what was sent since the journal's last word: 45 to 70 MB, whatever the model's size.  That is 1 %
of four gigabytes and 6 % of one.

A node's read (W9) is measured on the two cores that the store's server needs as well: reading and throwing away
uses both of them whole.  sha256 (0.7 CPU-s/GB), writing to the disk's cache (0.3) and reading it back for the hash
(0.1) come on top, so a verified copy is at most 0.7 to 0.75 of that rate there, and 1.2 to 1.5 times faster than an
unverified copy, which writes through one more buffer.  With a core to spare for each 1.4 GB/s it is the store's rate.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.ceilings import rates
from tests.bench.contenders import BASELINE, OTHERS, PIPE, Contender
from tests.bench.data import FOUR, ONE, SMALL, Model, Published, provide
from tests.bench.following import follow, repeat_warm
from tests.bench.importing import cost_of_import
from tests.bench.killing import kill_and_run_again
from tests.bench.measuring import Failed, last_line
from tests.bench.program import alone, run, say
from tests.bench.reading import read_in_turns
from tests.bench.report import GOALS, Results
from tests.bench.running import Bench, compare
from tests.bench.servers import ROOT, SEAWEED, SINK, hub_server


@dataclass(frozen=True)
class Size:
    """How much is moved and how often: ``many`` times where medians are compared, ``few`` times elsewhere."""

    model: Model
    large_model: Model
    many: int
    few: int
    patience_s: float


SIZES = {
    "small": Size(SMALL, SMALL, many=1, few=1, patience_s=1),
    "full": Size(ONE, FOUR, many=5, few=2, patience_s=60),
}


def main() -> None:
    """Measure what is asked for and print the report."""
    asked = _parser().parse_args()
    goals = set(asked.only.split(",")) if asked.only else set(GOALS)
    if unknown := goals - set(GOALS):
        raise SystemExit(f"There is no goal {', '.join(sorted(unknown))}; there are {', '.join(GOALS)}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _home(asked.home.resolve()) as home, hub_server(home / "hub") as hub:
        size = SIZES[asked.size]
        bench = Bench(home, hub, size.patience_s if asked.patience is None else asked.patience, say)
        results = Results(asked.size, goals)
        Measurements(bench, size, results).take()
    text = json.dumps(results.to_json(), indent=2) + "\n" if asked.json else report.table(results)
    sys.stdout.write(text)
    sys.exit(0 if results.good else 1)


class Measurements:
    """What is measured for each goal; those that rest on the same runs share them."""

    def __init__(self, bench: Bench, size: Size, results: Results) -> None:
        self._bench, self._size, self._results = bench, size, results
        self._goals = results.goals

    def take(self) -> None:
        """Measure everything that the goals asked for need; what fails is noted, and the rest goes on."""
        self._present()
        steps = {
            self._take_ceilings: {"W1", "W2"},
            self._take_import: {"W3", "W4"},
            self._take_new: {"W1", "W2", "W3", "W4"},
            self._take_unchanged: {"W5"},
            self._take_changed: {"W6"},
            self._take_killed: {"W7"},
            self._take_node: {"W9"},
        }
        for step, of in steps.items():
            try:
                if self._goals & of:
                    step()
            except Failed as error:
                say(f"failed: {last_line(str(error))}")
                self._results.failures[" ".join(sorted(self._goals & of))] = str(error)

    def _take_ceilings(self) -> None:
        self._results.ceilings = rates(self._bench, self._provided(self._size.model)[0])

    def _take_import(self) -> None:
        self._results.importing = cost_of_import(self._bench, self._provided(self._size.model)[0])

    def _take_unchanged(self) -> None:
        first, _ = self._provided(self._size.model)
        self._results.warm = {kind: repeat_warm(self._bench, first, kind) for kind in (SINK, SEAWEED)}
        self._follow("W5", first, first)

    def _take_changed(self) -> None:
        self._results.pair = self._provided(self._size.model)
        self._follow("W6", *self._results.pair)

    def _take_killed(self) -> None:
        commits = [self._provided(model)[0] for model in dict.fromkeys((self._size.model, self._size.large_model))]
        for contender, published in [*((PIPE, commit) for commit in commits), (BASELINE, commits[0])]:
            if contender.name not in self._results.absent:
                self._results.killed.append(kill_and_run_again(self._bench, "W7", published, contender))

    def _take_node(self) -> None:
        first, _ = self._provided(self._size.model)
        self._results.readings = read_in_turns(self._bench, first, self._size.many)

    def _take_new(self) -> None:
        """Move commits into empty stores, for the goals of speed, processor and memory."""
        size, runs = self._size, self._results.runs
        first, _ = self._provided(size.model)
        ours = size.many if self._goals & {"W1", "W2"} else size.few
        if self._goals & {"W1", "W3"}:
            other = dict.fromkeys(OTHERS, size.few) if "W1" in self._goals else {}
            runs["W1"] = compare(self._bench, "W1", first, SEAWEED, self._contenders("W1", ours) | self._here(other))
        if self._goals & {"W2", "W3", "W4"}:
            large, _ = self._provided(size.large_model)
            runs["W2"] = compare(self._bench, "W2", large, SINK, self._contenders("W2", ours))
        if "W4" in self._goals:
            light, _ = self._provided(SMALL)
            runs["W4"] = compare(self._bench, "W4", light, SEAWEED, {PIPE: size.few})

    def _contenders(self, goal: str, times: int) -> dict[Contender, int]:
        """Return who runs: the baseline only for the goal that compares with it."""
        return self._here({PIPE: times} | ({BASELINE: times} if goal in self._goals else {}))

    def _here(self, contenders: dict[Contender, int]) -> dict[Contender, int]:
        return {who: times for who, times in contenders.items() if who.name not in self._results.absent}

    def _follow(self, goal: str, first: Published, second: Published) -> None:
        runs = self._results.runs.setdefault(goal, [])
        for _ in range(self._size.few):
            for contender in self._here({PIPE: 1, BASELINE: 1}):
                runs.append(follow(self._bench, goal, contender, first, second)[1])

    def _present(self) -> None:
        for contender in (PIPE, BASELINE, *OTHERS):
            if why := contender.missing():
                self._results.absent[contender.name] = why
                say(f"{contender.name} is left out: {why}")

    def _provided(self, model: Model) -> tuple[Published, Published]:
        return provide(self._bench.home / "hub", model)


@contextmanager
def _home(home: Path) -> Iterator[Path]:
    """Give the folder of repositories and scratch to this benchmark alone, without what a killed one left."""
    (home / "hub").mkdir(parents=True, exist_ok=True)
    with alone(home, home / "lock"):
        for left in (*home.glob("run-*"), *home.glob("store-*")):
            shutil.rmtree(left, ignore_errors=True)
        yield home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.weights", description="Measures the weights' road.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--only", default="", metavar="W1,W2", help=f"of {', '.join(GOALS)}; all unless given")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="small: 200 MB, each once")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help="longest wait for quiet before each run")
    parser.add_argument(
        "--home", type=Path, default=ROOT / ".slipway/bench", help="where repositories and scratch lie"
    )
    return parser


if __name__ == "__main__":
    run(main, "servers and folders")
