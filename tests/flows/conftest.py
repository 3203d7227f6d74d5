"""A Prefect server for the flow tests of one session, and a stage for tests that run a flow themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from tasks.settings import StoreSettings
from tests.fakes.s3 import seaweed
from tests.flows.stage import Stage, staged


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Run a Prefect server with a database of its own and return its API's address."""
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Run an S3 server for this module."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture
def stage(prefect_api: str, s3: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Set the stage and point the settings at it."""
    with staged(tmp_path, s3, prefect_api) as (shown, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield shown
