"""Releases on a real cluster with KubeRay's operator, clients at the live address all the time.

Asked for by ``SLIPWAY_E2E=1``, on the cluster of ``KUBECONFIG``: any that ``k8s/README.md`` led to step 7, with the
variables set there.  The service ``SLIPWAY_E2E_SERVICE`` (``chat``) has its spec in ``SLIPWAY_SERVICES``, and
no release yet.  ``SLIPWAY_E2E_COMMITS`` names three commits of its model, two good ones and one whose answers are
wrong; without it they are those of the sample model, from a Hub on this machine.  What was seen is written to
``SLIPWAY_E2E_REPORT``, a file.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from k8s.access import Access
from k8s.api import Api
from k8s.kinds import PDB, RAY_SERVICE, SERVICE
from k8s.names import SERVICE as SERVICE_LABEL
from tasks._checks.prompts import load_prompts
from tasks._checks.quality import quality
from tasks._clients.probe import Probe
from tasks._clients.receipt import Receipt, receipt
from tasks._clients.turns import Turn
from tasks._release import wishes
from tasks._release.engine import Engine
from tasks._release.world import World, open_world
from tasks._spec_file import load_spec
from tasks.local.environments import ROOT, environment_python
from tasks.local.hub.publishing import publish
from tasks.records import Approval, Kind, Outcome, Progress, Question, Request, Verdict
from tasks.settings import Settings, read_settings
from tasks.spec import ServiceSpec
from tests.fakes.hub_server import serving

CONVERSION_S = 900
GONE_S = 600.0
STREAM_TOKENS, RATE, STREAMS, PAUSE_S = 48, 0.5, 2, 2.0
"""What clients do: little, as nodes may be small, and streams without end, because those are what is lost."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("SLIPWAY_E2E") != "1" or not os.environ.get("KUBECONFIG"),
        reason="Needs a cluster with KubeRay: set SLIPWAY_E2E=1 and KUBECONFIG, or run `make test-cluster`.",
    ),
]


@dataclass
class Story:
    """What happened, in order: how each act ended, how long it took as clients see it, and what is left of it."""

    acts: dict[str, Progress] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    there: dict[str, set[str]] = field(default_factory=dict)
    """The releases in the cluster when an act had ended."""
    proof: Receipt | None = None

    def document(self) -> dict[str, Any]:
        """Return what is written down."""
        assert self.proof is not None
        acts = {
            name: {
                "release": ended.release.name,
                "outcome": ended.outcome.value if ended.outcome else None,
                "seconds": round(self.seconds[name], 1),
                "steps": ended.seconds(),
                "checks": {check.name: check.verdict.value for check in ended.checks},
                "why": ended.failure.reason if ended.failure else "",
                "there": sorted(self.there[name]),
            }
            for name, ended in self.acts.items()
        }
        return {"acts": acts, "clients": self.proof.model_dump(mode="json", exclude={"seconds"})}


