"""Settings: read from ``SLIPWAY_*`` alone, secrets masked, faults named."""

import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from tasks.errors import BadInput
from tasks.settings import HubSettings, SigningSettings, hub_token, read_settings, signing_password

HUB = "https://huggingface.co"
TOKEN = SecretStr("hf_CANARY")


def test_nested_values_come_from_double_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable sets one value."""
    monkeypatch.setenv("SLIPWAY_STORE__URL", "s3://bucket/models")

    assert "s3://bucket/models" == read_settings().store.url


@pytest.mark.parametrize(
    "name",
    ["HUB__TOKEN", "STORE__ACCESS_KEY", "STORE__SECRET_KEY", "SIGNING__PASSWORD", "RAY__TOKEN", "RECEIVER__SECRET"],
)
def test_secrets_are_masked_wherever_settings_are_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings value in a log gives nothing away, nor does a part of it."""
    monkeypatch.setenv(f"SLIPWAY_{name}", "hf_CANARY")
    settings = read_settings()
    group, _, field = name.lower().partition("__")
    part = getattr(settings, group)

    assert "hf_CANARY" == getattr(part, field).get_secret_value()
    assert "CANARY" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {part!r}"


@pytest.mark.parametrize("variable", ["SLIPWAY_RAY", "SLIPWAY_HUB__TOKEN__X", "SLIPWAY_HUB__XET"])
def test_a_value_that_does_not_fit_is_told_but_not_shown(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to mend, without the value, which may be a misplaced secret; so does a traceback."""
    monkeypatch.setenv(variable, "hf_CANARY")

    with pytest.raises(BadInput, match="SLIPWAY_") as caught:
        read_settings()

    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fills in a template leaves empty what does not apply."""
    for name in ("STORE__ENDPOINT", "STORE__KMS_KEY", "HUB__ENDPOINT", "HUB__TOKEN", "HUB__TOKEN_FILE"):
        monkeypatch.setenv(f"SLIPWAY_{name}", "")
    settings = read_settings()

    assert (HUB, None, None) == (settings.hub.endpoint, settings.store.endpoint, settings.store.kms_key)
    assert hub_token(settings.hub, HUB) is None


@pytest.mark.parametrize(
    ("endpoint", "origin", "asked", "gets_it"),
    [
        (HUB, "", HUB, True),
        (HUB, "", "HTTPS://HuggingFace.co:443/", True),
        (HUB, "", "http://huggingface.co", False),
        (HUB, "", "https://huggingface.co:8443", False),
        (HUB, "", "https://huggingface.co.evil.example", False),
        (HUB, "", "https://huggingface.co@evil.example", False),
        (HUB, "", "https://evil.example\\@huggingface.co", False),
        (HUB, "", "https://me:word@huggingface.co", False),
        (HUB, "", "https://[huggingface.co", False),
        (HUB, "", "huggingface.co", False),
        ("huggingface.co", "", "huggingface.co", False),
        ("https://mirror.example/api/hub", "", "https://mirror.example/other", True),
        ("http://127.0.0.1:8000", HUB, HUB, True),
        ("http://127.0.0.1:8000", HUB, "http://127.0.0.1:8000", False),
        ("http://hub_server:8000", "", "http://hub_server:8000", True),
    ],
)
def test_a_token_goes_to_its_own_hub_alone(endpoint: str, origin: str, asked: str, gets_it: bool) -> None:
    """Scheme, host and port count; an address that can be read in two ways gets nothing."""
    settings = HubSettings(endpoint=endpoint, token=TOKEN, token_origin=origin)

    assert (TOKEN if gets_it else None) == hub_token(settings, asked)


def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """A mounted secret that is rotated is taken up without a restart; its line's end is no part of it."""
    file = tmp_path / "token"
    settings = HubSettings(token_file=file)

    for secret, content in (("hf_first", "hf_first\n"), ("hf_second", "hf_second\r\n"), ("hf_third", "hf_third")):
        file.write_text(content)
        assert SecretStr(secret) == hub_token(settings, HUB)
    assert hub_token(settings, "https://elsewhere.example") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "token cannot be read: No such file or directory. .* SLIPWAY_HUB__TOKEN_FILE"),
        (b"\n", "token is empty"),
        (b"hf_CANARY\nhf_CANARY", "token does not hold a token"),
        (b"hf_CANARY \xff", "token does not hold a token"),
    ],
)
def test_a_token_file_that_holds_none_is_named_but_not_shown(
    content: bytes | None, told: str, tmp_path: Path
) -> None:
    """A line's end within a token would end up in a header, and from there in an error's text."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(BadInput, match=told) as caught:
        hub_token(HubSettings(token_file=tmp_path / "token"), HUB)

    assert "CANARY" not in f"{''.join(traceback.format_exception(caught.value))} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (HubSettings(token=TOKEN, token_file=Path("token")), "Both SLIPWAY_HUB__TOKEN and SLIPWAY_HUB__TOKEN_FILE"),
        (HubSettings(token=TOKEN, token_origin="huggingface.co"), "SLIPWAY_HUB__TOKEN_ORIGIN is not the address"),
        (HubSettings(token=SecretStr("hf_CANARY\nx")), "SLIPWAY_HUB__TOKEN does not hold a token"),
    ],
)
def test_settings_of_a_token_that_make_no_sense_are_refused(settings: HubSettings, told: str) -> None:
    """Nobody has to guess which of two tokens was used, or why none was."""
    with pytest.raises(BadInput, match=told) as caught:
        hub_token(settings, HUB)

    assert "CANARY" not in str(caught.value)


def test_a_password_may_hold_anything_but_a_line_s_end(tmp_path: Path) -> None:
    """It comes from a variable or a file, as a token does, and may be a phrase."""
    (tmp_path / "password").write_text(" correct horse, ü\n")

    assert signing_password(SigningSettings()) is None
    assert SecretStr("word") == signing_password(SigningSettings(password=SecretStr("word")))
    from_file = signing_password(SigningSettings(password_file=tmp_path / "password"))
    assert SecretStr(" correct horse, ü") == from_file


def test_a_cluster_is_named_by_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable makes a controller drive KubeRay; where its Services are can be said otherwise."""
    monkeypatch.setenv("SLIPWAY_KUBERNETES__NAMESPACE", "llm")
    monkeypatch.setenv("SLIPWAY_KUBERNETES__SERVICE_URL", "http://{cluster_ip}:8000")

    assert ("llm", "http://{cluster_ip}:8000") == (
        read_settings().kubernetes.namespace,
        read_settings().kubernetes.service_url,
    )


@pytest.mark.parametrize(
    ("name", "value"), [("NAMESPACE", "a/../b"), ("SERVICE_URL", "http://{host}"), ("SERVICE_URL", "{")]
)
def test_a_cluster_that_cannot_be_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would only fail in the middle of a release fails at its start."""
    monkeypatch.setenv(f"SLIPWAY_KUBERNETES__{name}", value)

    with pytest.raises(BadInput, match=f"SLIPWAY_KUBERNETES__{name}"):
        read_settings()
