"""How Slipway is called here; the one place that knows.

``python -m tests.bench.pipe MODEL@REF --store URL --hub URL --times N --stats URL...`` mirrors several times in one
process, and prints what each time took: seconds, and the requests that the servers behind those URLs counted.
"""

import argparse
import contextlib
import io
import json
import sys
import time
import urllib.request

from tests.bench.servers import ROOT

MODULES = (
    "flows.cli.main",
    "flows.cli.weights",
    "tasks.local.stack",
    "tasks._weights.follow",
    "tasks._stores.s3",
    "huggingface_hub.hf_api",
    "boto3.s3.inject",
    "awscrt.checksums",
    "urllib3",
)
"""What a mirror imports: the cost of an import is measured with these, and told apart from that of the work."""


def arguments(model: str, ref: str, *, store: str, hub: str) -> list[str]:
    """Return the arguments of the command line that mirror ``ref`` of ``model``."""
    return ["mirror", f"{model}@{ref}", "--store", store, "--hub", hub, "--json"]


def words(model: str, ref: str, *, store: str, hub: str) -> tuple[str, ...]:
    """Return the command that mirrors in a process of its own."""
    return (str(ROOT / ".venv/bin/slipway"), *arguments(model, ref, store=store, hub=hub))


def importing() -> tuple[str, ...]:
    """Return a command that imports what a mirror does, waits long enough to be looked at, and ends."""
    script = f"import time, {', '.join(MODULES)}\ntime.sleep(0.3)"
    return (str(ROOT / ".venv/bin/python"), "-c", script)


def repeating(model: str, ref: str, *, store: str, hub: str, times: int, stats: list[str]) -> tuple[str, ...]:
    """Return the command that mirrors ``times`` times in one process; see this module."""
    where = ["--store", store, "--hub", hub, "--times", str(times), "--stats", *stats]
    return (str(ROOT / ".venv/bin/python"), "-m", "tests.bench.pipe", f"{model}@{ref}", *where)


def main() -> None:
    """Mirror several times and print a list of what each took."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pipe")
    parser.add_argument("model")
    parser.add_argument("--store", required=True)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--times", type=int, required=True)
    parser.add_argument("--stats", nargs="*", default=[])
    asked = parser.parse_args()
    model, _, ref = asked.model.partition("@")
    taken = []
    for _ in range(asked.times):
        before, begun = _requests(asked.stats), time.perf_counter()
        _mirror(arguments(model, ref, store=asked.store, hub=asked.hub))
        seconds = time.perf_counter() - begun
        taken.append({"seconds": seconds, "requests": _requests(asked.stats) - before})
    sys.stdout.write(json.dumps(taken))


def _mirror(words: list[str]) -> None:
    from flows.cli.main import app  # noqa: PLC0415 - the first mirror pays for the import, as a process does

    with contextlib.redirect_stdout(io.StringIO()):
        app(args=words, standalone_mode=False)


def _requests(stats: list[str]) -> int:
    total = 0
    for url in stats:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - http, on loopback
            total += sum(json.load(answer)["requests"].values())
    return total


if __name__ == "__main__":
    main()
