"""Where things are and with which keys: read once from ``SLIPWAY_*`` variables, then passed down.

The only place that looks at the environment.  On one machine the embedded stack supplies these values; against
a real Hub, bucket and cluster the operator sets them.  Secrets are masked wherever a settings value is shown.
"""

import os
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tasks.errors import BadInput

SERVICES = Path(__file__).parents[1] / "serve" / "services"
"""Where the specs lie in a checkout, from wherever a command is run."""


class HubSettings(BaseModel):
    """A Hugging Face Hub, or a server that speaks its protocol."""

    endpoint: str = Field("https://huggingface.co", description="base URL")
    token: SecretStr | None = Field(None, description="read token for gated and private models")


class StoreSettings(BaseModel):
    """The bucket that holds weights and records.  Keys left out come from the machine's AWS identity."""

    url: str = Field("", description="s3://bucket/prefix")
    endpoint: str | None = Field(None, description="base URL of an S3-compatible server; none means AWS")
    region: str = Field("us-east-1", description="region of the bucket")
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None


class RaySettings(BaseModel):
    """One Ray cluster with Serve, reached over REST alone."""

    dashboard: str = Field("", description="base URL of the dashboard and Serve's REST API")
    serve: str = Field("", description="base URL of Serve's HTTP proxy")
    token: SecretStr | None = Field(None, description="Ray's authentication token")
    starts_proxy: bool = Field(
        False, description="whether Serve's proxy is to be started at `serve`; the embedded cluster's is"
    )


class Settings(BaseSettings):
    """Everything a flow needs to know about its surroundings."""

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(Path(".slipway"), description="state of the embedded stack, caches and reports")
    services: Path = Field(SERVICES, description="folder of service specs")
    hub: HubSettings = HubSettings()
    store: StoreSettings = StoreSettings()
    ray: RaySettings = RaySettings()
    prefect_api: str = Field("", description="Prefect's API; empty: what Prefect itself is set up with")


def read_settings() -> Settings:
    """Return the settings of this process; raises ``BadInput`` that names each variable that does not fit."""
    try:
        return Settings()
    except SettingsError as error:
        raise BadInput(
            "A SLIPWAY_ variable that names a whole group cannot be read.",
            remedy="Set its parts one by one, e.g. SLIPWAY_STORE__URL.",
        ) from error
    except ValidationError as error:
        names = ", ".join("SLIPWAY_" + "__".join(str(p).upper() for p in e["loc"]) for e in error.errors())
        raise BadInput(f"These settings cannot be read: {names}.", remedy="Mend or unset them.") from error


_INHERITED = {
    *("HOME", "PATH", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
}


def inherited_environment() -> dict[str, str]:
    """Return what a program that Slipway starts may see of this environment: no key, no token, no tool's setting."""
    return {name: value for name, value in os.environ.items() if name in _INHERITED}


def silence_telemetry() -> None:
    """Keep libraries of this process from calling home, unless its environment says otherwise.

    Called before they are imported.  A tool that runs behind closed networks must not wait for such calls.
    """
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)


_SILENT = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
