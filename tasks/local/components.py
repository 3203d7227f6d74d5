"""The parts of the embedded stack: what each one runs, what it sees, and when it is ready.

Ready means that the part does its work, not that a port is open: the object store has refused a second conditional
write, the Hub and Prefect have said that they are ready, Ray has listed its applications to who holds the token,
and Prefect knows the worker.
"""

import hashlib
import json
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from tasks.local import environments, ports
from tasks.local.processes import Program, read_record
from tasks.local.state import (
    BUCKET,
    REGION,
    ROOT,
    Keys,
    Stack,
    State,
    make_short_folder,
    write_private,
)
from tasks.settings import inherited_environment

POOL = "slipway"
_ANSWER_S = 5.0
_RAY_CPUS = 16  # logical: vLLM's CPU build asks for 8 per replica, and a candidate stands beside the live one
_OBJECT_STORE_BYTES = 104857600  # Serve passes no large object between deployments


@dataclass(frozen=True)
class Surroundings:
    """What the parts are made from."""

    stack: Stack
    state: State
    keys: Keys

    @property
    def home(self) -> Path:
        """Return the folder of the stack's state."""
        return self.stack.home

    def port(self, purpose: str) -> str:
        """Return a recorded port as an argument."""
        return str(self.state.ports[purpose])


@dataclass(frozen=True)
class Component:
    """One part: what a person calls it, how it is run, how it shows that it is ready, and the seconds it may take."""

    name: str
    title: str
    program: Callable[[Surroundings], Program]
    ready: Callable[[Surroundings], bool]
    deadline_s: float


def _s3(here: Surroundings) -> Program:
    folder, sockets = here.home / "s3", make_short_folder(here.home)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    access, secret = here.keys.access_key.get_secret_value(), here.keys.secret_key.get_secret_value()
    credentials = [{"accessKey": access, "secretKey": secret}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = here.home / "secrets" / "s3.json"
    identities = [{"name": "slipway", "credentials": credentials, "actions": actions}]
    write_private(config, json.dumps({"identities": identities}))
    servers = ("s3", "master", "volume", "filer", "admin")
    command = (
        *(str(Path(sysconfig.get_path("scripts"), "weed")), "-logtostderr=true", "mini", f"-dir={folder}"),
        *(f"-ip={ports.HOST}", f"-ip.bind={ports.HOST}", f"-bucket={BUCKET}", f"-s3.config={config}"),
        *("-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.iam=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-s3.localSocket={sockets / 's3.sock'}", f"-filer.localSocket={sockets / 'filer.sock'}"),
        *(f"-{server}.port={here.port(server)}" for server in servers),
        *(f"-{server}.port.grpc={here.port(f'{server}_grpc')}" for server in servers),
    )
    return _program(here, "s3", command, {}, folder)


def _s3_ready(here: Surroundings) -> bool:
    import boto3  # noqa: PLC0415 - 0.5 s that `slipway status` need not pay
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=_ANSWER_S, proxies={})
    client = boto3.client(
        "s3",
        endpoint_url=here.stack.s3,
        region_name=REGION,
        aws_access_key_id=here.keys.access_key.get_secret_value(),
        aws_secret_access_key=here.keys.secret_key.get_secret_value(),
        config=once,
    )
    try:
        client.put_object(Bucket=BUCKET, Key=".ready", Body=b"1")
        client.put_object(Bucket=BUCKET, Key=".ready", Body=b"2", IfNoneMatch="*")
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == httpx.codes.PRECONDITION_FAILED
    except BotoCoreError:
        return False
    return False


def _hub(here: Surroundings) -> Program:
    root = here.home / "hub"
    root.mkdir(parents=True, exist_ok=True)
    command = (
        *(sys.executable, "-m", "tasks.local.hub", "--root", str(root)),
        *("--port", here.port("hub"), "--cdn-port", here.port("hub_files")),
    )
    return _program(here, "hub", command, {}, ROOT)


def _hub_ready(here: Surroundings) -> bool:
    return _answers(f"{here.stack.hub}/healthz")


def _prefect(here: Surroundings) -> Program:
    home = here.home / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    server = {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_SERVER_UI_API_URL": here.stack.prefect_api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Prefect's newer pages tell an analytics host of their vendor about each visit, and cannot be told not to.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # A killed run gives its deployment's one slot back after this, instead of five minutes.
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
    }
    command = (sys.executable, "-m", "prefect", "--no-prompt", "server", "start")
    where = ("--host", ports.HOST, "--port", here.port("prefect"))
    return _program(here, "prefect", (*command, *where), server, home)


def _prefect_ready(here: Surroundings) -> bool:
    return _answers(f"{here.stack.prefect_api}/ready")


