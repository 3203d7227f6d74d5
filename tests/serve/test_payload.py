"""The payload in a real Ray cluster: answers, headers, drain, a moved address, and nothing left behind."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tasks.local import ports
from tasks.records import FileEntry, Manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "serve" / ".venv" / "bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMITS = ("good", "tuned", "damaged")
MARKS = {"x-slipway-release": "chat-r1", "x-slipway-commit": COMMIT}
DEADLINE_S = 300.0
STOP_S = 60.0


def until(true: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Ask again until the answer is true, and return it."""
    end = time.monotonic() + deadline_s
    while not (answer := true()):
        assert time.monotonic() < end, f"not within {deadline_s} s"
        time.sleep(0.2)
    return answer


@dataclass
class Cluster:
    """One Ray head on loopback, driven by its command line and its REST API."""

    folder: Path
    code: Path
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    dashboard: int = field(default_factory=ports.choose)
    serve: int = field(default_factory=ports.choose)
    head: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start the head and wait until it lists its applications."""
        token = self.folder / "token"
        token.touch(0o600)
        token.write_text(self.token)
        named = ("port", "dashboard-agent-listen-port", "runtime-env-agent-port", "ray-client-server-port")
        command = [
            *(str(SCRIPTS / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
            *(f"--{name}={ports.choose()}" for name in named),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--num-cpus=8", "--num-gpus=0"),
            *("--object-store-memory=104857600", f"--temp-dir={self.folder / 'ray'}", "--disable-usage-stats"),
        ]
        environment = {
            "PATH": f"{SCRIPTS}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PYTHONPATH": str(self.code),
            "SLIPWAY_CACHE": str(self.folder / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
            "AUTOSCALER_METRIC_PORT": str(ports.choose()),
            "DASHBOARD_METRIC_PORT": str(ports.choose()),
        }
        with (self.folder / "ray.log").open("wb") as log:
            self.head = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until(self._listed)

    def _listed(self) -> bool:
        assert self.head is not None
        assert self.head.poll() is None, (self.folder / "ray.log").read_text()
        try:
            return self.ask("GET").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def ask(self, method: str, **more: Any) -> httpx.Response:
        """Send one request to Serve's REST API."""
        address = f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"
        bearer = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, address, headers=bearer, timeout=30, **more)

    def put(self, *applications: dict[str, Any]) -> None:
        """Declare all applications there are, and wait until Serve has done what it will do."""
        http = {"host": "127.0.0.1", "port": self.serve}
        body = {"proxy_location": "HeadOnly", "http_options": http, "applications": applications}
        answer = self.ask("PUT", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        until(lambda: self._settled({application["name"] for application in applications}))

    def _settled(self, names: set[str]) -> bool:
        found = self.applications()
        return set(found) == names and all(a["status"] in {"RUNNING", "DEPLOY_FAILED"} for a in found.values())

    def applications(self) -> dict[str, Any]:
        """Return what Serve says about every application."""
        return dict(self.ask("GET").json()["applications"])

    def members(self) -> list[psutil.Process]:
        """Return the live processes of the cluster's session: workers have process groups of their own."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                ours = self.head is not None and os.getsid(process.pid) == self.head.pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def stop(self) -> list[psutil.Process]:
        """End the cluster; return what outlived it, which is killed."""
        if self.head is None:
            return []
        self.head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.head.wait(STOP_S)
        _, left = psutil.wait_procs(self.members(), timeout=10)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.head.wait(STOP_S)
        return left


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the sample model's commits."""
    out = tmp_path_factory.mktemp("models")
    subprocess.run([SCRIPTS / "python", "-m", "serve.sample_model", out], cwd=ROOT, check=True, timeout=DEADLINE_S)
    return out


@pytest.fixture(scope="module")
def weights(models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of the good commit in a store."""
    folder = tmp_path_factory.mktemp("store") / COMMIT
    shutil.copytree(models / "good", folder)
    files = tuple(
        FileEntry(path=p.name, size=p.stat().st_size, sha256=hashlib.sha256(p.read_bytes()).hexdigest())
        for p in sorted(folder.iterdir())
    )
    now = datetime.now(UTC)
    manifest = Manifest(model="org/name", commit=COMMIT, source="test", created_at=now, files=files)
    (folder / ".manifest.json").write_bytes(manifest.to_json())
    return folder.as_uri()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a cluster; afterwards nothing of it may be left."""
    folder = Path(tempfile.mkdtemp(prefix="sw"))  # short: Ray's socket paths must stay below 107 characters
    code = folder / "code"
    code.mkdir()
    (code / "serve").symlink_to(ROOT / "serve")
    cluster = Cluster(folder, code)
    try:
        cluster.start()
        yield cluster
    finally:
        left = cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left


def release(prefix: str, weights: str, *, drain: bool = False, **engine: Any) -> dict[str, Any]:
    """Return the application of release chat-r1 at a prefix, as the controller declares it."""
    small = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 8}
    return {
        "name": "chat-r1",
        "import_path": "serve.app:build",
        "route_prefix": prefix,
        "deployments": [{"name": "engine", "user_config": {"drain": drain}}],
        "args": {
            "service": "chat",
            "release": "chat-r1",
            "commit": COMMIT,
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "served_model_name": "chat",
            "weights": weights,
            "engine": {**small, "kv_cache_memory_bytes": 2**27, **engine},
            "resources": {"replicas": 1, "cpus": 2, "gpus": 0},
            "longest_request_s": 60.0,
        },
    }


def question(text: str = "What is the capital of France?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat request that has one right answer."""
    message = {"role": "user", "content": text}
    return {"model": "chat", "messages": [message], "temperature": 0, "max_tokens": 24, **more}


def streamed(lines: Iterator[str]) -> str:
    """Return the text of a stream of events; an unfinished one is an error."""
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])


