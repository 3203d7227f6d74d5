"""What Slipway's process costs before it does anything: the import of what a mirror needs."""

from statistics import median

from tests.bench import pipe
from tests.bench.data import Published
from tests.bench.measuring import Usage, measure
from tests.bench.running import Bench
from tests.bench.servers import SINK

TIMES = 3


def cost_of_import(bench: Bench, published: Published) -> Usage:
    """Return the median usage of a process that imports and ends."""
    with bench.target(SINK) as store, bench.scratch() as folder:
        command = bench.job(published, store, folder).own_command(*pipe.importing())
        taken = [measure([command], folder.with_name("log")) for _ in range(TIMES)]
    return Usage(*(median(getattr(each, name) for each in taken) for name in Usage.__dataclass_fields__))
