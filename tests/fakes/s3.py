"""A real S3 server for tests: SeaweedFS in a folder of its own, with its own keys and ports."""

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import SecretStr

from tasks._stores.store import open_store
from tasks.errors import NotFound, Unreachable
from tasks.local import ports
from tasks.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "weights"
START_DEADLINE_S = 60
_ACCESS_KEY, _SECRET_KEY = "TESTACCESSKEY", "test-secret-key-of-no-worth"
_LISTENERS = ("master", "volume", "filer", "s3", "admin")


@contextmanager
def seaweed(folder: Path, host: str = ports.HOST) -> Iterator[StoreSettings]:
    """Run the server on an address until the block is left; yields the settings of its one bucket."""
    keys = {"accessKey": _ACCESS_KEY, "secretKey": _SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": [keys], "actions": actions}]}))
    flags, taken = [], set[int]()
    for listener in _LISTENERS:
        for name in (f"{listener}.port", f"{listener}.port.grpc"):
            port = ports.choose(taken=taken)
            taken.add(port)
            flags.append(f"-{name}={port}")
            if name == "s3.port":
                endpoint = f"http://{host}:{port}"
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"), "mini", f"-dir={folder}", *flags, f"-bucket={BUCKET}",
        f"-ip={host}", f"-ip.bind={host}", f"-s3.config={config}", "-s3.autoCreateBucket=false",
        "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    settings = StoreSettings(
        url=f"s3://{BUCKET}",
        endpoint=endpoint,
        access_key=SecretStr(_ACCESS_KEY),
        secret_key=SecretStr(_SECRET_KEY),
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_writes(settings, server)
        yield settings
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        for port in taken:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)


@contextmanager
def s3_client(settings: StoreSettings) -> "Iterator[S3Client]":
    """Give a client of the store that is none of ours, and compares no checksum that our own code should."""
    assert settings.access_key
    assert settings.secret_key
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key.get_secret_value(),
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        config=Config(response_checksum_validation="when_required"),
    )
    with closing(client):
        yield client


def open_uploads(settings: StoreSettings) -> list[str]:
    """Return the keys of the store's uploads that are neither completed nor aborted, past our own code."""
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    with s3_client(settings) as client:
        uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix + "/").get("Uploads", [])
    return [upload["Key"] for upload in uploads]


def _await_writes(settings: StoreSettings, server: "subprocess.Popen[bytes]") -> None:
    """Wait for a write that works: the ports accept long before."""
    deadline = time.monotonic() + START_DEADLINE_S
    store = open_store(settings)
    try:
        while True:
            try:
                store.put_if("ready", b"", expect=None)
            except (Unreachable, NotFound) as error:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                if isinstance(error, NotFound):  # it makes the bucket once, at a moment when that may fail
                    with suppress(ClientError), s3_client(settings) as client:
                        client.create_bucket(Bucket=BUCKET)
                time.sleep(0.1)
            else:
                return
    finally:
        store.close()
