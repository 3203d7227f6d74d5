"""Stores that the tests of the payload's weights read from, and processes that do."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._stores.store import Store, open_store
from tasks.settings import StoreSettings
from tests.fakes.s3 import seaweed
from tests.fakes.s3_faults import S3Faults, s3_faults
from tests.serve.nodes import COMMIT, ROOT, publish, variables


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return the folder of a commit in a store."""
    return publish(tmp_path / "a store" / COMMIT)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the folder of a node's cache, which need not exist."""
    return tmp_path / "node" / "cache"


@pytest.fixture(scope="session")
def faulty_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoreSettings, StoreSettings, S3Faults]]:
    """Return the settings of a bucket in a running SeaweedFS, of the way there through its faults, and the faults."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings, s3_faults(settings) as (faulty, faults):
        yield settings, faulty, faults


@pytest.fixture
def faults(
    faulty_s3: tuple[StoreSettings, StoreSettings, S3Faults], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Faults]:
    """Return the faults between the node and the store; there are none before and after a test."""
    for name, value in variables(faulty_s3[1]).items():
        monkeypatch.setenv(name, value)
    faulty_s3[2].clear()
    yield faulty_s3[2]
    faulty_s3[2].clear()


@pytest.fixture
def store(faulty_s3: tuple[StoreSettings, StoreSettings, S3Faults], tmp_path: Path) -> Iterator[Store]:
    """Return a store of this test alone, as the controller has it: past the faults."""
    settings = faulty_s3[0]
    opened = open_store(settings.model_copy(update={"url": f"{settings.url}/{tmp_path.name}"}))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def python() -> "Iterator[Callable[..., subprocess.Popen[str]]]":
    """Return what starts an interpreter with arguments; those that run at the end of the test are killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **more: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, cwd=ROOT, **pipes, **more))
        return running[-1]

    yield start
    for child in running:
        child.kill()
        child.communicate()
