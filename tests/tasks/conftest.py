"""Servers shared by the tests of one session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks._stores.store import Store, open_store
from tasks._weights.hub import Hub
from tasks.settings import StoreSettings
from tests.fakes.hubs import RunningHub, running_hub
from tests.fakes.s3 import seaweed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Return the settings of a bucket in a running SeaweedFS."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture
def store_settings(s3_server: StoreSettings, tmp_path: Path) -> StoreSettings:
    """Return the settings of a store of this test alone."""
    return s3_server.model_copy(update={"url": f"{s3_server.url}/{tmp_path.name}"})


@pytest.fixture
def store(store_settings: StoreSettings) -> Iterator[Store]:
    """Return a store of this test alone."""
    opened = open_store(store_settings)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningHub]:
    """Return a running Hub without repositories."""
    with running_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def hub(server: RunningHub) -> Iterator[Hub]:
    """Return an anonymous client of it."""
    with Hub(server.endpoint) as client:
        yield client
