"""The flows about stored weights as Prefect runs them: their states, messages and artifacts, on a real Hub."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.collect_garbage import collect_garbage
from flows.mirror import mirror
from flows.verify import verify
from flows.watch_upstream import watch_upstream
from tasks._stores.folder import FolderStore
from tasks._weights.layout import weights_key
from tasks.records import Release, ServiceRecord
from tasks.settings import StoreSettings
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model

pytestmark = [
    pytest.mark.slow,
    # Prefect's own test server is left to close its sockets when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHARD = "model-1-of-2.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderStore]:
    """Return the store that the flows use."""
    (tmp_path / "store").mkdir()
    with closing(FolderStore(StoreSettings(url=(tmp_path / "store").as_uri()))) as opened:
        yield opened


@pytest.fixture
def hub(
    store: FolderStore, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningHub]:
    """Return a Hub, with the settings of a worker pointed at it and at the store."""
    with running_hub(tmp_path / "hub") as server:
        monkeypatch.setenv("SLIPWAY_HUB__ENDPOINT", server.endpoint)
        monkeypatch.setenv("SLIPWAY_STORE__URL", store.url)
        monkeypatch.setenv("PREFECT_API_URL", prefect_api)
        yield server


def artifacts(api: str, kind: str) -> dict[str, Any]:
    """Return the newest artifact of each key of a kind."""
    with SyncPrefectClient(api=api) as client:
        found = client.read_artifacts(limit=200)
    return {str(one.key): one.data for one in reversed(found) if one.type == kind}


def test_a_mirror_shows_how_far_it_is(hub: RunningHub, prefect_api: str, tmp_path: Path) -> None:
    """The run is completed with what it moved, and its bar ended at all."""
    hub.publish(write_model(tmp_path / "model"))

    first, again = mirror(MODEL, return_state=True), mirror(MODEL, return_state=True)

    assert (first.is_completed(), again.is_completed()) == (True, True)
    assert "from the Hub" in (first.message or "")
    assert "is there already" in (again.message or "")
    bars = artifacts(prefect_api, "progress")
    assert bars["mirror-acme-tiny-main"] == 100.0


def test_damage_fails_the_run_and_is_named(hub: RunningHub, tmp_path: Path) -> None:
    """A whole commit completes; a changed byte is found by reading, and told in the state's message."""
    commit = hub.publish(write_model(tmp_path / "model"))
    mirror(MODEL, ref=commit, return_state=True)
    assert verify(MODEL, commit, return_state=True).is_completed()
    shard = tmp_path / "store" / weights_key(MODEL, commit) / SHARD
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(damaged)

    found = verify(MODEL, commit, return_state=True)

    assert found.is_failed()
    assert SHARD in (found.message or "")


def test_a_collection_shows_what_became_of_each_commit(
    hub: RunningHub, store: FolderStore, prefect_api: str, tmp_path: Path
) -> None:
    """What the branch points to stays; what nothing refers to is marked, and deleted by the next run."""
    for seed in (1, 2):
        hub.publish(write_model(tmp_path / "model", seed=seed))
        mirror(MODEL, return_state=True)

    collect_garbage(delete=True, grace_days=0, return_state=True)
    done = collect_garbage(delete=True, grace_days=0, return_state=True)

    assert (done.message or "").startswith("1 commits")
    assert "the ref main points to it" in artifacts(prefect_api, "markdown")["garbage"]
    assert len({item.key.split("/")[3] for item in store.list(f"models/{MODEL}") if "/refs/" not in item.key}) == 1


def test_a_commit_that_vanished_fails_the_watch(hub: RunningHub, store: FolderStore, tmp_path: Path) -> None:
    """What is live here and gone at its Hub is for a person to know."""
    commit = hub.publish(write_model(tmp_path / "model"))
    mirror(MODEL, ref=commit, return_state=True)
    live = Release(service="chat", number=1, model=MODEL, commit=commit, hub=hub.endpoint, spec={})
    record = ServiceRecord(service="chat", next_number=2, live=live)
    store.put_if("services/chat/record.json", record.to_json(), expect=None)
    assert watch_upstream(return_state=True).is_completed()
    (hub.root / "models" / MODEL / "repository.json").write_text(
        json.dumps(
            {
                "name": MODEL,
                "gated": False,
                "private": True,
                "created_at": datetime.now(UTC).isoformat(),
                "refs": {},
            }
        )
    )

    found = watch_upstream(return_state=True)

    assert found.is_failed()
    assert MODEL in (found.message or "")
