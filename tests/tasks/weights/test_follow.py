"""Following a ref: what is new is mirrored, what is not costs two requests, and the pointer tells which is which."""

from pathlib import Path

import pytest

from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks._weights.channels import read_channel
from tasks._weights.follow import follow
from tasks._weights.hub import Hub
from tasks._weights.layout import weights_key
from tasks.errors import Refused
from tasks.local.hub.publishing import set_ref
from tasks.spec import Limits
from tests.fakes.hubs import MODEL, RunningHub, write_model

pytestmark = pytest.mark.slow


def test_nothing_changed_costs_two_requests(server: RunningHub, hub: Hub, store: Store, tmp_path: Path) -> None:
    """One to the Hub, one to the store; not a byte is moved."""
    server.publish(write_model(tmp_path / "model"))
    first = follow(hub, store, MODEL, "main", Limits())
    server.faults.requests.clear()

    again = follow(hub, store, MODEL, "main", Limits())

    assert (first.unchanged, again.unchanged) == (False, True)
    assert (again.commit, again.bytes, again.manifest) == (first.commit, first.bytes, first.manifest)
    assert (again.requests, again.from_hub, again.copied) == (2, 0, 0)
    assert len(server.faults.requests) == 1


def test_a_changed_shard_alone_comes_from_the_hub(
    server: RunningHub, hub: Hub, folder_store: FolderStore, tmp_path: Path
) -> None:
    """Of the other files the store makes copies; the pointer moves, and both commits are whole."""
    folder = write_model(tmp_path / "model", sizes=(3_000_000, 500_000))
    server.publish(folder)
    follow(hub, folder_store, MODEL, "main", Limits())
    new = write_model(tmp_path / "other", seed=7, sizes=(3_000_000, 500_000))
    shard = "model-2-of-2.safetensors"
    (folder / shard).write_bytes((new / shard).read_bytes())
    commit = server.publish(folder)
    server.faults.requests.clear()

    done = follow(hub, folder_store, MODEL, "main", Limits())

    whole = [path for path, span in server.faults.requests if "/resolve/" in path and not span]
    assert [path.rpartition("/")[2] for path in whole] == [shard]
    assert (done.commit, done.copied) == (commit, done.bytes - 500_000)
    channel = read_channel(folder_store, MODEL, "main")
    assert channel
    assert (channel.commit, channel.bytes) == (commit, done.bytes)


def test_a_branch_that_was_moved_back_is_followed_back(
    server: RunningHub, hub: Hub, folder_store: FolderStore, tmp_path: Path
) -> None:
    """The pointer says what the ref means, not what was mirrored last."""
    first = server.publish(write_model(tmp_path / "model"))
    follow(hub, folder_store, MODEL, "main", Limits())
    server.publish(write_model(tmp_path / "model", seed=2))
    follow(hub, folder_store, MODEL, "main", Limits())
    set_ref(server.root, MODEL, "main", first)

    done = follow(hub, folder_store, MODEL, "main", Limits())

    assert (done.commit, done.unchanged) == (first, True)
    channel = read_channel(folder_store, MODEL, "main")
    assert channel
    assert channel.commit == first


def test_a_commit_has_no_pointer(server: RunningHub, hub: Hub, folder_store: FolderStore, tmp_path: Path) -> None:
    """What was asked for by its id is no ref's."""
    commit = server.publish(write_model(tmp_path / "model"))

    follow(hub, folder_store, MODEL, commit, Limits())

    assert read_channel(folder_store, MODEL, commit) is None
    assert list(folder_store.list(weights_key(MODEL, commit)))


def test_a_licence_is_judged_though_nothing_changed(
    server: RunningHub, hub: Hub, folder_store: FolderStore, tmp_path: Path
) -> None:
    """A list that was set later counts for what is stored already."""
    server.publish(write_model(tmp_path / "model"))
    follow(hub, folder_store, MODEL, "main", Limits())

    with pytest.raises(Refused, match="mit"):
        follow(hub, folder_store, MODEL, "main", Limits(licences=("mit",)))