def _ray(here: Surroundings) -> Program:
    binaries, payload = environments.environment_python("payload").parent, here.home / "payload"
    payload.mkdir(parents=True, exist_ok=True)
    if not (payload / "serve").is_symlink():
        (payload / "serve").symlink_to(ROOT / "serve")
    listens = {
        "port": "ray_gcs",
        "dashboard-port": "ray",
        "dashboard-agent-listen-port": "ray_agent",
        "dashboard-agent-grpc-port": "ray_agent_grpc",
        "runtime-env-agent-port": "ray_runtime_env",
        "metrics-export-port": "ray_metrics",
        "object-manager-port": "ray_objects",
        "node-manager-port": "ray_node",
        "ray-client-server-port": "ray_client",
    }
    command = (
        *(str(binaries / "ray"), "start", "--head", "--block", f"--node-ip-address={ports.HOST}"),
        *(f"--{option}={here.port(purpose)}" for option, purpose in listens.items()),
        *(f"--dashboard-host={ports.HOST}", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--num-cpus={_RAY_CPUS}", "--num-gpus=0", f"--object-store-memory={_OBJECT_STORE_BYTES}"),
        *(f"--temp-dir={make_short_folder(here.home) / 'ray'}", "--disable-usage-stats"),
        *("--log-style=record", "--include-log-monitor=false"),
    )
    return _program(here, "ray", command, _ray_environment(here, binaries, payload), payload)


def _ray_environment(here: Surroundings, binaries: Path, payload: Path) -> dict[str, str]:
    path = inherited_environment().get("PATH", "/usr/bin:/bin")
    return {
        "PATH": f"{binaries}:{path}",
        "PYTHONPATH": str(payload),  # `serve` alone: the folders beside it would shadow packages of the payload
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(here.home / "secrets" / "ray_token"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps 127.0.0.1 from being replaced by the machine's address
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "AUTOSCALER_METRIC_PORT": here.port("ray_autoscaler_metrics"),
        "DASHBOARD_METRIC_PORT": here.port("ray_dashboard_metrics"),
        "AWS_ENDPOINT_URL_S3": here.stack.s3,
        "AWS_ACCESS_KEY_ID": here.keys.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": here.keys.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SLIPWAY_CACHE": str(here.home / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(here.home / "compiled"),
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _ray_ready(here: Surroundings) -> bool:
    bearer = {"Authorization": f"Bearer {here.keys.ray_token.get_secret_value()}"}
    return _answers(f"{here.stack.ray}/api/serve/applications/", headers=bearer)


def _worker(here: Surroundings) -> Program:
    seen = {**here.stack.environment(), "PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = (sys.executable, "-m", "prefect", "--no-prompt", "worker", "start")
    what = ("--pool", POOL, "--type", "process", "--name", POOL)
    return _program(here, "worker", (*command, *what), seen, ROOT)


def _worker_ready(here: Surroundings) -> bool:
    address = f"{here.stack.prefect_api}/work_pools/{POOL}/workers/filter"
    record = read_record(here.home / "run", "worker")
    try:
        begun = psutil.Process(record.pid).create_time() if record else float("inf")
        answer = httpx.post(address, json={}, timeout=_ANSWER_S, trust_env=False)
    except (httpx.TransportError, psutil.NoSuchProcess):
        return False
    beats = [worker["last_heartbeat_time"] for worker in answer.json()] if answer.is_success else []
    return any(datetime.fromisoformat(beat).timestamp() >= begun for beat in beats)


COMPONENTS = (
    Component("s3", "object store (SeaweedFS)", _s3, _s3_ready, 60),
    Component("hub", "model Hub", _hub, _hub_ready, 60),
    Component("prefect", "Prefect server", _prefect, _prefect_ready, 180),
    Component("ray", "Ray cluster", _ray, _ray_ready, 180),
    Component("worker", "Prefect worker", _worker, _worker_ready, 120),
)


def _program(
    here: Surroundings, name: str, command: tuple[str, ...], seen: Mapping[str, str], folder: Path
) -> Program:
    litter = make_short_folder(here.home) / "tmp"
    litter.mkdir(exist_ok=True)
    told = json.dumps([command, sorted((key, value) for key, value in seen.items() if key != "PATH")])
    return Program(
        name=name,
        command=command,
        environment={**inherited_environment(), **seen, "TMPDIR": str(litter)},
        folder=folder,
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
    )


def _answers(address: str, headers: Mapping[str, str] | None = None) -> bool:
    try:
        return httpx.get(address, headers=headers, timeout=_ANSWER_S, trust_env=False).is_success
    except httpx.TransportError:
        return False
