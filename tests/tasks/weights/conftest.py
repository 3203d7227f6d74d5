"""Stores that tests of weights share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks._stores.folder import FolderStore
from tasks._stores.store import Store
from tasks.settings import StoreSettings


@pytest.fixture
def folder_store(tmp_path: Path) -> Iterator[FolderStore]:
    """Return a store in a folder of this test alone."""
    (tmp_path / "store").mkdir()
    opened = FolderStore(StoreSettings(url=(tmp_path / "store").as_uri()))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(
    params=[
        pytest.param("folder_store", id="folder", marks=pytest.mark.slow),  # it waits for the disk at every write
        pytest.param("store", id="s3", marks=pytest.mark.slow),
    ]
)
def any_store(request: pytest.FixtureRequest) -> Store:
    """Return a store of this test alone: in a folder, and in a bucket."""
    opened: Store = request.getfixturevalue(request.param)
    return opened
