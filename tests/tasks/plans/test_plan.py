"""Plans: what a release would change, cost and meet, before anything moves."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tasks._checks.prompts import Prompts
from tasks._plans.capacity import Capacity, InCluster, read_capacity, room_of
from tasks._plans.memory_fit import Room
from tasks._plans.plan import Seen, met, plan, planned
from tasks._plans.plan_reading import Contents
from tasks._plans.plan_time import expected
from tasks._plans.planned import Meets, Plan
from tasks._release.journal import Journal
from tasks._release.ray import RayTarget
from tasks._release.world import World
from tasks._stores.folder import FolderStore
from tasks._weights.hub import Hub, HubFile
from tasks._weights.mirror import mirror
from tasks._weights.planning import Plan as Moves
from tasks.errors import NotFound
from tasks.records import Kind, Progress, Release, Request, ServiceRecord, Step, StepName, StepState
from tasks.settings import HubSettings, RaySettings, Settings, StoreSettings
from tasks.spec import Limits, ServiceSpec
from tests.fakes import asgi
from tests.fakes.hubs import MODEL, RunningHub, write_model
from tests.fakes.ray_serve import RayServe, serving

AT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC: dict[str, Any] = {"service": "chat", "model": MODEL, "checks": {"paired": {"enabled": False}}}
FULL = Capacity(cluster=InCluster(enough=False, sentence="No GPU is free.", enough_alone=True))
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]
CONFIG = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "max_position_embeddings": 128}


def on_kubernetes(when_short: str) -> dict[str, Any]:
    """Return the part of a spec that leads its releases to KubeRay."""
    image = f"registry.example.com/payload@sha256:{'0' * 64}"
    return {"target": "kuberay", "kubernetes": {"image": image, "when_short": when_short}}


def a_release(number: int = 1, **spec: Any) -> Release:
    """Return the release of that number."""
    return Release(
        service="chat", number=number, model=MODEL, commit=f"{number:040x}", hub="http://hub", spec=SPEC | spec
    )


def contents(*, config: dict[str, Any] = CONFIG, seed: int = 0, **facts: Any) -> Contents:
    """Return what a commit holds; another seed means other weights."""
    text = json.dumps(config).encode()
    files = {
        "model.safetensors": HubFile(path="model.safetensors", size=10**6, sha256=f"{seed:064x}"),
        "config.json": HubFile(path="config.json", size=len(text), git_sha1=hashlib.sha256(text).hexdigest()[:40]),
    }
    return Contents(files, {"config.json": text}, {"BF16": 500_000}, **facts)


def seen(
    record: ServiceRecord | None = None, spec: dict[str, Any] | None = None, live: Contents | None = None, **more: Any
) -> Seen:
    """Return what a plan of release 2 is made of, where nothing stands against it."""
    asked = SPEC | (spec or {})
    here: dict[str, Any] = {
        "record": record or ServiceRecord(service="chat", next_number=2),
        "request": Request(id="", release=a_release(2, **(spec or {})), at=AT),
        "spec": ServiceSpec.model_validate(asked),
        "moves": Moves(whole=(), copies=(), fetches=(HubFile(path="model.safetensors", size=10**6),), rate=1e5),
        "contents": contents(seed=2),
        "live": live,
        "prompts": Prompts.model_validate(PROMPTS),
        "capacity": Capacity(cpus_needed=1, cpus_free=4),
        "room": Room(8 * 2**30, 4 * 2**30),
        "shares": False,
        "healthy": True if record and record.live else None,
        "faults": (),
    }
    return Seen(**here | more)


def live(**spec: Any) -> ServiceRecord:
    """Return a record in which the first release is live."""
    return ServiceRecord(service="chat", next_number=2, live=a_release(1, **spec))


def test_a_first_release_is_compared_with_nothing() -> None:
    """All bytes differ, and the checks that compare do not run."""
    made = planned(seen())

    assert (made.possible, made.is_needed, made.meets) == (True, True, Meets.NOTHING)
    assert made.moves is not None
    assert made.moves.changed == made.moves.total
    assert made.moves.seconds == 10.0
    assert made.changes == made.spec_changes == ()
    assert [line.split(",")[0] for line in made.checks if "not run" in line] == [
        "paired: not run",
        "performance: not run",
    ]
    assert Plan.from_json(made.to_json()) == made


def test_what_changes_is_told_by_its_key() -> None:
    """Configuration, licence, gating and the spec; weights by their bytes."""
    before = contents(config=CONFIG | {"rope_theta": 1e4}, licence="mit")
    after = contents(config=CONFIG | {"rope_theta": 1e6}, seed=2, licence="llama3", gated=True)
    made = planned(seen(live(engine={"dtype": "float32"}), {"engine": {"dtype": "half"}}, before, contents=after))

    assert [
        "licence: mit -> llama3",
        "gated: no -> yes",
        "config.json: rope_theta: 10000.0 -> 1000000.0",
        'spec: engine.dtype: "float32" -> "half"',
    ] == [one.line for one in (*made.changes, *made.spec_changes)]
    assert made.moves is not None
    assert made.moves.changed == after.total


def test_only_files_that_differ_count() -> None:
    """The weights are those that are live."""
    after = contents(config=CONFIG | {"eos_token_id": 2})
    made = planned(seen(live(), live=contents(), contents=after))

    assert made.moves is not None
    assert made.moves.changed == after.files["config.json"].size


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"faults": ("", "There is no prompt file.")}, "no prompt file"),
        ({"room": Room(10**6)}, "does not fit"),
        ({"capacity": FULL, "spec": on_kubernetes("refuse")}, "no room for the candidate. No GPU is free."),
    ],
)
def test_what_cannot_work_is_refused(more: dict[str, Any], what: str) -> None:
    """With a sentence each, and nothing for the faults that are none."""
    made = planned(seen(**more))

    assert not made.possible
    assert len(made.refusals) == 1
    assert what in made.refusals[0]
    assert made.lines()[-1].startswith("refused: ")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"spec": {"shift": {"steps": [10, 100]}}}, "ignored"),
        ({"spec": {"probe": {"enabled": False}}}, "nothing will prove"),
        ({"capacity": Capacity(cpus_needed=4, cpus_free=1)}, "no room for the candidate"),
        ({"capacity": FULL, "spec": on_kubernetes("wait")}, "ends at `deadlines.ready`. No GPU is free."),
        ({"capacity": FULL, "spec": on_kubernetes("recreate"), "record": live()}, "OUTAGE: there is no room beside"),
        ({"room": Room(8 * 2**30, 10**6)}, "Memory is short"),
        ({"record": live(), "healthy": False}, "does not show it"),
        ({"record": live(), "healthy": None}, "does not answer"),
    ],
)
def test_what_may_fail_is_a_warning(more: dict[str, Any], what: str) -> None:
    """A plan is still possible with it."""
    made = planned(seen(**more))

    assert made.possible
    assert len(made.warnings) == 1
    assert what in made.warnings[0]


def test_a_commit_that_was_refused_has_no_sizes() -> None:
    """Nothing is made up for what could not be read."""
    made = planned(seen(contents=None, moves=None, faults=("The commit is unsafe.",)))

    assert (made.moves, made.memory, made.possible) == (None, None, False)


def current(step: StepName | None, number: int = 1) -> Progress:
    """Return a release on its way that has begun ``step``."""
    steps = (Step(name=step, state=StepState.STARTED, started_at=AT),) if step else ()
    return Progress(release=a_release(number), run="run", opened_at=AT, steps=steps)


@pytest.mark.parametrize(
    ("record", "healthy", "expected"),
    [
        ({}, True, Meets.NOTHING),
        ({"live": a_release(1)}, True, Meets.NOTHING),
        ({"live": a_release(2)}, True, Meets.LIVE),
        ({"live": a_release(2)}, False, Meets.NOTHING),
        ({"current": current(None, 2)}, True, Meets.ON_ITS_WAY),
        ({"current": current(StepName.SMOKE), "live": a_release(2)}, True, Meets.REPLACES),
        ({"current": current(StepName.SHIFT)}, True, Meets.WAITS),
        ({"waiting": Request(id="7", release=a_release(2), at=AT)}, True, Meets.ASKED),
        ({"waiting": Request(id="7", release=a_release(3), at=AT), "live": a_release(2)}, True, Meets.NOTHING),
    ],
)
def test_a_request_meets_what_the_engine_would_meet(record: dict[str, Any], healthy: bool, expected: Meets) -> None:
    """By the engine's own rules."""
    request = Request(id="new", release=a_release(2), at=AT)

    assert met(ServiceRecord(service="chat", **record), request, healthy=healthy)[0] is expected


