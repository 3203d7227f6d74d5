"""``python -m tests.bench.release [--json] [--size small|full] [--only R1,C1]``: goals of releases and of clients.

One service lives through everything that happens to a service: a quiet release, one under the load of clients up to
the removal of the oldest, one that is rolled back as soon as it is live, one that is refused, a roll back of the
live one, a hundred requests at once for one commit, and a target that is emptied and restored from the bucket.
Clients that are none of Slipway's ask all the time but for the last two, and every answer is judged.  What each size
is made of is in ``small_rig`` and ``full_rig``.

Measured elsewhere: R2 (a run killed at any boundary) and C4 (the receipt catches planted faults) are tests, in
``tests/faults/releases`` and ``tests/tasks/test_witness.py``; R4 is ``tests.bench.quality`` and C6 is
``tests.bench.probe``.

R1 is the wall time from the asking to the end of the run, less the steps that wait for what is not the controller
(``outcomes.WAITING``: bytes, candidate, checks, a person, bake, the probe's last requests).  The process's start and
end, starting, shifting, tidying up and all writing count, and imports too but for Great Expectations, which the
first check of answers imports: ``imports`` tells what that takes.  R6 is the kernel's own peak of the run's process,
file pages included; ``consists_of`` tells what its imports take without any release.  C5 counts from the last look
at the record that did not show the decision yet.

Standard output holds the report alone, a table or JSON; what happens meanwhile is said on standard error.  The exit
code is 1 when something could not be measured, whatever the figures are.
"""

import argparse
import importlib
import importlib.metadata
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tasks.errors import SlipwayError
from tasks.records import Kind, ServiceRecord, StepName
from tests.bench.driver import Driver, driving
from tests.bench.engines import ROOT
from tests.bench.measuring import Failed, await_quiet, last_line
from tests.bench.outcomes import (
    Carried,
    Decision,
    Scene,
    kept,
    live_spans,
    long_stream,
    memory,
    one_release,
    overhead,
    restored,
    status,
    way_back,
)
from tests.bench.program import alone, run, say
from tests.bench.release_report import IMPORTS, Results, imported, status_seconds, table
from tests.bench.rig import (
    RUN_S,
    SERVICE,
    Rig,
    answering,
    await_record,
    first_answer,
    has_begun,
    leads_back,
    promoted,
)

GOALS = ("R1", "R3", "R5", "R6", "R7", "C1", "C2", "C3", "C5")
RIGS = {"small": "tests.bench.small_rig", "full": "tests.bench.full_rig"}
REQUESTS = 100
TIMES = 5
LONG_S = 600.0
"""The longest that a long stream is waited for once all else has happened."""
SILENCE_S, BEFORE_S = 60.0, 2.0
REST_S = 8.0
"""How long clients go on after a change, so that what is wrong only then is seen too."""


