"""How fast a node reads a commit from the store, verified, against the same bytes from the same store unverified."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.local.hub.objects import sha256_of
from tests.bench.contenders import PIPE, Job
from tests.bench.data import Content, Published
from tests.bench.measuring import Failed, Usage, await_quiet, measure, rounded
from tests.bench.running import Bench, run
from tests.bench.servers import ROOT, SEAWEED, Target

PYTHON = ROOT / "serve/.venv/bin/python"
WAYS = {
    "fetch": "serve.weights.fetch: to local disk, sha256 of every file compared",
    "read": "the same objects over as many connections, thrown away: the store's own rate",
    "copy": "the same objects over as many connections, to local disk, nothing compared",
}


@dataclass(frozen=True)
class Reading:
    """One read of the commit: ``seconds`` without the start of its process, which ``usage`` has."""

    way: str
    seconds: float
    usage: Usage
    verified: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return it for the report."""
        process = {f"process_{name}": value for name, value in rounded(self.usage).items()}
        return {"way": self.way, "seconds": round(self.seconds, 3), "verified": self.verified} | process


def read_in_turns(bench: Bench, published: Published, times: int) -> list[Reading]:
    """Mirror the commit once, then read it every way, ``times`` times in turns; raises ``Failed``."""
    if not PYTHON.exists():
        raise Failed("The payload's environment is not installed.")
    with bench.target(SEAWEED) as store, bench.scratch() as folder:
        job = bench.job(published, store, folder)
        if not run(bench, "node: before", PIPE, job, store).good:
            raise Failed("The commit to read could not be mirrored.")
        return [_read(bench, published, store, PIPE.keys(job), way) for _ in range(times) for way in WAYS]


def _read(bench: Bench, published: Published, store: Target, keys: str, way: str) -> Reading:
    with bench.scratch() as folder:
        job = Job(published, bench.hub.endpoint, store.settings, folder)
        cache = folder / "cache"
        cache.mkdir()
        url = f"{store.settings.url}/{keys.rstrip('/')}"
        command = job.own_command(PYTHON, ROOT / "tests/bench/reader.py", way, url, cache)
        await_quiet(bench.patience_s)
        log = folder.with_name("log")
        usage = measure([command], log)
        seconds = json.loads(log.read_text().splitlines()[-1])["seconds"]
        found = {path.name: path for path in cache.rglob("*") if path.is_file()}
        verified = None if way == "read" else all(_is_right(file, found) for file in published.files)
        bench.say(f"{'node: ' + way:16} {'':15} {seconds:6.2f} s {published.size / seconds / 1e6:5.0f} MB/s")
        return Reading(way, seconds, usage, verified)


def _is_right(file: Content, found: dict[str, Path]) -> bool:
    return file.path in found and sha256_of(found[file.path]) == file.sha256
