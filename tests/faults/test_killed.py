"""SIGKILL at every step of a real mirror, and again in its recovery: the next goes on, and nothing is left over."""

import json
from collections import deque
from pathlib import Path

import pytest

from tasks._stores import s3_upload
from tasks._weights.layout import claim_key, weights_key
from tasks.settings import StoreSettings
from tests.fakes.hubs import MODEL, TOKEN, write_model
from tests.fakes.s3_faults import Delay, Stall
from tests.faults.processes import arguments_of, await_while, kill, mirroring
from tests.faults.road import SHARD, Road, assert_never_wrong, assert_no_secret, assert_published, assert_sound, sweep

pytestmark = pytest.mark.slow

PART = 8 * 2**20
SIZES = (3 * PART + 5_000_000, 1_000_000)
"""Bytes of the shards: four parts as they really are, and one request."""

STEPS = {
    "claim": ("PUT", "/mirroring/", False),
    "claimed": ("PUT", "/mirroring/", True),
    "begun": ("POST", "?uploads", True),
    "first part": ("PUT", "partNumber=1", False),
    "last part": ("PUT", "partNumber=4", True),
    "complete": ("POST", "?uploadId=", False),
    "completed": ("POST", "?uploadId=", True),
    "hash": ("PUT", "/hash", True),
    "publish": ("PUT", "/.manifest.json", False),
    "published": ("PUT", "/.manifest.json", True),
    "finish": ("DELETE", "/mirroring/", False),
}
"""The requests at which a mirror is killed, and whether the store has acted on them by then."""

AFTER_THE_SHARD = ("completed", "hash", "publish", "published", "finish")


@pytest.fixture(autouse=True)
def _real_parts(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process cut parts as the one that is killed does."""
    monkeypatch.setattr(s3_upload, "PART_SIZE", PART)
    write_model(road.folder, sizes=SIZES)


def killed_at(road: Road, step: str, *, delay_s: float = 0) -> None:
    """Run a mirror until it does a step, and kill it there; every part takes ``delay_s`` longer."""
    method, part, applied = STEPS[step]
    road.s3.clear()
    road.s3.add(Stall(applied=applied), method, part)
    if delay_s:
        road.s3.add(Delay(delay_s), "PUT", "partNumber", times=None)
    with mirroring(road) as process:
        await_while(process, lambda: any(seen.stalls for seen in road.s3.asked()))
        if step == "complete":  # what the store holds is written down in a moment, whatever else it waits for
            await_while(process, lambda: stored(road, next(iter(road.sources))) >= 3 * PART)
        kill(process)
    assert_never_wrong(road)
    road.s3.clear()
    road.hub.faults.requests.clear()


def stored(road: Road, commit: str) -> int:
    """Return the bytes of the larger shard that its claim says the store holds."""
    files = json.loads(road.claim(commit) or '{"files": []}')["files"]
    return next((file["upload"]["stored"] for file in files if file["path"] == SHARD and file["upload"]), 0)


def starts(road: Road) -> list[int]:
    """Return the bytes from which the larger shard was asked for."""
    return [int(span.removeprefix("bytes=").rstrip("-") or 0) for span in road.fetched(SHARD)]


@pytest.mark.parametrize("step", STEPS)
def test_a_mirror_killed_at_any_step_is_finished_by_the_next(road: Road, step: str) -> None:
    """It ends as if nothing had happened, and asks the Hub for nothing that the store held for certain."""
    commit = road.publish()
    killed_at(road, step)

    road.mirror(commit)

    if step in AFTER_THE_SHARD:
        assert starts(road) == []
    elif step == "complete":
        assert starts(road) in ([3 * PART], [])
    if step in ("published", "finish"):
        sweep(road)
    assert_sound(road, published=commit)


def test_an_object_whose_parts_came_late_is_known_to_the_next(road: Road) -> None:
    """What the store has of it is written down after its last part arrived, and before the completion."""
    commit = road.publish()
    killed_at(road, "completed", delay_s=1.0)

    road.mirror(commit)

    assert starts(road) == []
    assert_sound(road, published=commit)


def test_a_mirror_killed_in_the_middle_of_a_shard_goes_on_from_there(road: Road) -> None:
    """What was written down before the death is not asked for again, to the byte."""
    commit = road.publish()
    road.hub.faults.stalls[f"{road.link(SHARD)} whole"] = deque([2 * PART + 3_000_000])
    with mirroring(road) as process:
        await_while(process, lambda: stored(road, commit) == 2 * PART)
        assert_no_secret(road, arguments_of(process))
        kill(process)
    assert_never_wrong(road)
    road.hub.faults.requests.clear()

    mirrored = road.mirror(commit)

    assert starts(road) == [2 * PART]
    assert mirrored.from_hub < SIZES[0] - 2 * PART + 2**20
    assert_sound(road, published=commit)


def test_a_mirror_killed_in_every_recovery_gets_there(road: Road) -> None:
    """Each run is killed a step after the one before; the last finds nearly all done."""
    commit = road.publish()
    for step in ("claimed", "first part", "last part", "complete", "completed", "publish"):
        killed_at(road, step)

    mirrored = road.mirror(commit)

    assert starts(road) == []
    assert mirrored.from_hub < 2**20
    assert_sound(road, published=commit)


def test_a_killed_mirror_told_no_secret(road: Road, tmp_path: Path) -> None:
    """Neither the claim it left, nor its output, nor its arguments hold the token or a key."""
    road.publish()
    killed_at(road, "last part")
    texts = [data.decode(errors="replace") for data in road.objects().values() if len(data) < 2**16]

    assert_no_secret(road, *texts)
    assert not [path for path in (tmp_path / "home").rglob("*") if TOKEN.encode() in path.read_bytes()]
    road.mirror(next(iter(road.sources)))
    assert_sound(road)


def test_a_mirror_to_a_folder_killed_in_the_middle_leaves_no_file_over(road: Road, tmp_path: Path) -> None:
    """What was begun beside the objects is gone on with, and in the end the folder holds the commit alone."""
    commit = road.publish()
    (folder := tmp_path / "store").mkdir()
    road.hub.faults.stalls[f"{road.link(SHARD)} whole"] = deque([2 * PART + 3_000_000])
    record = folder / claim_key(MODEL, commit)
    with mirroring(road, "--store", folder.as_uri()) as process:
        await_while(process, lambda: record.exists() and f'"stored": {2 * PART}'.encode() in record.read_bytes())
        kill(process)
    road.hub.faults.requests.clear()
    road.settings = StoreSettings(url=folder.as_uri())

    road.mirror(commit)

    assert starts(road) == [2 * PART]
    top = folder / weights_key(MODEL, commit)
    assert_published({path.name: path.read_bytes() for path in top.iterdir()}, road.sources[commit], commit)
    assert {path for path in folder.rglob("*") if path.is_file()} == set(top.iterdir())
    assert_sound(road)
