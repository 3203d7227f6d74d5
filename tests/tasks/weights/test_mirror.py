"""The whole road from a real Hub server to a real S3 server, and what each fault on it leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stamina

from tasks._stores.store import Store, open_store
from tasks._weights.claims import FileState, read_claim
from tasks._weights.hub import Hub
from tasks._weights.layout import weights_key
from tasks._weights.manifests import read_manifest
from tasks._weights.mirror import mirror as bring
from tasks.errors import AccessDenied, IntegrityError, Refused, Unreachable
from tasks.records import Manifest
from tasks.settings import StoreSettings
from tasks.spec import Limits
from tests.fakes.hubs import MODEL, RunningHub, write_model
from tests.fakes.s3 import open_uploads

pytestmark = pytest.mark.slow

SHARD = "model-1-of-2.safetensors"
SIZES = (20_000_000, 9_000_000)
HEADER = "bytes=0-131071"
"""What is asked for of every shard before anything else."""
KILL_DEADLINE_S = 30


def mirror(*arguments: Any, **options: Any) -> Manifest:
    """Return the manifest of what was mirrored."""
    return bring(*arguments, **options).manifest


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=3):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model on disk, with shards of several parts."""
    return write_model(tmp_path / "model", sizes=SIZES)


def assert_whole(store: Store, manifest: Manifest, folder: Path) -> None:
    """Assert that the store holds exactly the manifest's files, with the bytes of the folder."""
    top = weights_key(manifest.model, manifest.commit)
    kept = {item.key.removeprefix(f"{top}/") for item in store.list(top)}
    assert kept == {file.path for file in manifest.files} | {".manifest.json", "hash"}
    assert list(store.list("mirroring")) == []
    for file in manifest.files:
        stored, original = store.get(f"{top}/{file.path}"), (folder / file.path).read_bytes()
        assert stored
        assert stored[0] == original
        assert (file.size, file.sha256) == (len(original), hashlib.sha256(original).hexdigest())


def _states(store: Store, commit: str) -> tuple[FileState, ...]:
    claim = read_claim(store, MODEL, commit)
    return claim.files if claim else ()


def assert_unpublished(store: Store, settings: StoreSettings, commit: str) -> None:
    """Assert that there is no manifest, no object of the damaged shard, and no upload left open."""
    assert read_manifest(store, MODEL, commit) is None
    assert store.head(f"{weights_key(MODEL, commit)}/{SHARD}") is None
    assert open_uploads(settings) == []


def test_brings_a_commit_into_the_store(server: RunningHub, hub: Hub, store: Store, folder: Path) -> None:
    """Every file that a server needs arrives with its bytes, the manifest says so, and progress ends at all."""
    seen: list[tuple[int, int]] = []
    commit = hub.resolve(MODEL, server.publish(folder)).commit

    manifest = mirror(hub, store, MODEL, commit, Limits(), progress=lambda *bytes_: seen.append(bytes_))

    assert {file.path for file in manifest.files} == {
        "README.md",
        "config.json",
        SHARD,
        "model-2-of-2.safetensors",
        "tokenizer.json",
    }
    assert_whole(store, manifest, folder)
    assert read_manifest(store, MODEL, commit) == manifest
    assert (manifest.model, manifest.commit, manifest.source) == (MODEL, commit, server.endpoint)
    assert seen[-1] == (manifest.total_bytes, manifest.total_bytes)
    assert seen == sorted(seen)


def test_a_published_commit_is_not_fetched_again(server: RunningHub, hub: Hub, store: Store, folder: Path) -> None:
    """The second mirror asks the Hub nothing and returns the same manifest."""
    commit = server.publish(folder)
    first = mirror(hub, store, MODEL, commit, Limits())
    server.faults.requests.clear()

    assert mirror(hub, store, MODEL, commit, Limits()) == first
    assert server.faults.requests == []


