"""One road for every test of faults, looked over at its end: what holds always holds after each of them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.config import Config

from tasks._stores import s3_bucket, s3_upload
from tasks._weights import download, hub
from tasks.settings import StoreSettings
from tests.fakes.hubs import running_hub, write_model
from tests.fakes.s3 import seaweed
from tests.fakes.s3_faults import s3_faults
from tests.faults.road import PART, SIZES, Road, assert_no_secret


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Return the settings of a bucket in a running SeaweedFS."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture
def road(
    s3: StoreSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Road]:
    """Return a road without faults; when the test is over, no secret was told."""
    monkeypatch.setattr(s3_upload, "PART_SIZE", PART)
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="tasks")
    direct = s3.model_copy(update={"url": f"{s3.url}/{tmp_path.name}"})
    with running_hub(tmp_path / "hub") as server, s3_faults(direct) as (settings, faults):
        made = Road(server, write_model(tmp_path / "model", sizes=SIZES), settings, direct, faults)
        yield made
        # The Hub's own server names the signed links that it was asked for.
        ours = [one for one in caplog.get_records("call") if not one.name.startswith("uvicorn")]
        assert_no_secret(made, *map(caplog.handler.format, ours), *capfd.readouterr())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub and the store be silent for half a second at most."""
    monkeypatch.setattr(download, "SILENCE_S", 0.5)
    monkeypatch.setattr(hub, "API_TIMEOUT_S", 0.5)
    monkeypatch.setattr(s3_bucket, "Config", lambda **options: Config(**{**options, "read_timeout": 0.5}))
