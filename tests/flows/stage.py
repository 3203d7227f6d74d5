"""What a flow finds around it in a test: a Hub, a store, a small cluster, a spec; and what it left there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State

from tasks._release.journal import Journal
from tasks._release.lease import Lease, read_lease
from tasks._stores.store import open_store
from tasks.records import ServiceRecord
from tasks.settings import RaySettings, StoreSettings
from tests.fakes.context_engine import ContextEngine
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving

SPEC = f"""
service: chat
model: {MODEL}
bake: {{seconds: 0.3, interval: 0.1}}
deadlines: {{ready: 5, request: 5}}
"""
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]


class Stage:
    """What a flow finds around it, and what it left."""

    def __init__(self, folder: Path, hub: RunningHub, store: StoreSettings, api: str) -> None:
        self.said = "The capital of France is Paris."
        self.hub, self.store, self.api, self.folder = hub, store, api, folder
        self.cluster = RayServe(engine=self._engine)

    def _engine(self, args: dict[str, Any]) -> ContextEngine:
        said = self.said
        return ContextEngine(
            answer=lambda _messages: said, release=args["release"], commit=args["commit"], model="chat"
        )

    def publish(self, seed: int) -> str:
        """Make a new commit the head of ``main``."""
        return self.hub.publish(write_model(self.folder / "model", seed=seed))

    def record(self) -> ServiceRecord:
        """Return the service's record."""
        opened = open_store(self.store)
        try:
            return Journal(opened, "chat").record
        finally:
            opened.close()

    def lease(self) -> Lease:
        """Return the lease on the service."""
        opened = open_store(self.store)
        try:
            lease = read_lease(opened, "chat")
        finally:
            opened.close()
        assert lease is not None
        return lease

    def artifacts(self) -> dict[str, str]:
        """Return the newest text of each artifact."""
        with SyncPrefectClient(api=self.api) as client:
            found = client.read_artifacts(limit=200)
        return {str(one.key): str(one.data) for one in reversed(found)}

    def run_of(self, state: State[Any]) -> FlowRun:
        """Return the flow run that ended in ``state``."""
        with SyncPrefectClient(api=self.api) as client:
            return client.read_flow_run(UUID(str(state.state_details.flow_run_id)))


@contextmanager
def staged(folder: Path, store: StoreSettings, api: str) -> Iterator[tuple[Stage, dict[str, str]]]:
    """Set the stage in ``folder`` and give it with the variables of a process that works on it."""
    (folder / "chat.yaml").write_text(SPEC)
    (folder / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    store = store.model_copy(update={"url": f"{store.url}/{folder.name}"})
    with running_hub(folder / "hub") as hub:
        shown = Stage(folder, hub, store, api)
        with serving(shown.cluster) as ray:
            yield shown, variables(folder, hub, store, ray)


def variables(services: Path, hub: RunningHub, store: StoreSettings, ray: RaySettings) -> dict[str, str]:
    """Return the variables that a worker would have."""
    assert store.endpoint
    assert store.access_key
    assert store.secret_key
    assert ray.token
    return {
        "SLIPWAY_SERVICES": str(services),
        "SLIPWAY_HOME": str(services / "state"),
        "SLIPWAY_HUB__ENDPOINT": hub.endpoint,
        "SLIPWAY_STORE__URL": store.url,
        "SLIPWAY_STORE__ENDPOINT": store.endpoint,
        "SLIPWAY_STORE__ACCESS_KEY": store.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": store.secret_key.get_secret_value(),
        "SLIPWAY_RAY__DASHBOARD": ray.dashboard,
        "SLIPWAY_RAY__SERVE": ray.serve,
        "SLIPWAY_RAY__TOKEN": ray.token.get_secret_value(),
    }
