"""From the store to a local folder that an engine may trust."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from serve import weights
from serve.weights import WeightsError, fetch, read_manifest
from tasks.records import FileEntry, Manifest
from tests.fakes.s3 import seaweed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model-1.safetensors": b"w" * 200_000, "sub/vocab.txt": b"", "tokenizer.json": b"[1]"}


def manifest(files: dict[str, bytes], commit: str = COMMIT, *, declared: dict[str, int] | None = None) -> bytes:
    """Return the manifest that the controller writes for these files."""
    entries = tuple(
        FileEntry(path=path, size=(declared or {}).get(path, len(data)), sha256=hashlib.sha256(data).hexdigest())
        for path, data in files.items()
    )
    now = datetime.now(UTC)
    return Manifest(model="org/name", commit=commit, source="http://hub", created_at=now, files=entries).to_json()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return the folder of a commit in a store."""
    folder = tmp_path / "a store" / COMMIT
    for path, data in {**FILES, ".manifest.json": manifest(FILES)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the folder of a node's cache, which need not exist."""
    return tmp_path / "node" / "cache"


def local(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_commit_is_fetched_whole_and_then_found(stored: Path, cache: Path) -> None:
    """The second start copies nothing: the same files are still there."""
    folder = fetch(stored.as_uri(), cache)
    before = {path: path.stat().st_ino for path in folder.rglob("*")}

    assert folder == cache / COMMIT
    assert local(folder) == FILES
    assert fetch(stored.as_uri(), cache) == folder
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before


def test_what_is_not_in_the_manifest_is_removed(stored: Path, cache: Path) -> None:
    """Parts of a killed download, and files that nobody vouches for, do not reach an engine."""
    folder = fetch(stored.as_uri(), cache)
    (folder / "tokenizer.json.0123.part").write_bytes(b"half")
    (folder / "sub" / "modeling.py").write_text("import os")
    (folder / "link.json").symlink_to(folder / "config.json")

    fetch(stored.as_uri(), cache)

    assert local(folder) == FILES


@pytest.mark.parametrize("damage", [b"W" + b"w" * 199_999, b"w", b""])
def test_a_damaged_copy_is_fetched_again(stored: Path, cache: Path, damage: bytes) -> None:
    """Every byte is hashed again before an engine starts, whatever the size says."""
    folder = fetch(stored.as_uri(), cache)
    (folder / "model-1.safetensors").write_bytes(damage)

    fetch(stored.as_uri(), cache)

    assert local(folder) == FILES


@pytest.mark.parametrize("wrong", [b"v" * 200_000, b"w" * 199_999, b"w" * 200_001])
def test_bytes_other_than_declared_are_an_error(stored: Path, cache: Path, wrong: bytes) -> None:
    """The error names the file and both hashes, and the file never gets its name."""
    (stored / "model-1.safetensors").write_bytes(wrong)

    with pytest.raises(WeightsError, match=r"model-1\.safetensors is not what the manifest declares") as caught:
        fetch(stored.as_uri(), cache)

    assert hashlib.sha256(FILES["model-1.safetensors"]).hexdigest() in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert "model-1.safetensors" not in local(cache / COMMIT)
    assert not list(cache.rglob("*.part"))


def test_no_manifest_means_not_there(stored: Path, cache: Path) -> None:
    """Files without a manifest were never mirrored whole."""
    (stored / ".manifest.json").unlink()

    with pytest.raises(WeightsError, match="has no manifest"):
        fetch(stored.as_uri(), cache)


def test_a_listed_file_that_is_missing_is_an_error(stored: Path, cache: Path) -> None:
    """The store lost a file after the manifest was written."""
    (stored / "config.json").unlink()

    with pytest.raises(WeightsError, match=r"config\.json cannot be copied"):
        fetch(stored.as_uri(), cache)


def test_a_disk_too_small_is_said_before_the_first_byte(stored: Path, cache: Path) -> None:
    """An exabyte does not fit anywhere."""
    (stored / ".manifest.json").write_bytes(manifest(FILES, declared={"model-1.safetensors": 10**18}))

    with pytest.raises(WeightsError, match=r"bytes free, and 1,000,000,000,000,000,\d{3} are still to be fetched"):
        fetch(stored.as_uri(), cache)

    assert local(cache / COMMIT) == {}


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "a//b", "./a", "", ".", ".manifest.json", "a.part", "a\0b"]
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    """A manifest cannot write elsewhere, nor over what the cache itself uses."""
    with pytest.raises(WeightsError, match="never stores"):
        read_manifest(manifest({path: b"x"}), COMMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        manifest({}),
        manifest(FILES, commit="f" * 40),
        manifest(FILES).replace(b'"version": 1', b'"version": 2'),
        manifest(FILES).replace(b'"size": 2,', b'"size": -2,'),
        manifest(FILES).replace(b'"sha256": "', b'"sha256": "x'),
        manifest(FILES).replace(b"tokenizer.json", b"config.json"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(data: bytes) -> None:
    """Another commit, another version, no files, one twice, no hash: nothing is guessed."""
    with pytest.raises(WeightsError, match="manifest"):
        read_manifest(data, COMMIT)


def test_three_processes_at_once_are_safe(stored: Path, cache: Path) -> None:
    """Replicas that start together end with one good copy."""
    program = "import sys, pathlib, serve.weights as w; w.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", program, stored.as_uri(), str(cache)]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(3)]

    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert local(cache / COMMIT) == FILES


def test_another_scheme_is_refused(cache: Path) -> None:
    """Weights come from a store, not from anywhere."""
    with pytest.raises(WeightsError, match="s3:// or file://"):
        fetch(f"https://host/{COMMIT}", cache)


class _FrailStore(BaseHTTPRequestHandler):
    """An S3 server that breaks off the first ``breaks`` answers for the weights halfway."""

    breaks = 0
    status = 200

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix(f"/bucket/models/{COMMIT}/")
        data = manifest(FILES) if path == ".manifest.json" else FILES[path]
        if type(self).status != 200:
            data = b""
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if path.startswith("model") and type(self).breaks > 0:
            type(self).breaks -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def frail(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_FrailStore]]:
    """Run the server, and point the standard variables to it."""
    handler = type("Handler", (_FrailStore,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    _point_to(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}", "key", "secret")
    monkeypatch.setattr(weights, "PAUSE_S", 0.0)
    yield handler
    server.shutdown()
    server.server_close()


def _point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str, key: str, secret: str) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_a_stream_that_breaks_off_is_begun_again(frail: type[_FrailStore], cache: Path) -> None:
    """Half a file is not a reason to give up a release."""
    frail.breaks = 2

    assert local(fetch(f"s3://bucket/models/{COMMIT}", cache)) == FILES


def test_a_store_that_always_breaks_off_is_given_up(frail: type[_FrailStore], cache: Path) -> None:
    """After the last attempt the error says so, and no part is left."""
    frail.breaks = 99

    with pytest.raises(WeightsError, match="broke off 4 times"):
        fetch(f"s3://bucket/models/{COMMIT}", cache)

    assert not list(cache.rglob("*.part"))


@pytest.mark.parametrize(("status", "said"), [(403, "answered 403"), (404, "has no manifest")])
def test_a_store_that_refuses_is_not_asked_again(
    frail: type[_FrailStore], cache: Path, status: int, said: str
) -> None:
    """A missing right and a missing commit are told apart by status, and neither passes by itself."""
    frail.status = status

    with pytest.raises(WeightsError, match=said):
        fetch(f"s3://bucket/models/{COMMIT}", cache)


@pytest.mark.slow
def test_a_commit_in_a_real_object_store_is_fetched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS, with keys: whole, then repaired after damage."""
    with seaweed(tmp_path) as settings:
        assert settings.endpoint and settings.access_key and settings.secret_key  # noqa: PT018
        key, secret = settings.access_key.get_secret_value(), settings.secret_key.get_secret_value()
        _point_to(monkeypatch, settings.endpoint, key, secret)
        bucket, prefix = settings.url.removeprefix("s3://"), f"models/org/name/{COMMIT}"
        client = boto3.client("s3")
        for path, data in {**FILES, ".manifest.json": manifest(FILES)}.items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=data)

        folder = fetch(f"{settings.url}/{prefix}", cache)
        (folder / "config.json").write_bytes(b"[]")
        fetch(f"{settings.url}/{prefix}", cache)

    assert local(folder) == FILES