@pytest.mark.parametrize(
    ("shares", "record", "line"),
    [
        (False, live(), "moves all traffic at once, 0 -> 100"),
        (True, live(), "moves 0 -> 5 -> 100 %, 30 s between two steps"),
        (True, None, "takes the live address, which no release has now"),
    ],
)
def test_a_plan_says_how_traffic_moves(shares: bool, record: ServiceRecord | None, line: str) -> None:
    """A target without shares moves all of it, whatever the spec asks for."""
    assert planned(seen(record, {"shift": {"steps": [5, 100]}}, shares=shares)).traffic == line


def test_time_is_the_median_of_earlier_releases() -> None:
    """Steps without a past are named, roll backs and a person's answer do not count, the bake is the spec's."""

    def took(seconds: int, kind: Kind = Kind.RELEASE) -> Progress:
        done = {"state": StepState.DONE, "started_at": AT, "ended_at": AT.replace(minute=seconds)}
        steps = tuple(Step(name=name, **done) for name in (StepName.READY, StepName.APPROVE, StepName.BAKE))
        return Progress(kind=kind, release=a_release(), run="run", opened_at=AT, steps=steps)

    spec = ServiceSpec.model_validate(SPEC)
    found = expected([took(1), took(3), took(50), took(59, Kind.ROLL_BACK)], spec, 5.0)

    assert found.steps == {"mirror": 5.0, "ready": 180.0, "bake": 20.0}
    assert "smoke" in found.unknown
    assert "approve" not in found.unknown
    assert found.sentence.startswith("about 3.4 minutes by earlier releases, without start, smoke")
    assert expected([], spec, None).seconds is None