def test_an_object_that_is_gone_is_brought_back(server: RunningHub, hub: Hub, store: Store, folder: Path) -> None:
    """Of a published commit only what is missing is fetched, and the manifest stays."""
    commit = server.publish(folder)
    first = mirror(hub, store, MODEL, commit, Limits())
    top = weights_key(MODEL, commit)
    manifest = store.get(f"{top}/.manifest.json")
    shard = store.get(f"{top}/{SHARD}")
    assert manifest
    assert shard
    store.delete(top)
    store.put_if(f"{top}/.manifest.json", manifest[0], expect=None)
    store.put_if(f"{top}/{SHARD}", b"short", expect=None)

    assert mirror(hub, store, MODEL, commit, Limits()) == first
    mended = mirror(hub, store, MODEL, commit, Limits(), repair=True)
    assert [file.sha256 for file in mended.files] == [file.sha256 for file in first.files]
    assert_whole(store, mended, folder)
    assert read_manifest(store, MODEL, commit) == mended


def test_commits_lie_side_by_side(server: RunningHub, hub: Hub, store: Store, tmp_path: Path) -> None:
    """A ref that moved between two mirrors leaves both commits whole."""
    manifests = {}
    for seed in (1, 2):
        folder = write_model(tmp_path / f"model{seed}", seed=seed)
        server.publish(folder)
        commit = hub.resolve(MODEL, "main").commit
        manifests[seed] = mirror(hub, store, MODEL, commit, Limits())

    assert manifests[1].commit != manifests[2].commit
    for seed, manifest in manifests.items():
        assert_whole(store, manifest, tmp_path / f"model{seed}")


def test_a_flipped_byte_is_never_published(
    server: RunningHub, hub: Hub, store: Store, store_settings: StoreSettings, folder: Path
) -> None:
    """Same size, other bytes: fetched once more, then refused by name, and nothing of it can be seen."""
    commit = server.publish(folder)
    blob = server.blob(folder / SHARD)
    damaged = bytearray(blob.read_bytes())
    damaged[SIZES[0] // 2] ^= 1
    blob.write_bytes(damaged)

    with pytest.raises(IntegrityError, match=SHARD):
        mirror(hub, store, MODEL, commit, Limits())

    assert server.faults.asked(f"/resolve/{commit}/{SHARD}") == [HEADER, "", ""]
    assert_unpublished(store, store_settings, commit)

    blob.write_bytes((folder / SHARD).read_bytes())
    assert_whole(store, mirror(hub, store, MODEL, commit, Limits()), folder)


@pytest.mark.parametrize("change", [-1, 1], ids=["short", "long"])
def test_a_file_of_another_size_is_never_published(
    server: RunningHub, hub: Hub, store: Store, store_settings: StoreSettings, folder: Path, change: int
) -> None:
    """A file one byte shorter or longer than declared is refused by name."""
    commit = server.publish(folder)
    blob = server.blob(folder / SHARD)
    blob.write_bytes((blob.read_bytes() + b"x")[: SIZES[0] + change])

    with pytest.raises(IntegrityError, match=SHARD):
        mirror(hub, store, MODEL, commit, Limits())

    assert_unpublished(store, store_settings, commit)


def test_broken_connections_are_taken_up_where_they_broke(
    server: RunningHub, hub: Hub, store: Store, folder: Path
) -> None:
    """Two cuts within one shard cost two ranges, no byte twice but what was on the way."""
    commit = server.publish(folder)
    digest = hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
    server.faults.cuts[f"/lfs/{digest}"] = deque([131_072, 5_000_000, 6_000_000])

    manifest = mirror(hub, store, MODEL, commit, Limits())

    header, whole, first, second = server.faults.asked(f"/lfs/{digest}")
    assert (header, whole) == (HEADER, "")
    assert 0 < int(first.removeprefix("bytes=").rstrip("-")) <= 5_000_000
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 11_000_000
    assert_whole(store, manifest, folder)


def test_a_hub_that_fails_for_ever_ends_the_mirror(
    server: RunningHub, hub: Hub, store: Store, store_settings: StoreSettings, folder: Path
) -> None:
    """Tries are bounded; what arrived is kept, what was under way is aborted, and the next mirror completes."""
    commit = server.publish(folder)
    server.faults.answers[f"/resolve/{commit}/{SHARD}"] = deque([(503, {})] * 3)

    with pytest.raises(Unreachable, match="503"):
        mirror(hub, store, MODEL, commit, Limits())

    assert_unpublished(store, store_settings, commit)
    assert_whole(store, mirror(hub, store, MODEL, commit, Limits()), folder)


def test_unsafe_commits_cost_no_large_byte(server: RunningHub, hub: Hub, store: Store, folder: Path) -> None:
    """Code by name, and code by `auto_map`, are refused before a shard is asked for."""
    (folder / "modeling_acme.py").write_text("")
    with pytest.raises(Refused, match=r"modeling_acme\.py"):
        mirror(hub, store, MODEL, server.publish(folder), Limits())
    (folder / "modeling_acme.py").unlink()
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_acme.Model"}}))
    with pytest.raises(Refused, match="auto_map"):
        mirror(hub, store, MODEL, server.publish(folder), Limits())
    with pytest.raises(Refused, match="allowed"):
        mirror(hub, store, MODEL, server.publish(folder), Limits(total_bytes=1000))

    assert server.faults.asked("safetensors") == []
    assert list(store.list("models")) == []


def test_a_gated_commit_is_denied(server: RunningHub, hub: Hub, store: Store, folder: Path) -> None:
    """A Hub that lists a gated repository but keeps its bytes ends the mirror at the first small file."""
    commit = server.publish(folder, gated=True)
    with pytest.raises(AccessDenied, match="gated"):
        mirror(hub, store, MODEL, commit, Limits())
    assert server.faults.asked("safetensors") == []


def test_two_mirrors_at_once_agree(
    server: RunningHub, hub: Hub, store: Store, store_settings: StoreSettings, folder: Path
) -> None:
    """Both end well and return one manifest, the one that is in the store."""
    commit = server.publish(folder)
    other = open_store(store_settings)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(mirror, hub, each, MODEL, commit, Limits()) for each in (store, other)]
        manifests = [job.result() for job in jobs]
    other.close()

    assert manifests[0] == manifests[1] == read_manifest(store, MODEL, commit)
    assert_whole(store, manifests[0], folder)


