"""Settings: read from ``SLIPWAY_*`` alone, secrets masked, faults named."""

import pytest

from tasks.errors import BadInput
from tasks.settings import read_settings


def test_nested_values_come_from_double_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable sets one value."""
    monkeypatch.setenv("SLIPWAY_STORE__URL", "s3://bucket/models")

    assert "s3://bucket/models" == read_settings().store.url


def test_secrets_are_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings value in a log gives nothing away."""
    monkeypatch.setenv("SLIPWAY_HUB__TOKEN", "hf_CANARY")
    settings = read_settings()

    assert "CANARY" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize("variable", ["SLIPWAY_RAY", "SLIPWAY_HUB__TOKEN__X"])
def test_a_value_that_does_not_fit_is_told_but_not_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to mend, without the value, which may be a misplaced secret."""
    monkeypatch.setenv(variable, "hf_CANARY")

    with pytest.raises(BadInput, match="SLIPWAY_") as caught:
        read_settings()

    assert "CANARY" not in str(caught.value)
