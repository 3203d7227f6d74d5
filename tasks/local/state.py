"""What the embedded stack remembers between commands: its mark, its ports, its keys, and where it answers.

``stack.json`` and ``secrets/`` stay when the stack goes down, so that it comes up again at the same addresses with
the same keys for the data that is still there.  Secrets are in files of mode 0600 of their own.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError

from tasks._clock import Clock
from tasks.errors import MachineError
from tasks.local import ports
from tasks.records import Value
from tasks.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "slipway"
REGION = "us-east-1"

PORTS: Mapping[str, tuple[str, ...]] = {
    "s3": ("s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "admin"),
    "hub": ("hub", "hub_files"),
    "prefect": ("prefect",),
    "ray": (
        *("ray", "ray_gcs", "ray_client", "ray_agent", "ray_agent_grpc", "ray_runtime_env", "ray_metrics"),
        *("ray_objects", "ray_node", "ray_autoscaler_metrics", "ray_dashboard_metrics", "serve"),
    ),
    "worker": (),
}
_RELEASE_S = 3.0  # how long the threads of a killed program may hold its port after the program is gone
ADMIN_GRPC = 10000  # SeaweedFS' own worker looks for the admin server's gRPC at its HTTP port plus this


class State(Value):
    """The stack's random mark and its port by purpose."""

    mark: str
    ports: dict[str, int]


class Keys(Value):
    """The stack's own secrets, made at its first start."""

    access_key: SecretStr
    secret_key: SecretStr
    ray_token: SecretStr

    @classmethod
    def load(cls, home: Path) -> Self:
        """Return the keys under ``home``, made on first use."""
        folder = home / "secrets"
        names = tuple(cls.model_fields)
        if not all((folder / name).is_file() for name in names):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in names:
                write_private(folder / name, secrets.token_hex(10 if name == "access_key" else 32))
        return cls(**{name: SecretStr((folder / name).read_text()) for name in names})

    def texts(self) -> tuple[str, ...]:
        """Return the bare secrets, to mask them in what a program said."""
        return tuple(value.get_secret_value() for value in (self.access_key, self.secret_key, self.ray_token))


class Stack(Value):
    """Where the parts of a running stack answer; all of it on 127.0.0.1."""

    home: Path
    s3: str
    hub: str
    prefect: str
    ray: str
    serve: str
    bucket: str = BUCKET

    @property
    def prefect_api(self) -> str:
        """Return the base URL of Prefect's API."""
        return f"{self.prefect}/api"

    def settings(self) -> dict[str, Any]:
        """Return what ``tasks.settings.Settings`` needs to work on this stack; secrets are ``SecretStr``.

        A token is for the Hub that it was meant for before there was a stack, so that a gated model may be released
        from there; the stack's own Hub does not get it.
        """
        keys, told = Keys.load(self.home), read_settings()
        return {
            "home": self.home,
            "services": told.services.absolute(),
            "hub": {
                "endpoint": self.hub,
                "token": told.hub.token,
                "token_file": _absolute(told.hub.token_file),
                "token_origin": told.hub.token_origin or told.hub.endpoint,
                "xet": told.hub.xet,
            },
            "store": {
                "url": f"s3://{self.bucket}",
                "endpoint": self.s3,
                "region": REGION,
                "access_key": keys.access_key,
                "secret_key": keys.secret_key,
                "path_style": None,
                "kms_key": None,
            },
            "signing": {
                "key": _absolute(told.signing.key),
                "password": told.signing.password,
                "password_file": _absolute(told.signing.password_file),
            },
            "ray": {"dashboard": self.ray, "serve": self.serve, "token": keys.ray_token, "starts_proxy": True},
            "prefect_api": self.prefect_api,
        }

    def environment(self) -> dict[str, str]:
        """Return the variables of a process that works on this stack: its settings and a quiet Prefect.

        A person's own secrets are not among them, as ``kept_back`` says; the files that hold some are.
        """
        settings = self.settings()
        settings["hub"]["token"] = settings["signing"]["password"] = None
        return {
            **_variables("SLIPWAY", settings),
            "PREFECT_API_URL": self.prefect_api,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_PROFILES_PATH": str(self.home / "prefect" / "profiles.toml"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_COLORS": "false",
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(self.home / "huggingface"),
            "NO_PROXY": "127.0.0.1,localhost",
        }


def kept_back() -> tuple[str, ...]:
    """Return the variables with a person's secrets that are set now and that no process of a stack is given.

    Such a process outlives the shell that it was started from, and would hold the secret until the stack goes down.
    """
    told = read_settings()
    secret = {"SLIPWAY_HUB__TOKEN": told.hub.token, "SLIPWAY_SIGNING__PASSWORD": told.signing.password}
    return tuple(name for name, value in secret.items() if value)


def demonstration_mark(home: Path) -> Path:
    """Return the file whose presence says that the stack is a demonstration's, which the next one may wipe."""
    return home / "demonstration"


def read_state(home: Path) -> State | None:
    """Return what was remembered, or nothing."""
    try:
        return State.from_json((home / "stack.json").read_bytes())
    except (OSError, ValidationError):
        return None


def remember(home: Path, idle: frozenset[str], wanted: Mapping[str, int]) -> State:
    """Return the stack's state with a usable port for every purpose, and write it down.

    The ports of the ``idle`` components, which do not run, are kept where they are free and chosen anew where
    not.  ``wanted`` are ports that a person asks for; raises ``MachineError`` where one of them is taken.
    """
    old = read_state(home) or State(mark=secrets.token_hex(16), ports={})
    known = dict(old.ports)
    for component, purposes in PORTS.items():
        for purpose in purposes:
            if purpose in wanted and wanted[purpose] != known.get(purpose):
                known[purpose] = ports.demand(purpose, wanted[purpose])
            elif component in idle and not _usable(purpose, known.get(purpose)):
                if purpose in wanted:
                    ports.demand(purpose, wanted[purpose])
                known[purpose] = ports.choose(taken=known.values(), beside=_beside(purpose))
            if purpose == "admin":
                known["admin_grpc"] = known[purpose] + ADMIN_GRPC
    state = State(mark=old.mark, ports=known)
    write_private(home / "stack.json", state.to_json().decode())
    return state


def addresses(home: Path, state: State) -> Stack:
    """Return where the parts answer."""
    where = {name: f"http://{ports.HOST}:{state.ports[name]}" for name in ("s3", "hub", "prefect", "ray", "serve")}
    return Stack(home=home, **where)


def short_folder(home: Path) -> Path:
    """Return the folder for sockets and Ray's session: short, as a socket's path holds 107 bytes at most."""
    return Path("/tmp") / f"slipway-{hashlib.sha256(bytes(home)).hexdigest()[:8]}"  # noqa: S108 - owner checked


def make_short_folder(home: Path) -> Path:
    """Make that folder for this user alone; raises ``MachineError`` where somebody else made it before."""
    folder = short_folder(home)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise MachineError(
            f"{folder} belongs to another user.", remedy="Remove it, or use another folder for the stack."
        )
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(descriptor)
    draft.replace(path)


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def _beside(purpose: str) -> int:
    return ADMIN_GRPC if purpose == "admin" else 0


def _usable(purpose: str, port: int | None) -> bool:
    if port is None:
        return False
    both = {port, port + _beside(purpose)}
    return any(all(map(ports.is_free, both)) for _ in Clock().ticks(_RELEASE_S, 0.1))


def _variables(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}_{name.upper()}"
        if isinstance(value, Mapping):
            found |= {k.replace(f"{key}_", f"{key}__", 1): v for k, v in _variables(key, value).items()}
        elif value is not None:
            found[key] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return found
