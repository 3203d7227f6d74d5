"""The flow ``release`` as Prefect runs it: states, names and artifacts, on a small cluster and real S3 and Hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.release import release as release_flow
from tasks._engine import Engine
from tasks._journal import Journal
from tasks._stores.store import open_store
from tasks._world import open_world
from tasks.errors import BadInput, NotFound
from tasks.following import Follower
from tasks.records import ServiceRecord
from tasks.releasing import resolve
from tasks.runs import read_run, start_run
from tasks.settings import RaySettings, Settings, StoreSettings, read_settings
from tests.fakes.context_engine import ContextEngine
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving
from tests.fakes.s3 import seaweed

pytestmark = [
    pytest.mark.slow,
    # Prefect's own test server is left to close its sockets when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SPEC = f"""
service: chat
model: {MODEL}
bake: {{seconds: 0.3, interval: 0.1}}
deadlines: {{ready: 5, request: 5}}
"""
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Run an S3 server for this module."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


class Stage:
    """What a flow finds around it, and what it left."""

    def __init__(self, folder: Path, hub: RunningHub, store: StoreSettings, api: str) -> None:
        self.said = "The capital of France is Paris."
        self.hub, self.store, self.api, self._folder = hub, store, api, folder
        self.cluster = RayServe(engine=self._engine)

    def _engine(self, args: dict[str, Any]) -> ContextEngine:
        said = self.said
        return ContextEngine(
            answer=lambda _messages: said, release=args["release"], commit=args["commit"], model="chat"
        )

    def publish(self, seed: int) -> str:
        """Make a new commit the head of ``main``."""
        return self.hub.publish(write_model(self._folder / "model", seed=seed))

    def record(self) -> ServiceRecord:
        """Return the service's record."""
        opened = open_store(self.store)
        try:
            return Journal(opened, "chat").record
        finally:
            opened.close()

    def artifacts(self) -> dict[str, str]:
        """Return the newest text of each artifact."""
        with SyncPrefectClient(api=self.api) as client:
            found = client.read_artifacts(limit=200)
        return {str(one.key): str(one.data) for one in reversed(found)}

    def run_of(self, state: State[Any]) -> FlowRun:
        """Return the flow run that ended in ``state``."""
        with SyncPrefectClient(api=self.api) as client:
            return client.read_flow_run(UUID(str(state.state_details.flow_run_id)))


@pytest.fixture
def stage(prefect_api: str, s3: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Set the stage and point the settings at it."""
    (tmp_path / "chat.yaml").write_text(SPEC)
    (tmp_path / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    store = s3.model_copy(update={"url": f"{s3.url}/{tmp_path.name}"})
    with running_hub(tmp_path / "hub") as hub:
        shown = Stage(tmp_path, hub, store, prefect_api)
        with serving(shown.cluster) as ray:
            for name, value in variables(tmp_path, hub, store, ray).items():
                monkeypatch.setenv(name, value)
            yield shown


def variables(services: Path, hub: RunningHub, store: StoreSettings, ray: RaySettings) -> dict[str, str]:
    """Return the variables that a worker would have."""
    assert store.endpoint
    assert store.access_key
    assert store.secret_key
    assert ray.token
    return {
        "SLIPWAY_SERVICES": str(services),
        "SLIPWAY_HUB__ENDPOINT": hub.endpoint,
        "SLIPWAY_STORE__URL": store.url,
        "SLIPWAY_STORE__ENDPOINT": store.endpoint,
        "SLIPWAY_STORE__ACCESS_KEY": store.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": store.secret_key.get_secret_value(),
        "SLIPWAY_RAY__DASHBOARD": ray.dashboard,
        "SLIPWAY_RAY__SERVE": ray.serve,
        "SLIPWAY_RAY__TOKEN": ray.token.get_secret_value(),
    }


def release(**parameters: Any) -> State[Any]:
    """Run the flow and return the state it ended in."""
    state: State[Any] = release_flow(service="chat", return_state=True, **parameters)
    return state


def test_a_good_commit_is_promoted_and_told(stage: Stage) -> None:
    """The run is Completed, named after its release, and its report is an artifact."""
    commit = stage.publish(1)

    state = release(reason="because")

    assert (StateType.COMPLETED, "chat-r1 is live") == (state.type, state.message)
    assert f"chat-r1: {commit[:12]}" == stage.run_of(state).name
    assert "# chat-r1: promoted" in stage.artifacts()["release-chat"]
    assert "facts" in stage.artifacts()["chat-r1-quality"]
    ended = stage.record().past[-1]
    assert ("because", str(state.state_details.flow_run_id)) == (ended.reason, ended.run)


def test_a_commit_that_is_live_already_is_left_alone(stage: Stage) -> None:
    """Running twice makes one release."""
    stage.publish(1)
    release()

    state = release()

    assert StateType.COMPLETED is state.type
    assert "is live already" in str(state.message)
    assert 1 == len(stage.record().past)


def test_a_refused_commit_fails_the_run_with_its_reason_and_no_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is told as one, not as a crash."""
    stage.publish(1)
    release()
    stage.said = "rk rk rk rk"
    stage.publish(2)

    state = release()

    assert StateType.FAILED is state.type
    assert str(state.message).startswith("chat-r2 was refused: facts")
    assert "chat-r1" == getattr(stage.record().live, "name", None)
    assert not [line for line in caplog.records if line.name == "prefect.flow_runs" and line.exc_info]


def test_a_newer_wish_ends_what_a_dead_run_left(stage: Stage) -> None:
    """The older release is given up before it shifted traffic, and the newer one is made."""
    stage.publish(1)
    settings = read_settings()
    with open_world(settings) as world:
        Engine(world, "chat").begin(resolve.fn(world, settings, "chat", None, None, None), run="dead", reason="older")
    stage.publish(2)

    state = release()

    assert "chat-r2 is live" == state.message
    assert ["failed", "promoted"] == [one.outcome and one.outcome.value for one in stage.record().past]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        pytest.param({"ref": "nope"}, NotFound, id="ref"),
        pytest.param({"model": "no-slash"}, BadInput, id="model"),
    ],
)
def test_a_wish_that_makes_no_sense_touches_nothing(
    stage: Stage, parameters: dict[str, str], error: type[Exception]
) -> None:
    """The run fails before a release is opened."""
    stage.publish(1)

    state = release(**parameters)

    assert StateType.FAILED is state.type
    with pytest.raises(error):
        state.result()
    assert ServiceRecord(service="chat") == stage.record()


def test_a_run_can_be_followed_to_its_end(stage: Stage) -> None:
    """A watcher sees each step once, and the release of the run it watches."""
    stage.publish(1)
    settings = Settings(prefect_api=stage.api)
    follower = Follower(settings, "chat")
    state = release()
    seen: list[str] = []

    end = follower.follow(
        UUID(str(state.state_details.flow_run_id)), on_step=lambda _progress, step: seen.append(step.name.value)
    )

    follower.close()
    assert ["mirror", "start", "ready", "smoke", "quality", "shift", "bake", "tidy"] == seen
    assert (0, "chat-r1") == (end.exit_code, end.release and end.release.release.name)


def test_what_prefect_does_not_have_is_not_found(prefect_api: str) -> None:
    """A missing deployment and a missing run are one sentence each."""
    with pytest.raises(NotFound, match="has no deployment 'release/none'"):
        start_run(prefect_api, "release/none", {})
    with pytest.raises(NotFound, match="was deleted"):
        read_run(prefect_api, UUID(int=1))
