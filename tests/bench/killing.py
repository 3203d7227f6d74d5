"""Kill -9 in the middle, and the same command again: what moves twice, and what is left over at the end."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.contenders import Contender, Job
from tests.bench.data import Published, warm
from tests.bench.measuring import Failed, kill, start
from tests.bench.running import Bench, Run, run
from tests.bench.servers import SEAWEED

LOOK_S = 0.01


@dataclass(frozen=True)
class Killed:
    """What the Hub had sent when the process was killed, the run that went on, and the files that are left.

    Those of ``hf`` are its download, which stays on the disk by design.
    """

    sent_before: int
    again: Run
    files: tuple[str, ...]

    @property
    def moved_twice(self) -> float:
        """Return the bytes that left the Hub beyond what there is to move, as a share of that."""
        return (self.sent_before + self.again.asked.bytes.total()) / self.again.size - 1

    def to_json(self) -> dict[str, Any]:
        """Return it for the report."""
        kill = {"hub_bytes_before_kill": self.sent_before, "moved_twice": round(self.moved_twice, 4)}
        return self.again.to_json() | kill | {"files_left": len(self.files)}


def kill_and_run_again(bench: Bench, workload: str, published: Published, contender: Contender) -> Killed:
    """Kill ``contender`` once the Hub has sent half of the bytes, and run it again to its end."""
    with bench.target(SEAWEED) as store, bench.scratch() as folder:
        job = bench.job(published, store, folder)
        sent_before = _interrupt(bench, contender, job)
        again = run(bench, workload, contender, job, store)
        return Killed(sent_before, again, _files(folder))


def _interrupt(bench: Bench, contender: Contender, job: Job) -> int:
    """Start the contender, kill it in the middle, and return the bytes that the Hub has sent; raises ``Failed``."""
    warm(job.published)
    before = bench.hub.counted()
    process = start(contender.commands(job)[0], job.folder.with_name("log"))
    try:
        while bench.hub.counted().since(before).bytes.total() < job.published.size / 2:
            if process.poll() is not None:
                raise Failed(f"{contender.name} ended before it could be killed.")
            time.sleep(LOOK_S)
    finally:
        kill(process)
    return bench.hub.settled().since(before).bytes.total()


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
