"""From runs to figures: medians, goals met and missed, and no figure where a run cannot be trusted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench import figures
from tests.bench.contenders import BASELINE, PIPE, Contender
from tests.bench.data import Content, Published
from tests.bench.killing import Killed
from tests.bench.measuring import Usage
from tests.bench.reading import Reading
from tests.bench.running import Run
from tests.bench.servers import Counted
from tests.bench.verifying import Findings

SIZE = 1_000_000_000


def ran(
    contender: Contender = PIPE,
    *,
    seconds: float = 1,
    cpu_s: float = 1,
    memory: int = 0,
    sent: dict[str, int] | None = None,
    wrong: tuple[str, ...] = (),
    left: tuple[str, ...] = (),
    error: str = "",
) -> Run:
    """Return a run that took this."""
    usage = None if error else Usage(seconds, cpu_s, memory, 0, 0)
    asked = Counted(Counter(), Counter(sent or {"/lfs/a": SIZE}))
    return Run("W", contender.name, "store", SIZE, {}, usage, asked, 0, None, Findings(wrong, left), error)


def both(ours: Sequence[float], theirs: Sequence[float]) -> list[Run]:
    """Return runs of Slipway and of the baseline."""
    return [*(ran(seconds=s) for s in ours), *(ran(BASELINE, seconds=s) for s in theirs)]


def test_speed_is_the_ratio_of_medians() -> None:
    """One disturbed run on either side does not decide; all values are there to judge by."""
    figure = figures.speed("W1", 1.8, both([1, 1, 9], [2, 2, 0.1]), {"put": SIZE * 2}).to_json()

    assert (2, True, 0) == (figure["value"], figure["met"], figure["missed_by"])
    assert {"slipway": [1, 1, 9], "hf + aws": [2, 2, 0.1]} == figure["all_s"]
    assert (0.1, 0.5) == (figure["ratio_of_minima"], figure["share_of_ceiling"]["put"])


def test_a_missed_goal_says_by_how_much() -> None:
    """The figure stays, with its distance from the goal."""
    figure = figures.speed("W1", 1.8, both([2], [3]), {}).to_json()

    assert (1.5, False, 0.3) == (figure["value"], figure["met"], figure["missed_by"])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (ran(error="Traceback\nno space left"), "no space left"),
        (ran(wrong=("x",)), "wrong bytes were stored by slipway"),
    ],
    ids=["failed", "wrong"],
)
def test_no_figure_rests_on_a_bad_run(bad: Run, why: str) -> None:
    """A run that failed or stored a wrong byte takes the figure with it, and says so."""
    figure = figures.speed("W1", 1.8, [*both([1], [9]), bad], {}).to_json()

    assert (None, False, why) == (figure["value"], figure["met"], figure["why"])


def test_the_import_is_told_apart() -> None:
    """Processor time is judged whole, memory above the import; both name the import's own share."""
    importing = Usage(0.5, 0.5, 60_000_000, 0, 0)
    light = figures.processor([ran(cpu_s=1.4)], importing).to_json()
    memory = figures.memory([ran(memory=100_000_000), ran(memory=190_000_000)], importing).to_json()

    assert (1.4, 0.9, 0.5, True) == (light["value"], light["above_import"], light["import_cpu_s"], light["met"])
    assert (130, 60, False, 2) == (memory["value"], memory["import_mb"], memory["met"], memory["missed_by"])


def test_only_bytes_of_unchanged_shards_count_against_a_change() -> None:
    """The changed shard and the small files may leave the Hub."""
    same, old, new = (Content(name, 10, name, Path(), large=True) for name in ("same", "old", "new"))
    pair = Published("m", "c1", "1", (same, old)), Published("m", "c2", "2", (same, new))
    clean = figures.one_changed([ran(sent={"/lfs/new": 10, "/config.json": 3})], *pair)
    leaky = figures.one_changed([ran(sent={"/lfs/new": 10, "/lfs/same": 1})], *pair)

    assert (0, True) == (clean.value, clean.met)
    assert (1, False) == (leaky.value, leaky.met)


def test_bytes_that_moved_twice_and_what_was_left() -> None:
    """The share is of all bytes over both runs; claims, open uploads and files count as left over."""
    kill = Killed(SIZE // 2, ran(sent={"/lfs/a": SIZE * 51 // 100}, left=("open upload of x",)), ("tmp",))
    twice, left = figures.killed([kill, Killed(0, ran(BASELINE), ())])

    assert twice.value == pytest.approx(0.01)
    assert twice.met
    assert (2, False) == (left.value, left.met)


def test_nothing_changed_takes_the_slowest_store_and_the_most_requests() -> None:
    """Requests are those of the store that counts them."""
    warm = {
        "sink": [{"seconds": 0.1, "requests": 2}, {"seconds": 0.1, "requests": 3}],
        "slow": [{"seconds": 0.2, "requests": 0}],
    }
    requests, seconds = figures.nothing_changed(warm, "sink", [])

    assert (3, False) == (requests.value, requests.met)
    assert (0.2, False) == (seconds.value, seconds.met)


def test_a_node_is_compared_with_the_store_itself() -> None:
    """The share is of the rate at which the store gives the bytes to somebody who throws them away."""
    usage = Usage(0, 0, 0, 0, 0)
    readings = [Reading(way, s, usage, None) for way, s in (("fetch", 2.0), ("read", 1.9), ("copy", 1.0))]
    figure = figures.node(readings)

    assert (0.95, True) == (figure.value, figure.met)
    assert figures.node([*readings, Reading("fetch", 2.0, usage, verified=False)]).value is None