class Measurements:
    """What happens to the service, scene by scene; a goal is measured in the scene that shows it."""

    def __init__(self, rig: Rig, goals: set[str], results: Results) -> None:
        self._rig, self._goals, self._results = rig, goals, results
        self._under_load: Carried | None = None

    def take(self) -> None:
        """Measure everything that the goals asked for need; what fails is noted, and the rest goes on."""
        self._try({"R1", "R3", "R6", "R7", "C1", "C2", "C3", "C5"}, self._first_two)
        if self._goals & {"R1", "C1", "C2", "C3", "C5"} and not self._results.failures:  # there is a live release
            with driving(self._rig.address, SERVICE, self._rig.load) as driver:
                self._try({"R1", "C1", "C3"}, self._release, driver)
                self._try({"C2", "C5"}, self._rolled_back_at_once, driver)
                self._try({"C2"}, self._refused, driver)
                self._try({"C5"}, self._rolled_back_later, driver)
                self._try({"C3"}, self._long, driver)
        self._try({"R1", "R6"}, self._costs)
        self._try({"R3"}, self._many)
        self._try({"R7"}, self._restored)

    def _try(self, of: set[str], scene: Any, *arguments: Any) -> None:
        wanted = (self._goals & of) - self._results.failures.keys()
        if not wanted:
            return
        say(scene.__doc__)
        try:
            scene(*arguments)
        except (Failed, SlipwayError, httpx.HTTPError, TimeoutError, OSError) as error:
            say(f"failed: {last_line(str(error)) or type(error).__name__}")
            self._results.failures.update(dict.fromkeys(sorted(wanted), str(error) or type(error).__name__))

    def _first_two(self) -> None:
        """A first release, and a second one with nobody else on the machine."""
        for _ in range(2):
            self._noted(promoted(self._rig.release()))

    def _release(self, driver: Driver) -> None:
        """A release under load, up to the removal of the oldest, with long streams open across the switch."""
        since = self._begin(driver)
        oldest = self._record.previous
        future = self._rig.release()
        await_record(self._rig, has_begun(StepName.SMOKE))
        if "C3" in self._goals:
            driver.open_long(*self._rig.long)
        self._under_load = self._noted(promoted(future))
        tidied = self._under_load.progress.step(StepName.TIDY)
        detail = {"removed": tidied.detail if tidied else "", "oldest": oldest.name if oldest else ""}
        self._kept("C1", "a release and the removal of the oldest", driver, since, detail)

    def _rolled_back_at_once(self, driver: Driver) -> None:
        """A release that is rolled back as soon as it is live."""
        since, old = self._begin(driver), self._record.live
        future = self._rig.release()
        await_record(self._rig, has_begun(StepName.BAKE))
        current = self._record.current
        bad = current.release.name if current else ""
        decision = self._decided()
        ended = self._noted(future.result(RUN_S))
        name = old.name if old else ""
        self._kept("C2", "promote and roll back at once", driver, since, {"outcome": ended.progress.outcome})
        self._way_back("in its bake", driver, decision, name, bad)

    def _refused(self, driver: Driver) -> None:
        """A candidate that talks nonsense."""
        since = self._begin(driver)
        ended = self._noted(self._rig.release(bad=True).result(RUN_S))
        self._kept("C2", "a failed candidate", driver, since, {"outcome": ended.progress.outcome})

    def _rolled_back_later(self, driver: Driver) -> None:
        """A roll back of the release that is live."""
        self._begin(driver)
        record = self._record
        old, bad = record.previous, record.live
        if old is None or bad is None:
            raise Failed("there is no release to go back to")
        self._way_back("once it had ended", driver, self._decided(), old.name, bad.name)

    def _long(self, driver: Driver) -> None:
        """The end of the long streams."""
        deadline = time.monotonic() + LONG_S
        while driver.long_open and time.monotonic() < deadline:
            time.sleep(0.2)
        if driver.long_open:
            raise Failed(f"{driver.long_open} long streams have no end after {LONG_S:.0f} s")
        self._results.figures.append(long_stream(driver.seen(), live_spans(self._record.past)))

    def _costs(self) -> None:
        """What the controller itself takes, and what of that is imports."""
        importing = {name: imported(code) for name, code in IMPORTS.items()}
        quiet = self._results.releases[1]
        if "R1" in self._goals:
            self._results.figures.append(overhead(quiet, self._under_load, importing))
        if "R6" in self._goals:
            seen = [one for one in self._results.releases if one.progress.kind is Kind.RELEASE]
            self._results.figures.append(memory(seen, importing))

    def _many(self) -> None:
        """A hundred requests for one commit."""
        before = self._record
        begun = time.monotonic()
        told = self._rig.ask_at_once(REQUESTS)
        after = self._record
        made = after.next_number - before.next_number
        detail = {
            "live": after.live.name if after.live else "",
            "entries_of_the_ledger": after.ledger.sequence - before.ledger.sequence,
            "seconds": round(time.monotonic() - begun, 1),
        }
        self._results.figures.append(one_release(REQUESTS, told, made, detail))

    def _restored(self) -> None:
        """A target that is emptied, and restored from the bucket."""
        before = answering(self._rig.address)
        wiped = self._rig.wipe()
        if found := answering(self._rig.address):
            raise Failed(f"{found} answers although everything was deleted")
        begun, future = time.monotonic(), self._rig.restore()
        after = first_answer(self._rig.address, future)
        seconds = time.monotonic() - begun
        self._noted(promoted(future))
        self._results.figures.append(restored(before, after, seconds, {"deleted": wiped}))

    @property
    def _record(self) -> ServiceRecord:
        return self._rig.record()

    def _begin(self, driver: Driver) -> float:
        """Let clients ask for a while before anything happens; return when that began."""
        since, seen, deadline = time.time(), len(driver.seen()), time.monotonic() + SILENCE_S
        time.sleep(BEFORE_S)
        while len(driver.seen()) == seen:
            if time.monotonic() > deadline:
                raise Failed("no client is answered")
            time.sleep(0.1)
        return since

    def _decided(self) -> Decision:
        """Roll back; return when that was written, once its run is over."""
        before, known = time.time(), self._record.ledger.sequence
        future = self._rig.roll_back()
        if future is None:
            return Decision(before, time.time())
        decision = Decision(*await_record(self._rig, lambda record: leads_back(record, known)))
        self._noted(future.result(RUN_S))
        return decision

    def _kept(self, goal: str, name: str, driver: Driver, since: float, detail: dict[str, Any]) -> None:
        time.sleep(REST_S)
        if goal in self._goals:
            scene = Scene(name, since, time.time(), driver.seen(), live_spans(self._record.past), detail)
            self._results.figures.extend(kept(goal, scene))

    def _way_back(self, name: str, driver: Driver, decision: Decision, old: str, bad: str) -> None:
        time.sleep(REST_S)
        if "C5" in self._goals:
            self._results.figures.extend(way_back(name, driver.seen(), decision, old, bad))

    def _noted(self, carried: Carried) -> Carried:
        self._results.releases.append(carried)
        say(f"{carried.progress.release.name}: {carried.progress.outcome}, {carried.over - carried.asked:.1f} s")
        return carried


