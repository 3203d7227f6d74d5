"""A store on a disk that is full, or becomes so: told in bytes, nothing of the failing file left, others whole."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hubs import MODEL, write_model
from tests.faults.processes import ROOT
from tests.faults.road import Road, assert_sound
from tests.faults.small_disk import DISK_BYTES

IN_A_NAMESPACE = ("unshare", "--map-root-user", "--mount")


def may_mount() -> bool:
    """Say whether this user may have a namespace of mounts of its own."""
    return bool(shutil.which("unshare")) and not subprocess.run([*IN_A_NAMESPACE, "true"], check=False).returncode


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not may_mount(), reason="this machine lets nobody mount a disk of their own"),
]

SMALL, LARGE = (4_000_000, 1_000_000), (40_000_000, 10_000_000)
TOO_LARGE = {"one file": (90_000_000, 1_000_000), "all files": (40_000_000, 30_000_000)}


def outcome(road: Road, tmp_path: Path, sizes: tuple[int, ...], *options: str) -> dict[str, Any]:
    """Mirror a small commit and one with shards of ``sizes`` to a small disk, and return what became of it."""
    (folder := tmp_path / "disk").mkdir()
    write_model(road.folder, sizes=SMALL)
    small = road.publish()
    write_model(road.folder, seed=1, sizes=sizes)
    large = road.publish()
    arguments = (str(folder), road.hub.endpoint, MODEL, small, large, *options)
    done = subprocess.run(
        [*IN_A_NAMESPACE, sys.executable, "-m", "tests.faults.small_disk", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    road.told += [done.stdout, done.stderr]
    assert_sound(road)
    told: dict[str, Any] = json.loads(done.stdout)
    told["rest"] = [path for path in told["files"] if small not in path]
    return told


def test_what_fits_is_mirrored(road: Road, tmp_path: Path) -> None:
    """A disk with room for both commits holds both, and nothing beside them."""
    told = outcome(road, tmp_path, LARGE)

    assert told["error"] is None
    assert told["small is whole"]
    assert not [path for path in told["files"] if not path.startswith(f"models/{MODEL}/")]


@pytest.mark.parametrize("too_large", TOO_LARGE)
def test_what_cannot_fit_is_refused_before_a_large_byte(road: Road, tmp_path: Path, too_large: str) -> None:
    """Bytes needed and bytes free are compared first, for the commit as a whole."""
    told = outcome(road, tmp_path, TOO_LARGE[too_large])

    assert told["error"] == "MachineError"
    assert "bytes are needed and" in told["message"]
    assert len(road.fetched("model-1-of-2.safetensors")) == 1, "the small commit's alone"
    assert told["small is whole"]


def test_a_disk_that_fills_up_ends_the_mirror(road: Road, tmp_path: Path) -> None:
    """Room that was there at first and was taken by another: terminal, and the room that it used is free again."""
    told = outcome(road, tmp_path, LARGE, "--take-all-after", "20000000")

    assert told["error"] == "MachineError"
    assert "bytes are needed and" in told["message"]
    assert not [path for path in told["rest"] if "model-1-of-2" in path or ".incoming" in path]
    assert told["free"] > DISK_BYTES - 20_000_000
    assert told["small is whole"]
