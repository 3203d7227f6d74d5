"""Where things are and with which keys: read once from ``SLIPWAY_*`` variables, then passed down.

The only place that looks at the environment.  On one machine the embedded stack supplies these values; against
a real Hub, bucket and cluster the operator sets them.  Secrets are masked wherever a settings value is shown; one
that is in a mounted file is read when it is used.  An empty variable counts as none.
"""

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tasks.errors import BadInput

SERVICES = Path(__file__).parents[1] / "serve" / "services"
"""Where the specs lie in a checkout, from wherever a command is run."""
LEAST_SECRET = 16
"""Characters of a webhook's secret."""


class HubSettings(BaseModel):
    """A Hugging Face Hub, or a server that speaks its protocol.  ``hub_token`` says who gets the token."""

    endpoint: str = Field("https://huggingface.co", description="base URL")
    token: SecretStr | None = Field(None, description="read token for gated and private models")
    token_file: Path | None = Field(
        None,
        description="file that holds the token instead; read whenever a Hub is opened, so it may change",
    )
    token_origin: str = Field(
        "", description="the Hub that the token is for, as https://host; empty: the one at `endpoint`"
    )
    xet: bool = Field(True, description="use hf-xet for files that the Hub stores that way")


class StoreSettings(BaseModel):
    """The bucket that holds weights and records.

    Keys left out come from the machine's AWS identity: its own chain reads variables, shared files, a role's mounted
    token and the machine's role, and renews what expires.  There are no key files of ours beside it.
    """

    url: str = Field("", description="s3://bucket/prefix")
    endpoint: str | None = Field(None, description="base URL of an S3-compatible server; none means AWS")
    region: str = Field("us-east-1", description="region of the bucket")
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    path_style: bool | None = Field(
        None, description="bucket in the path, not the host name; none means: with an endpoint, not at AWS"
    )
    kms_key: str | None = Field(
        None, description="KMS key that objects are encrypted with (SSE-KMS); none means as the bucket is set up"
    )


class SigningSettings(BaseModel):
    """The key that signs what is mirrored; none: nothing is signed.  ``signing_password`` reads its password."""

    key: Path | None = Field(None, description="PEM file with a private key on the curve P-256, P-384 or P-521")
    password: SecretStr | None = Field(None, description="password of that file, if it has one")
    password_file: Path | None = Field(None, description="file that holds the password instead")


class RaySettings(BaseModel):
    """One Ray cluster with Serve, reached over REST alone."""

    dashboard: str = Field("", description="base URL of the dashboard and Serve's REST API")
    serve: str = Field("", description="base URL of Serve's HTTP proxy")
    token: SecretStr | None = Field(None, description="Ray's authentication token")
    starts_proxy: bool = Field(
        False, description="whether Serve's proxy is to be started at `serve`; the embedded cluster's is"
    )