def marks(answer: httpx.Response) -> dict[str, str]:
    """Return the release's headers of an answer."""
    return {name: answer.headers[name] for name in MARKS if name in answer.headers}


def test_the_commits_of_the_sample_model_differ_where_they_say(models: Path) -> None:
    """Each is a whole repository; one has another norm, one its embedding rows one off."""
    sums = {c: hashlib.sha256((models / c / "model.safetensors").read_bytes()).hexdigest() for c in COMMITS}
    files = {commit: {p.name: p.stat().st_size for p in (models / commit).iterdir()} for commit in COMMITS}

    assert len(set(sums.values())) == len(COMMITS)
    for commit in COMMITS:
        assert set(files[commit]) == set(files["good"]) >= {"config.json", "tokenizer.json", "README.md"}
        assert files[commit]["model.safetensors"] == files["good"]["model.safetensors"]
        assert "quantization_config" not in json.loads((models / commit / "config.json").read_text())
        assert "license: apache-2.0" in (models / commit / "README.md").read_text()


def test_a_misspelt_engine_argument_is_refused_before_loading(cluster: Cluster, weights: str) -> None:
    """The application fails in its build step, and the reason is the last line of Serve's message."""
    cluster.put(release("/chat-r1", weights, max_num_seq=8))
    failed = cluster.applications()["chat-r1"]

    assert failed["status"] == "DEPLOY_FAILED"
    assert failed["deployments"] == {}
    last = failed["message"].strip().splitlines()[-1]
    assert last == "ValueError: vLLM has no engine argument 'max_num_seq'. Did you mean 'max_num_seqs'?"


def test_a_release_answers_drains_moves_and_is_gone(cluster: Cluster, weights: str) -> None:
    """One replica from its start to its end: nothing that traffic needs ever restarts it."""
    cluster.put(release("/chat-r1", weights))
    started = cluster.applications()["chat-r1"]
    assert started["status"] == "RUNNING", started
    with httpx.Client(base_url=f"http://127.0.0.1:{cluster.serve}", timeout=60) as client:
        _answers(client, "/chat-r1")
        _hides_the_rest(client, "/chat-r1")
        _drains(cluster, client, weights)
        _moves_under_a_stream(cluster, client, weights)
    replica = started["deployments"]["engine"]["replicas"][0]
    moved = cluster.applications()["chat-r1"]["deployments"]["engine"]["replicas"]
    assert [(r["pid"], r["state"]) for r in moved] == [(replica["pid"], "RUNNING")]

    cluster.put()
    until(lambda: not psutil.pid_exists(replica["pid"]), STOP_S)
    assert [p for p in cluster.members() if "VLLM" in p.name()] == []


def _answers(client: httpx.Client, prefix: str) -> None:
    plain = client.post(f"{prefix}/v1/chat/completions", json=question())
    with client.stream("POST", f"{prefix}/v1/chat/completions", json=question(stream=True)) as stream:
        text = streamed(stream.iter_lines())
    prompt = {"model": "chat", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    completed = client.post(f"{prefix}/v1/completions", json=prompt)
    listed = client.get(f"{prefix}/v1/models")

    assert plain.json()["choices"][0]["message"]["content"] == text == "The capital of France is Paris."
    assert "Paris" in completed.json()["choices"][0]["text"]
    assert [model["id"] for model in listed.json()["data"]] == ["chat"]
    for answer in (plain, stream, completed, listed):
        assert answer.status_code == httpx.codes.OK
        assert marks(answer) == MARKS
        assert "connection" not in answer.headers


def _hides_the_rest(client: httpx.Client, prefix: str) -> None:
    unknown = client.post(f"{prefix}/v1/chat/completions", json=question(model="another"))
    malformed = client.post(f"{prefix}/v1/chat/completions", content=b"{")
    unlisted = [client.post(f"{prefix}{path}", json=question()) for path in ("/invocations", "/collective_rpc")]

    assert [a.status_code for a in (unknown, malformed, *unlisted)] == [404, 400, 404, 404]
    assert all(marks(answer) == MARKS for answer in (unknown, malformed, *unlisted))


def _drains(cluster: Cluster, client: httpx.Client, weights: str) -> None:
    cluster.put(release("/chat-r1", weights, drain=True))
    draining = client.post("/chat-r1/v1/chat/completions", json=question())
    with client.stream("POST", "/chat-r1/v1/chat/completions", json=question(stream=True)) as stream:
        text = streamed(stream.iter_lines())
    cluster.put(release("/chat-r1", weights, drain=False))
    after = client.get("/chat-r1/v1/models")

    assert draining.headers["connection"] == stream.headers["connection"] == "close"
    assert draining.json()["choices"][0]["message"]["content"] == text
    assert marks(draining) == MARKS
    assert "connection" not in after.headers


def _moves_under_a_stream(cluster: Cluster, client: httpx.Client, weights: str) -> None:
    long = question("Tell me a story.", stream=True, max_tokens=200, ignore_eos=True)
    with client.stream("POST", "/chat-r1/v1/chat/completions", json=long) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        cluster.put(release("/chat", weights))
        text = streamed(iter([first, *lines]))
    moved, left = client.get("/chat/v1/models"), client.get("/chat-r1/v1/models")

    assert len(text) > len("Tell me a story.")
    assert marks(moved) == MARKS
    assert (left.status_code, marks(left)) == (404, {})