def main() -> None:
    """Measure what is asked for and print the report."""
    asked = _parser().parse_args()
    goals = set(asked.only.split(",")) if asked.only else set(GOALS)
    if unknown := goals - set(GOALS):
        raise SystemExit(f"There is no goal {', '.join(sorted(unknown))}; there are {', '.join(GOALS)}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _home((asked.home or ROOT / ".slipway" / f"release-bench-{asked.size}").resolve()) as home:
        results = _measured(home, asked.size, goals, asked.patience)
    text = json.dumps(results.to_json(), indent=2) + "\n" if asked.json else table(results)
    sys.stdout.write(text)
    sys.exit(1 if results.failures else 0)


def _measured(home: Path, size: str, goals: set[str], patience_s: float) -> Results:
    results = Results(size, "", await_quiet(patience_s))
    if "R5" in goals:
        results.figures.append(status(status_seconds(TIMES)))
    if goals - {"R5"}:
        module = importlib.import_module(RIGS[size])  # the small one needs no Prefect, the full one no fakes
        with module.opened(home, say) as rig:
            results.what = rig.what
            Measurements(rig, goals, results).take()
    return results


@contextmanager
def _home(home: Path) -> Iterator[Path]:
    """Give the folder to this benchmark alone."""
    with alone(home, home / "run" / "bench.lock"):
        yield home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.release", description="Measures releases.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--only", default="", metavar="R1,C1", help=f"of {', '.join(GOALS)}; all unless given")
    parser.add_argument("--size", choices=sorted(RIGS), default="full", help="small: fakes; full: the whole stack")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="longest wait for quiet")
    parser.add_argument("--home", type=Path, help="where servers keep their files")
    return parser


if __name__ == "__main__":
    run(main, "servers and folders")
