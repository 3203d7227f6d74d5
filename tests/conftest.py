"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each HTTP client one root certificate to load: no test speaks TLS, and the usual 150 take 15 ms."""
    end = "-----END CERTIFICATE-----\n"
    bundle = tmp_path_factory.mktemp("authority") / "one.pem"
    bundle.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(bundle))
        yield