@dataclass
class Dashboard:
    """Ray's dashboard, as far as capacity is asked for; answers 404 to what it does not have."""

    answers: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        answer = self.answers.get(Asked(scope).url.path)
        await JSONResponse(answer or {}, 200 if answer else 404)(scope, receive, send)


USAGE = {"data": {"clusterStatus": {"loadMetricsReport": {"usage": {"CPU": [3.0, 8.0], "GPU": [1.0, 2.0]}}}}}
NODES = {"data": {"summary": [{"gpus": [{"memoryTotal": 81920}, {"memoryTotal": 40960}]}, {"gpus": []}, "broken"]}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "free", "enough"),
    [
        ({"/api/cluster_status": USAGE, "/nodes": NODES}, (5.0, 1.0, 40960 * 2**20), True),
        ({"/api/cluster_status": {"data": {"clusterStatus": None}}, "/nodes": [1]}, (None, None, None), None),
        ({}, (None, None, None), None),
    ],
)
def test_capacity_is_what_the_dashboard_says(
    answers: dict[str, Any], free: tuple[float | None, ...], enough: bool | None
) -> None:
    """And not known where it says nothing, or something else."""
    resources = ServiceSpec.model_validate(SPEC | {"resources": {"cpus": 4, "gpus": 1}}).resources
    with asgi.serving(Dashboard(answers)) as (url, _):
        found = read_capacity(RaySettings(dashboard=url), resources)

    assert (found.cpus_free, found.gpus_free, found.gpu_bytes) == free
    assert found.enough is enough
    assert room_of(RaySettings(), found).total == free[2]


def test_only_a_cluster_on_this_machine_has_its_memory() -> None:
    """That of another machine is not known."""
    here = room_of(RaySettings(dashboard="http://127.0.0.1:8265"), Capacity())

    assert here.total is not None
    assert room_of(RaySettings(dashboard="http://ray.example:8265"), Capacity()) == Room()


@dataclass
class Stage:
    """A world to plan in, the settings that lead to it, and its Hub."""

    world: World
    settings: Settings
    hub: RunningHub
    model: Path

    def publish(self, seed: int, **config: Any) -> str:
        """Publish a commit and return its id."""
        write_model(self.model, seed=seed)
        (self.model / "config.json").write_text(json.dumps(CONFIG | config))
        return self.hub.publish(self.model)

    def plan(self) -> Plan:
        """Plan the release of the branch ``main``."""
        return plan(self.world, self.settings, "chat")

    def spec(self, **more: Any) -> None:
        """Write the spec anew."""
        (self.settings.services / "chat.yaml").write_text(json.dumps(SPEC | {"checks": {}} | more))