class KubernetesSettings(BaseModel):
    """One namespace of a Kubernetes cluster with KubeRay.  With a namespace set, releases go there."""

    namespace: str = Field("", pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$", description="where releases live")
    kubeconfig: Path | None = Field(
        None, description="kubeconfig file; none: the service account of the pod that this process runs in"
    )
    context: str = Field("", description="context of the kubeconfig; empty: its current one")
    service_url: str = Field(
        "http://{name}.{namespace}.svc:8000",
        description="base URL of a Service, seen from here; may hold {name}, {namespace} and {cluster_ip}",
    )
    live_url: str = Field(
        "",
        description="base URL where clients reach a service through a Gateway, with the same fields; none: Service",
    )

    @field_validator("service_url", "live_url")
    @classmethod
    def _can_be_filled_in(cls, template: str) -> str:
        """Refuse a template with other fields; the message of ``read_settings`` names the variable."""
        try:
            template.format(name="", namespace="", cluster_ip="")
        except (LookupError, ValueError) as error:
            raise ValueError("a field that nothing fills in") from error
        return template


class WorkerSettings(BaseModel):
    """What runs flows: processes beside a worker, or jobs of a Kubernetes cluster; ``slipway bootstrap`` reads it."""

    kind: Literal["process", "kubernetes"] = Field("process", description="the kind of work pool")
    directory: Path | None = Field(
        None, description="this project's folder where flows run; none: this one, or /opt/slipway in a container"
    )
    image: str = Field("", description="container image that flows run in on Kubernetes")


class ReceiverSettings(BaseModel):
    """The webhook receiver.  ``receiver_secrets`` says what callers must know."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a pod")
    port: int = Field(8088, ge=0, le=65535, description="port to listen on; 0: a free one")
    secret: SecretStr | None = Field(
        None, description="what callers show; while one replaces another, both, with a space between"
    )
    secret_file: Path | None = Field(None, description="file that holds the secrets instead; read when it changes")
    body_bytes: int = Field(262_144, ge=1024, description="largest body of a call")
    calls: int = Field(256, ge=1, description="genuine calls in hand at once; one more is told to come again")
    connections: int = Field(512, ge=16, le=900, description="connections at once; the quietest make room for others")


class Settings(BaseSettings):
    """Everything a flow needs to know about its surroundings."""

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(Path(".slipway"), description="state of the embedded stack, caches and reports")
    services: Path = Field(SERVICES, description="folder of service specs")
    hub: HubSettings = HubSettings()
    store: StoreSettings = StoreSettings()
    signing: SigningSettings = SigningSettings()
    ray: RaySettings = RaySettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    worker: WorkerSettings = WorkerSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    crash_at: str = Field("", description="for tests: the boundary at which a run kills itself")
    prefect_api: str = Field("", description="Prefect's API; empty: what Prefect itself is set up with")

    def from_hub(self, endpoint: str) -> "Settings":
        """Return the settings with another Hub, which does not get the token of the configured one."""
        token_origin = self.hub.token_origin or self.hub.endpoint
        hub = self.hub.model_copy(update={"endpoint": endpoint, "token_origin": token_origin})
        return self.model_copy(update={"hub": hub})

    def at_store(self, url: str) -> "Settings":
        """Return the settings with the store at ``url``, asked with the same keys."""
        return self.model_copy(update={"store": self.store.model_copy(update={"url": url})})


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


def hub_token(settings: HubSettings, endpoint: str) -> SecretStr | None:
    """Return the token to open the Hub at ``endpoint`` with; None where there is none, or it is another Hub's.

    A token goes to one origin (scheme, host and port), whoever asks for a release from elsewhere.  Raises
    ``BadInput`` for a token that is set twice, a file that cannot be read, and what cannot be a token.
    """
    if settings.token is None and settings.token_file is None:
        return None
    whose = _origin(settings.token_origin or settings.endpoint)
    if whose is None and settings.token_origin:
        raise BadInput("SLIPWAY_HUB__TOKEN_ORIGIN is not the address of a Hub.", remedy="Write it as https://host.")
    if whose is None or whose != _origin(endpoint):
        return None
    token = _secret(settings.token, settings.token_file, "SLIPWAY_HUB__TOKEN")
    if token and not re.fullmatch("[!-~]+", token.get_secret_value()):
        where = settings.token_file or "SLIPWAY_HUB__TOKEN"
        raise BadInput(f"{where} does not hold a token.", remedy="A token is one word of plain characters.")
    return token


def signing_password(settings: SigningSettings) -> SecretStr | None:
    """Return the password of the signing key, if it has one; raises ``BadInput`` as ``hub_token`` does."""
    return _secret(settings.password, settings.password_file, "SLIPWAY_SIGNING__PASSWORD")


def receiver_secrets(settings: ReceiverSettings) -> tuple[SecretStr, ...]:
    """Return the secrets that open the webhook, one at least; raises ``BadInput`` as ``hub_token`` does.

    They are sent as a header, so each is one word of plain characters; ``LEAST_SECRET`` of them cannot be guessed.
    """
    variable = "SLIPWAY_RECEIVER__SECRET"
    held = _secret(settings.secret, settings.secret_file, variable)
    words = held.get_secret_value().split() if held else []
    if not words or any(len(word) < LEAST_SECRET or not re.fullmatch("[!-~]+", word) for word in words):
        raise BadInput(
            f"{settings.secret_file or variable} does not hold a secret of {LEAST_SECRET} plain characters or more.",
            remedy="`openssl rand -hex 32` makes one.",
        )
    return tuple(SecretStr(word) for word in words)


def _secret(value: SecretStr | None, file: Path | None, variable: str) -> SecretStr | None:
    """Return a secret from a variable or the file that another one names, without the line's end."""
    if file is None:
        return value
    if value is not None:
        raise BadInput(f"Both {variable} and {variable}_FILE are set.", remedy="Unset one of them.")
    remedy = f"Mend the file or unset {variable}_FILE, which names it."
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}.", remedy=remedy) from error
    text = content.decode(errors="replace").rstrip("\r\n")
    if not text:
        raise BadInput(f"{file} is empty.", remedy=remedy)
    return SecretStr(text)


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a plain URL; None for any other, which two programs might read differently."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname or not re.fullmatch(r"[\w.:\[\]-]+", parts.netloc, re.ASCII):
        return None
    return parts.scheme, parts.hostname, port


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


_SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_LOG_DEST": "/dev/null",  # it would write 2 MB for each gigabyte to the home folder
}
