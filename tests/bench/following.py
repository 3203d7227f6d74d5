"""A store that holds a commit already: the same one again, one of which a shard differs, and a warm process."""

import json

from tests.bench import pipe
from tests.bench.contenders import Contender
from tests.bench.data import Published
from tests.bench.measuring import measure
from tests.bench.running import Bench, Run, run
from tests.bench.servers import SEAWEED

TIMES_WARM = 4


def follow(bench: Bench, workload: str, contender: Contender, first: Published, second: Published) -> tuple[Run, Run]:
    """Let ``contender`` move ``first``, then ``second`` into the same store and from the same folder."""
    with bench.target(SEAWEED) as store, bench.scratch() as folder:
        job = bench.job(first, store, folder)
        before = run(bench, f"{workload}: before", contender, job, store)
        also = {contender.keys(job): first}
        return before, run(bench, workload, contender, bench.job(second, store, folder), store, also=also)


def repeat_warm(bench: Bench, published: Published, kind: str) -> list[dict[str, float]]:
    """Mirror ``published`` several times in one process, which finds nothing to do after the first.

    Returns seconds, and requests to all servers that count, of every time but the first.
    """
    with bench.target(kind) as store, bench.scratch() as folder:
        job = bench.job(published, store, folder)
        stats = [server.stats for server in (bench.hub, store.server) if server]
        words = pipe.repeating(
            published.model, published.ref, store=job.address, hub=job.hub, times=TIMES_WARM, stats=stats
        )
        log = folder.with_name("log")
        measure([job.own_command(*words)], log)
        taken: list[dict[str, float]] = json.loads(log.read_text().splitlines()[-1])
        bench.say(f"warm process, {kind}: {[round(each['seconds'], 3) for each in taken[1:]]} s")
        return taken[1:]
