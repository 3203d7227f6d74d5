"""What all tests share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from hypothesis import settings

pytest_plugins = ["tests.kube.fixtures"]

settings.register_profile("shared machine", deadline=None, print_blob=True)
settings.load_profile("shared machine")


def pytest_collection() -> None:
    """Collect no garbage while modules are imported: there is none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection; together this spares five seconds of the suite."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each HTTP client one root certificate to load: no test speaks TLS, and the usual 150 take 15 ms."""
    end = "-----END CERTIFICATE-----\n"
    bundle = tmp_path_factory.mktemp("authority") / "one.pem"
    bundle.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(bundle))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first: what they find is known before a server or a model has started."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
