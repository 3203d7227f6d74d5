"""The demonstration: one service through three releases on the embedded stack, under the eyes of a probe.

Nothing in it is special to it: the commits are published on the Hub server as anyone would, the releases are runs
of the deployment ``release``, and the probe's clients use the live address.  It only tells the story and checks
that it ended as it should: a first release and a better one promoted, a bad one refused for its answers, and no
request lost.  Its stack is its own: one that holds other work is left alone.
"""

import fcntl
import importlib.metadata
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks._checks.prompts import load_prompts
from tasks._clients.completions import ask
from tasks._clients.probe import Probe
from tasks._clients.receipt import Receipt, receipt
from tasks._clients.receipt_text import sentence
from tasks._clients.timeline import timeline
from tasks._clients.turns import Turn
from tasks._release.journal import evidence_key
from tasks._release.news import step_line
from tasks._spec_file import load_spec
from tasks._stores.store import open_store
from tasks.errors import BadInput, CandidateFailed, Conflict, MachineError
from tasks.following import Follower
from tasks.local.environments import ROOT, environment_python
from tasks.local.hub.publishing import publish
from tasks.local.processes import last_line
from tasks.local.stack import Stack, down, up
from tasks.local.state import demonstration_mark, read_state
from tasks.records import Outcome, Progress, ServiceRecord, StepName, Value, Verdict
from tasks.reporting import publish_receipt, release_markdown
from tasks.runs import RELEASE, start_run
from tasks.settings import Settings
from tasks.spec import ServiceSpec

SERVICE = "chat"
QUESTION = "What is the capital of France?"
STEADY_STREAMS, STEADY_RATE, STEADY_TOKENS, STEADY_PAUSE = 2, 0.5, 32, 1.0
"""What clients do all along: few and with pauses, because the candidate starts on the same two cores."""
SWITCH_STREAMS, SWITCH_TOKENS, LEAST_STREAMS = 36, 160, 30
"""Streams held open while a switch is near, and how many of them the receipt must show open across it."""
CONVERSION_DEADLINE = 600.0
LIVE_DEADLINE = 600.0


@dataclass(frozen=True)
class Chapter:
    """One release of the story: the files that become a commit, and how it should end."""

    title: str
    files: str
    ends: Outcome


CHAPTERS = (
    Chapter("a first release", "good", Outcome.PROMOTED),
    Chapter("a good new commit", "tuned", Outcome.PROMOTED),
    Chapter("a bad new commit", "damaged", Outcome.REFUSED),
)


class Live(Value):
    """What answers at the end."""

    release: str
    commit: str
    answer: str