@pytest.fixture
def stage(tmp_path: Path, server: RunningHub) -> Iterator[Stage]:
    """Return an empty world with a spec and its prompts."""
    for folder in ("services", "store"):
        (tmp_path / folder).mkdir()
    (tmp_path / "services/chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    with serving(RayServe()) as ray:
        settings = Settings(
            services=tmp_path / "services",
            hub=HubSettings(endpoint=server.endpoint),
            store=StoreSettings(url=(tmp_path / "store").as_uri()),
            ray=ray,
        )
        with closing(FolderStore(settings.store)) as store, closing(RayTarget(ray)) as target:
            stage = Stage(World(Hub, store, target, settings.services), settings, server, tmp_path / "model")
            stage.spec()
            yield stage


@pytest.mark.slow
def test_a_plan_of_a_new_commit_reads_and_writes_nothing(stage: Stage) -> None:
    """First of nothing, then against what is live; the store is as it was."""
    first = stage.publish(1)
    assert stage.plan().possible
    assert list(stage.world.store.list("")) == []

    release = a_release(1).model_copy(update={"commit": first, "hub": stage.hub.endpoint, "spec": SPEC})
    with Hub(stage.hub.endpoint) as hub:
        mirror(hub, stage.world.store, MODEL, first, Limits())
    Journal(stage.world.store, "chat").change(
        lambda record: record.model_copy(update={"live": release, "next_number": 2})
    )
    stored = {item.key: item.version for item in stage.world.store.list("")}
    stage.publish(2, rope_theta=5)
    made = stage.plan()

    assert made.possible, made.refusals
    assert (made.release.name, made.meets) == ("chat-r2", Meets.NOTHING)
    assert "config.json: rope_theta: new, 5" in [one.line for one in made.changes]
    assert made.memory is not None
    assert made.memory.per_token == 2 * 2 * 4 * 16 * 2
    assert made.moves is not None
    assert made.moves.to_fetch > 3_000_000
    assert stored == {item.key: item.version for item in stage.world.store.list("")}
    assert any(line.startswith("paired: ") for line in made.checks)


@pytest.mark.slow
def test_a_commit_that_is_there_costs_the_hub_one_question(stage: Stage) -> None:
    """Whether it is live is asked of the record; that the cluster lost it is said."""
    commit = stage.publish(1)
    release = stage.plan().release
    with Hub(stage.hub.endpoint) as hub:
        mirror(hub, stage.world.store, MODEL, commit, Limits())
    Journal(stage.world.store, "chat").change(lambda record: record.model_copy(update={"live": release}))
    stage.hub.faults.requests.clear()

    made = stage.plan()

    assert len(stage.hub.faults.requests) == 1
    assert (made.moves.to_fetch, made.moves.changed) == (0, 0) if made.moves else False
    assert made.meets is Meets.NOTHING
    assert any("does not show it" in one for one in made.warnings)
    stage.world.target.start(release, "s3://bucket")
    stage.world.target.shift("chat", release.name)
    deadline = stage.world.clock.ticks(5.0, 0.02)
    assert any(stage.plan().meets is Meets.LIVE for _ in deadline)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"limits": {"licences": ["apache-2.0"]}}, "licence"),
        ({"checks": {"prompts": "none.yaml"}}, "no prompt file"),
        ({"signature": {"public_key": "none.pem"}}, "cannot be read"),
        ({"signature": {"public_key": "chat.yaml"}}, "no PEM file"),
        ({"signature": {"public_key": "key.pem"}}, "without the signature"),
        ({"limits": {"files": 1}}, "more than the 1 allowed"),
        ({"checks": {"plugins": [{"name": "mine", "use": "no.such:check"}]}}, "mine"),
    ],
)
def test_what_the_spec_forbids_is_refused_in_seconds(stage: Stage, spec: dict[str, Any], what: str) -> None:
    """Before a byte is moved, and everything else is still planned."""
    stage.publish(1)
    (stage.settings.services / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    stage.spec(**spec)
    made = stage.plan()

    assert len(made.refusals) == 1
    assert what in made.refusals[0]
    assert list(stage.world.store.list("")) == []


@pytest.mark.slow
def test_a_commit_with_code_is_refused(stage: Stage) -> None:
    """In its listing, or in a configuration that asks for it."""
    stage.publish(1, auto_map={"AutoModel": "evil.Model"})
    (asks,) = stage.plan().refusals
    (stage.model / "evil.py").write_text("print()")
    stage.publish(2)
    (is_code,) = stage.plan().refusals

    assert "auto_map" in asks
    assert "evil.py" in is_code


@pytest.mark.slow
def test_a_ref_that_is_none_is_not_found(stage: Stage) -> None:
    """There is nothing to plan."""
    stage.publish(1)
    stage.spec(ref="nowhere")
    with pytest.raises(NotFound):
        stage.plan()