def test_a_killed_mirror_is_finished_by_the_next(
    server: RunningHub, hub: Hub, store: Store, store_settings: StoreSettings, folder: Path
) -> None:
    """After SIGKILL in the middle of a shard there is no manifest; the next run fetches only what is missing."""
    commit = server.publish(folder)
    digest = hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
    server.faults.pause[f"/lfs/{digest}"] = 0.5
    assert store_settings.access_key
    assert store_settings.secret_key
    environment = {
        **os.environ,
        "SLIPWAY_STORE__URL": store_settings.url,
        "SLIPWAY_STORE__ENDPOINT": store_settings.endpoint or "",
        "SLIPWAY_STORE__ACCESS_KEY": store_settings.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": store_settings.secret_key.get_secret_value(),
    }
    script = (
        "import sys; from tasks import settings, spec; from tasks._stores import store;"
        "from tasks._weights import hub, mirror;"
        "mirror.mirror(hub.Hub(sys.argv[1]), store.open_store(settings.read_settings().store),"
        " sys.argv[2], sys.argv[3], spec.Limits())"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, server.endpoint, MODEL, commit], env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + KILL_DEADLINE_S
        while not any(state.entry for state in _states(store, commit) if state.path == "model-2-of-2.safetensors"):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert read_manifest(store, MODEL, commit) is None
    assert store.head(f"{weights_key(MODEL, commit)}/{SHARD}") is None
    server.faults.pause.clear()
    server.faults.requests.clear()

    manifest = mirror(hub, store, MODEL, commit, Limits())

    assert_whole(store, manifest, folder)
    assert server.faults.asked("model-2-of-2") == []
    assert server.faults.asked("/lfs/").count("") <= 1


def test_a_manifest_that_cannot_be_read_is_an_integrity_error(store: Store) -> None:
    """What is no manifest is never taken for one."""
    store.put_if(f"{weights_key(MODEL, '0' * 40)}/.manifest.json", b"{}", expect=None)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_manifest(store, MODEL, "0" * 40)