class Demo(Value):
    """What the demonstration showed."""

    releases: tuple[Progress, ...]
    receipt: Receipt
    live: Live
    addresses: dict[str, str]
    versions: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Return what ``demo.json`` holds."""
        return {
            "releases": [_release_document(progress) for progress in self.releases],
            "receipt": self.receipt.model_dump(mode="json", exclude={"seconds"})
            | {"streams_open_across": self.receipt.streams_open_across},
            "live": self.live.model_dump(),
            "versions": self.versions,
        }


def run_demo(home: Path, *, keep: bool, say: Callable[[str], None]) -> Demo:
    """Show the three releases and return what was seen; the stack is gone afterwards unless ``keep``.

    Raises ``BadInput`` when ``home`` holds a stack that is not a demonstration's, ``MachineError`` when this
    machine cannot run it, and ``CandidateFailed`` when the story took another turn than it should.
    """
    with _claimed(home):
        good = False
        try:
            down(home, wipe=True)
            demonstration_mark(home).touch()
            with _sample_model(home, say) as made:
                stack = up(home, progress=say)
                made()
            shown = _tell(stack, say)
            _judge(shown)
            good = True
        finally:
            if not (keep and good):
                say("Stopping the stack.")
                down(home)
    return shown


@contextmanager
def _claimed(home: Path) -> Iterator[None]:
    """Hold ``home`` for one demonstration; raises ``BadInput`` when it is a person's own, ``Conflict`` when taken."""
    run = home / "run"
    run.mkdir(parents=True, exist_ok=True)
    if read_state(home) is not None and not demonstration_mark(home).exists():
        raise BadInput(
            f"{home} holds a stack that is not the demonstration's, which would delete its weights and records.",
            remedy="Run `slipway down --wipe` if they are not needed, or set SLIPWAY_HOME to another folder.",
        )
    with (run / "demonstration.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"Another demonstration uses {home}.", remedy="Wait until it has ended.") from error
        yield


@contextmanager
def _sample_model(home: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Make the sample model's three commits beside other work; the yielded call waits for them.

    A later demonstration finds them made.
    """
    log = home / "logs" / "model.log"
    log.parent.mkdir(exist_ok=True)
    say("Turning the packaged SmolLM2-135M into the files of three commits.")
    command = [str(environment_python("payload")), "-m", "serve.sample_model", str(home.absolute() / "models")]
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as maker:

        def made() -> None:
            try:
                code = maker.wait(CONVERSION_DEADLINE)
            except subprocess.TimeoutExpired:
                code = None
            if code != 0:
                raise MachineError(
                    f"The sample model cannot be made; the last it said is: {last_line(log)}",
                    remedy=f"See that 2 GB of memory and of disk are free; its whole log is {log}.",
                )
            say("The files of three commits are ready.")

        try:
            yield made
        finally:
            maker.kill()


def _tell(stack: Stack, say: Callable[[str], None]) -> Demo:
    settings = Settings(**stack.settings())
    spec = load_spec(settings.services, SERVICE)
    with _probing(stack, settings, spec) as probe:
        releases = tuple(_chapter(stack, settings, spec, probe, chapter, say) for chapter in CHAPTERS)
        answer = ask(f"{stack.serve}/{SERVICE}", SERVICE, QUESTION, max_tokens=32, timeout_s=spec.deadlines.request)
        requests = probe.stop()
    promoted = {progress.release.name for progress in releases if progress.outcome is Outcome.PROMOTED}
    proof = receipt(requests, probe.report, turns=[Turn(release=name) for name in promoted])
    drawing = stack.home / "report" / "timeline.svg"
    drawing.parent.mkdir(exist_ok=True)
    drawing.write_text(timeline(proof))
    shown = Demo(
        releases=releases,
        receipt=proof,
        live=Live(release=answer.release or "", commit=answer.commit or "", answer=answer.text),
        addresses={
            "live endpoint": f"{stack.serve}/{SERVICE}",
            "Prefect UI": stack.prefect,
            "receipt there": f"{stack.prefect}/artifacts/key/receipt-{SERVICE}",
            "Ray dashboard": stack.ray,
        },
        versions=_versions(),
    )
    _write(stack.home, settings, shown)
    publish_receipt(stack.prefect_api, SERVICE, proof, drawing)
    return shown


@contextmanager
def _probing(stack: Stack, settings: Settings, spec: ServiceSpec) -> Iterator[Probe]:
    prompts = load_prompts(settings.services / spec.checks.prompts)
    with Probe(
        f"{stack.serve}/{SERVICE}",
        model=SERVICE,
        prompts=[prompt.prompt for prompt in prompts.all],
        rate=STEADY_RATE,
        streams=STEADY_STREAMS,
        max_tokens=STEADY_TOKENS,
        deadline_s=spec.deadlines.request * 2,
        pause_s=STEADY_PAUSE,
        options={"ignore_eos": True},
        journal=stack.home / "probe.jsonl",
    ) as probe:
        yield probe


def _chapter(
    stack: Stack, settings: Settings, spec: ServiceSpec, probe: Probe, chapter: Chapter, say: Callable[[str], None]
) -> Progress:
    files = stack.home / "models" / chapter.files
    commit = publish(stack.home / "hub", spec.model, files, message=chapter.title)
    say(f"\n{chapter.title}: {spec.model} is now at commit {commit[:12]}")
    with closing(Follower(settings, SERVICE)) as follower:
        run = start_run(settings.prefect_api, RELEASE, {"service": SERVICE, "reason": chapter.title})
        end = follower.follow(
            run,
            on_step=lambda progress, step: say(step_line(progress, step)),
            on_look=lambda record: _crowd(probe, record),
        )
        live = follower.record.live
    if end.release is None or end.release.outcome is not chapter.ends:
        raise CandidateFailed(
            f"{chapter.title!r} should have been {chapter.ends.value}: {end.message}",
            remedy=f"The logs are in {stack.home / 'logs'}.",
        )
    if live == end.release.release:
        probe.wait_until_live(LIVE_DEADLINE)
    return end.release


def _crowd(probe: Probe, record: ServiceRecord) -> None:
    """Hold many long streams open while a switch away from a live release is near, and few else."""
    current = record.current
    near = (
        record.live is not None
        and current is not None
        and current.failure is None
        and current.done(StepName.READY)
        and not current.done(StepName.SHIFT)
    )
    if near:
        probe.set_streams(SWITCH_STREAMS, max_tokens=SWITCH_TOKENS)
    else:
        probe.set_streams(STEADY_STREAMS, max_tokens=STEADY_TOKENS)


def _judge(demo: Demo) -> None:
    """Raise ``CandidateFailed`` unless clients lost nothing, many were there, and the second release answers."""
    if demo.receipt.verdict is not Verdict.PASS:
        raise CandidateFailed(f"The receipt proves nothing good: {sentence(demo.receipt)}")
    if demo.receipt.streams_open_across < LEAST_STREAMS:
        raise CandidateFailed(
            f"Only {demo.receipt.streams_open_across} streams were open across the switch, not {LEAST_STREAMS}."
        )
    if demo.live.release != demo.releases[1].release.name or "Paris" not in demo.live.answer:
        raise CandidateFailed(f"{demo.live.release or 'Nothing'} is live and answers {demo.live.answer!r}.")


def _write(home: Path, settings: Settings, demo: Demo) -> None:
    (home / "demo.json").write_text(json.dumps(demo.document(), indent=1) + "\n")
    (home / "report" / "receipt.json").write_bytes(demo.receipt.to_json())
    (home / "report" / "releases.md").write_text("\n".join(release_markdown(one) for one in demo.releases))
    with closing(open_store(settings.store)) as store:
        for one in demo.releases:
            page = store.get(evidence_key(one, "report.html"))
            if page is not None:
                (home / "report" / f"{one.release.name}.html").write_bytes(page[0])


def _release_document(progress: Progress) -> dict[str, Any]:
    return {
        "name": progress.release.name,
        "commit": progress.release.commit,
        "outcome": progress.outcome.value if progress.outcome else None,
        "reason": progress.failure.reason if progress.failure else progress.reason,
        "checks": [{"name": check.name, "verdict": check.verdict.value} for check in progress.checks],
        "seconds": progress.seconds(),
    }


def _versions() -> dict[str, str]:
    payload = environment_python("payload").parent.parent / "lib"
    packages = [str(folder) for folder in payload.glob("python3.*/site-packages")]
    served = {one.name: one.version for one in importlib.metadata.distributions(path=packages)}
    ours = {name: importlib.metadata.version(name) for name in ("prefect", "huggingface-hub", "great-expectations")}
    return ours | {name: served[name] for name in ("ray", "vllm", "torch") if name in served}
