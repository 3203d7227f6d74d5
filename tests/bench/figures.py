"""From what was measured to the figures of the goals: pure, so that they can be tested without a server.

A figure is a ratio or a count.  Where a run that it rests on failed, or stored a wrong byte, there is none, and it
says so.  Units are 10**9 bytes for GB and 10**6 for MB.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.bench.contenders import BASELINE, PIPE
from tests.bench.data import Published
from tests.bench.killing import Killed
from tests.bench.measuring import Usage, last_line
from tests.bench.reading import Reading
from tests.bench.running import Run

GB, MB = 10**9, 10**6
AT_LEAST, AT_MOST = ">=", "<="


@dataclass(frozen=True)
class Figure:
    """A figure and its goal; ``value`` is None, and ``why`` says why, where it could not be had."""

    goal: str
    name: str
    value: float | None
    unit: str
    compare: str
    bound: float
    why: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Say whether the goal is reached."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.compare == AT_LEAST else self.value <= self.bound

    def to_json(self) -> dict[str, Any]:
        """Return the figure for the report; ``missed_by`` is in its own unit."""
        missed = None if self.value is None else 0 if self.met else round(abs(self.value - self.bound), 4)
        return {
            "goal": self.goal,
            "name": self.name,
            "value": None if self.value is None else round(self.value, 4),
            "unit": self.unit,
            "wanted": f"{self.compare} {self.bound:g}",
            "met": self.met,
            "missed_by": missed,
            **({"why": self.why} if self.why else {}),
            **self.detail,
        }


def speed(goal: str, bound: float, runs: Sequence[Run], ceilings: Mapping[str, float]) -> Figure:
    """Return how many times faster than the baseline Slipway is, by the medians of wall time."""
    seconds = _seconds(runs)
    ours, theirs = seconds.get(PIPE.name, []), seconds.get(BASELINE.name, [])
    why = _spoiled([run for run in runs if run.contender in {PIPE.name, BASELINE.name}])
    detail: dict[str, Any] = {
        "median_s": {name: round(median(values), 3) for name, values in seconds.items() if values},
        "min_s": {name: round(min(values), 3) for name, values in seconds.items() if values},
        "all_s": seconds,
    }
    if ours and theirs:
        rate = runs[0].size / median(ours)
        detail["ratio_of_minima"] = round(min(theirs) / min(ours), 3)
        detail["share_of_ceiling"] = {name: round(rate / ceiling, 3) for name, ceiling in ceilings.items()}
    value = None if why or not (ours and theirs) else median(theirs) / median(ours)
    store = runs[0].store if runs else ""
    return Figure(goal, f"times faster than {BASELINE.name}, {store}", value, "x", AT_LEAST, bound, why, detail)


def processor(runs: Sequence[Run], importing: Usage) -> Figure:
    """Return the processor seconds that Slipway's process takes per gigabyte, its import included."""
    ours, why = _ours(runs)
    spent = [run.usage.cpu_s / run.size * GB for run in ours if run.usage]
    above = [(run.usage.cpu_s - importing.cpu_s) / run.size * GB for run in ours if run.usage]
    detail = {
        "above_import": round(median(above), 3) if above else None,
        "import_cpu_s": round(importing.cpu_s, 3),
        "all": [round(value, 3) for value in spent],
        "baseline": [round(r.usage.cpu_s / r.size * GB, 3) for r in runs if r.contender == BASELINE.name and r.usage],
    }
    value = median(spent) if spent and not why else None
    store = runs[0].store if runs else ""
    return Figure("W3", f"client CPU, {store}", value, "CPU-s/GB", AT_MOST, 1.5, why, detail)


def memory(runs: Sequence[Run], importing: Usage) -> Figure:
    """Return the most memory that Slipway took above what its import takes."""
    ours, why = _ours(runs)
    peaks = [run.usage.memory for run in ours if run.usage]
    detail = {"import_mb": round(importing.memory / MB, 1), "peaks_mb": [round(peak / MB, 1) for peak in peaks]}
    value = (max(peaks) - importing.memory) / MB if peaks and not why else None
    size = f"{runs[0].size / MB:,.0f} MB" if runs else ""
    return Figure("W4", f"memory above the import, {size}", value, "MB", AT_MOST, 128, why, detail)


def disk(runs: Sequence[Run]) -> Figure:
    """Return the most bytes that Slipway had on the disk at once."""
    ours, why = _ours(runs)
    peaks = [run.usage.disk for run in ours if run.usage]
    detail = {"written_bytes": max((run.usage.written for run in ours if run.usage), default=0)}
    return Figure("W4", "disk", max(peaks) if peaks and not why else None, "bytes", AT_MOST, 0, why, detail)