@dataclass
class Stage:
    """One service on the cluster."""

    settings: Settings
    spec: ServiceSpec
    world: World
    hub: str
    engine: Engine
    story: Story = field(default_factory=Story)

    def act(self, name: str, wish: Callable[[], Request]) -> Progress:
        """Carry what is wished for to its end, and keep what was seen."""
        began = time.monotonic()
        ended = self.engine.carry(self.engine.ask(wish()), consult=self._grant)
        assert ended is not None, f"a newer request took the place of {name!r}"
        self.story.acts[name], self.story.seconds[name] = ended, time.monotonic() - began
        self.story.there[name] = set(self.engine.observe().placements)
        return ended

    def release(self, name: str, commit: str) -> Progress:
        """Release a commit."""
        wanted = wishes.wanted(self.spec, commit, self.hub)
        return self.act(name, lambda: wishes.to_release(wanted, **self._wish(name)))

    def roll_back(self, name: str) -> Progress:
        """Go back to the release before the live one."""
        return self.act(name, lambda: wishes.to_roll_back(self.engine.record, None, **self._wish(name)))

    def promote(self, name: str, release: str) -> Progress:
        """Bring an earlier release back to live traffic."""
        return self.act(name, lambda: wishes.to_promote(self.engine.record, release, **self._wish(name)))

    def _grant(self, question: Question) -> None:
        """Let a release go on whose checks could not tell, as on a busy machine; what was seen is written down."""
        answer = {"granted": True, "who": "the tests", "why": "clients tell", "at": self.world.clock.now()}
        self.engine.answer(Approval(step=question.step, **answer))

    def _wish(self, name: str) -> dict[str, Any]:
        return {"run": os.urandom(8).hex(), "actor": "the tests", "reason": name, "at": self.world.clock.now()}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Play all acts once, with clients from the first release on; no release is left."""
    folder = tmp_path_factory.mktemp("e2e")
    with ExitStack() as stack:
        settings = _settings(folder)
        spec = load_spec(settings.services, os.environ.get("SLIPWAY_E2E_SERVICE", "chat"))
        hub, commits = _commits(stack, settings, spec, folder)
        world = replace(stack.enter_context(open_world(settings)), judge=quality)
        stack.callback(_remove, settings, spec.service)
        engine = Engine(world, spec.service, run=os.urandom(8).hex())
        assert engine.record.live is None, f"{spec.service} has been released: use a service of its own"
        stage = Stage(settings, spec, world, hub, engine)
        _play(stage, commits, folder)
        if report := os.environ.get("SLIPWAY_E2E_REPORT"):
            Path(report).write_text(json.dumps(stage.story.document(), indent=1) + "\n")
        yield stage.story


def _play(stage: Stage, commits: tuple[str, str, str], folder: Path) -> None:
    good, better, bad = commits
    first = stage.release("first", good)
    address = stage.world.target.address(stage.spec.service)
    prompts = load_prompts(stage.settings.services / stage.spec.checks.prompts)
    with Probe(
        address,
        model=stage.spec.service,
        prompts=[prompt.prompt for prompt in prompts.all],
        rate=RATE,
        streams=STREAMS,
        max_tokens=STREAM_TOKENS,
        deadline_s=stage.spec.deadlines.request * 2,
        pause_s=PAUSE_S,
        options={"ignore_eos": True},
        journal=folder / "clients.jsonl",
    ) as probe:
        second = stage.release("second", better)
        stage.release("bad", bad)
        stage.roll_back("roll back")
        stage.promote("promote", second.release.name)
        third = stage.release("third", good)
        requests = probe.stop()
    turns = [Turn(release=ended.release.name) for ended in (first, second, third)]
    stage.story.proof = receipt(requests, probe.report, turns=turns)


def _settings(folder: Path) -> Settings:
    kubeconfig = Path(os.environ["KUBECONFIG"])
    settings = read_settings()
    kubernetes = settings.kubernetes.model_copy(update={"kubeconfig": kubeconfig})
    return settings.model_copy(update={"kubernetes": kubernetes, "home": folder})


def _commits(
    stack: ExitStack, settings: Settings, spec: ServiceSpec, folder: Path
) -> tuple[str, tuple[str, str, str]]:
    """Return the Hub, and two good commits of the model and one whose answers are wrong."""
    if named := os.environ.get("SLIPWAY_E2E_COMMITS"):
        good, better, bad = named.split()
        return settings.hub.endpoint, (good, better, bad)
    models = read_settings().home.absolute() / "models"
    maker = [environment_python("payload"), "-m", "serve.sample_model", models]
    subprocess.run(maker, cwd=ROOT, check=True, capture_output=True, timeout=CONVERSION_S)
    root = folder / "hub"
    root.mkdir()
    good, better, bad = (
        publish(root, spec.model, models / name, message=name) for name in ("good", "tuned", "damaged")
    )
    return stack.enter_context(serving(root)).endpoint, (good, better, bad)


def _remove(settings: Settings, service: str) -> None:
    """Delete the addresses and releases of the service, and wait until they are gone."""
    kubernetes = settings.kubernetes
    selector = f"{SERVICE_LABEL}={service}"
    access = Access(kubeconfig=kubernetes.kubeconfig, context=kubernetes.context, namespace=kubernetes.namespace)
    with closing(Api(access)) as api:
        deadline = time.monotonic() + GONE_S
        for kind in (SERVICE, RAY_SERVICE):
            for one in api.list(kind, selector).items:
                api.delete(kind, one["metadata"]["name"], one["metadata"]["uid"])
                if kind is RAY_SERVICE and (budget := api.get(PDB, one["metadata"]["name"])) is not None:
                    api.delete(PDB, one["metadata"]["name"], budget["metadata"]["uid"])
        while api.list(RAY_SERVICE, selector).items:
            assert time.monotonic() < deadline, f"releases of {service} do not go"
            time.sleep(1)


def test_two_commits_are_promoted(story: Story) -> None:
    """Each starts beside what is live, is judged by its answers, and takes all traffic."""
    for name in ("first", "second", "third"):
        ended = story.acts[name]
        assert Outcome.PROMOTED is ended.outcome, ended.failure
        assert Verdict.FAIL not in {check.verdict for check in ended.checks}, ended.checks


def test_a_commit_with_wrong_answers_is_refused_and_removed(story: Story) -> None:
    """It is healthy and fast, and no client ever meets it."""
    ended = story.acts["bad"]

    assert Outcome.REFUSED is ended.outcome
    assert ended.failure is not None
    assert "facts" in ended.failure.reason
    assert ended.release.name not in story.there["bad"]
    assert story.proof is not None
    assert ended.release.name not in story.proof.by_release


def test_traffic_goes_back_and_forth_without_a_start(story: Story) -> None:
    """The release before is warm, so a roll back takes no longer than its checks."""
    back, forth = story.acts["roll back"], story.acts["promote"]

    assert (Kind.ROLL_BACK, Outcome.PROMOTED) == (back.kind, back.outcome)
    assert (Kind.PROMOTE, Outcome.PROMOTED) == (forth.kind, forth.outcome)
    assert story.acts["first"].release == back.release
    assert story.acts["second"].release == forth.release
    assert story.there["second"] == story.there["roll back"] == story.there["promote"]


def test_the_oldest_release_is_removed(story: Story) -> None:
    """Beside the live release the one before it is kept, and no other."""
    assert {story.acts[name].release.name for name in ("second", "third")} == story.there["third"]


def test_no_client_lost_anything(story: Story) -> None:
    """Across every switch and every removal."""
    proof = story.proof
    assert proof is not None

    assert (0, 0, 0) == (proof.lost, proof.truncated, proof.wrong)
    assert proof.requests >= 100
    assert {story.acts[name].release.name for name in ("first", "second", "third")} == set(proof.by_release)