def nothing_changed(
    warm: Mapping[str, Sequence[Mapping[str, float]]], counting: str, runs: Sequence[Run]
) -> list[Figure]:
    """Return what a mirror with nothing to do costs: requests of the store that counts, seconds of the slowest.

    ``warm`` is a process that did it before; the details tell how long ``runs`` took, processes of their own.
    """
    seconds = {kind: [round(each["seconds"], 3) for each in taken] for kind, taken in warm.items()}
    requests = [each["requests"] for each in warm.get(counting, ())]
    slowest = max((median(values) for values in seconds.values()), default=None)
    asked = max(requests, default=None)
    detail = {"all_s": seconds, "whole_process_s": _seconds(runs)}
    return [
        Figure("W5", "requests when nothing changed", asked, "requests", AT_MOST, 2, detail={"all": requests}),
        Figure("W5", "seconds when nothing changed, warm process", slowest, "s", AT_MOST, 0.15, detail=detail),
    ]


def one_changed(runs: Sequence[Run], first: Published, second: Published) -> Figure:
    """Return the bytes of unchanged large files that left the Hub; the details tell how long each contender took."""
    ours, why = _ours(runs)
    known = {file.sha256 for file in first.files}
    changed = {f"/lfs/{file.sha256}" for file in second.files if file.large and file.sha256 not in known}
    same = {f"/lfs/{file.sha256}" for file in second.files if file.large and file.sha256 in known}
    of_same = [sum(run.asked.bytes[path] for path in same) for run in ours]
    seconds = _seconds(runs)
    detail: dict[str, Any] = {
        "changed_bytes": sum(file.size for file in second.files if f"/lfs/{file.sha256}" in changed),
        "changed_bytes_sent": [sum(run.asked.bytes[path] for path in changed) for run in ours],
        "all_bytes_sent": [run.asked.bytes.total() for run in ours],
        "all_s": seconds,
    }
    if seconds.get(PIPE.name) and seconds.get(BASELINE.name):
        detail["wall_against_in_place"] = round(median(seconds[PIPE.name]) / median(seconds[BASELINE.name]), 3)
    value = max(of_same) if of_same and not why else None
    return Figure("W6", "bytes of unchanged shards from the Hub", value, "bytes", AT_MOST, 0, why, detail)


def killed(found: Sequence[Killed]) -> Iterable[Figure]:
    """Yield, for every kill of Slipway, the share of the bytes that moved twice, and what was left at the end."""
    for kill in found:
        if kill.again.contender != PIPE.name:
            continue
        why = _spoiled([kill.again])
        size = f"{kill.again.size / MB:,.0f} MB"
        value = None if why else kill.moved_twice
        yield Figure("W7", f"share moved twice after kill -9, {size}", value, "", AT_MOST, 0.02, why)
        left = [*(kill.again.findings.left if kill.again.findings else ()), *kill.files]
        count = None if why else len(left)
        yield Figure("W7", f"left over at the end, {size}", count, "things", AT_MOST, 0, why, {"left": left})


def node(readings: Sequence[Reading]) -> Figure:
    """Return the rate of a node's verified read to its disk, as a share of the store's own rate."""
    seconds = {way: [r.seconds for r in readings if r.way == way] for way in ("fetch", "read", "copy")}
    why = "" if all(reading.verified is not False for reading in readings) else "a file on the disk is wrong"
    value = median(seconds["read"]) / median(seconds["fetch"]) if seconds["fetch"] and not why else None
    detail: dict[str, Any] = {"all_s": {way: [round(s, 3) for s in values] for way, values in seconds.items()}}
    if value is not None:
        detail["against_unverified_to_disk"] = round(median(seconds["copy"]) / median(seconds["fetch"]), 3)
    return Figure("W9", "a node's verified read, of the store's rate", value, "", AT_LEAST, 0.9, why, detail)


def unmeasured(goal: str, why: str) -> Figure:
    """Return what stands for a goal that could not be measured at all."""
    return Figure(goal, "not measured", None, "", AT_MOST, 0, last_line(why))


def _ours(runs: Sequence[Run]) -> tuple[list[Run], str]:
    ours = [run for run in runs if run.contender == PIPE.name]
    return ours, _spoiled(ours)


def _spoiled(runs: Sequence[Run]) -> str:
    """Return why nothing may rest on these runs, or nothing."""
    if not runs:
        return "there was no run"
    bad = next((run for run in runs if not run.good), None)
    return "" if bad is None else last_line(bad.error) or f"wrong bytes were stored by {bad.contender}"


def _seconds(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Return the wall times by contender, of the runs that ended well."""
    names = dict.fromkeys(run.contender for run in runs)
    return {name: [round(r.usage.seconds, 3) for r in runs if r.contender == name and r.usage] for name in names}
