"""``python -m tasks.local.hub`` as a process: ready line, tokens, a taken port, and a stop in good order."""

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tasks.local.hub.publishing import publish
from tests.tasks.local.hub.conftest import GATED, READER, WEIGHTS, write_model

_DEADLINE_S = 20


@contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tasks.local.hub", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], _DEADLINE_S)[0], "no ready line in time"
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


def test_it_serves_with_tokens_from_a_file_and_stops_on_sigterm(tmp_path: Path) -> None:
    """Free ports are said in one line, a token from the file opens the gate, SIGTERM ends with 0 and silence."""
    publish(tmp_path / "hub", GATED, write_model(tmp_path / "m"), message="one", gated=True)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({READER: "*"}))
    tokens.chmod(0o600)
    with _running("--root", str(tmp_path / "hub"), "--tokens", str(tokens)) as process:
        addresses = _ready(process)
        url = f"{addresses['endpoint']}/{GATED}/resolve/main/model.safetensors"
        assert httpx.get(url, trust_env=False).status_code == 401
        opened = httpx.get(url, headers={"Authorization": f"Bearer {READER}"}, follow_redirects=True, trust_env=False)
        assert opened.content == WEIGHTS
        assert str(opened.url).startswith(addresses["content_endpoint"])
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=_DEADLINE_S)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_sigterm_lets_an_open_download_finish(tmp_path: Path) -> None:
    """A client in the middle of a large file gets all of it, though the server was told to stop."""
    folder = write_model(tmp_path / "m", weights=WEIGHTS * 32)
    publish(tmp_path / "hub", GATED, folder, message="one")
    with _running("--root", str(tmp_path / "hub")) as process:
        url = f"{_ready(process)['endpoint']}/{GATED}/resolve/main/model.safetensors"
        with httpx.stream("GET", url, follow_redirects=True, trust_env=False) as answer:
            chunks = answer.iter_bytes()
            received = len(next(chunks))
            process.send_signal(signal.SIGTERM)
            received += sum(len(chunk) for chunk in chunks)
        process.communicate(timeout=_DEADLINE_S)
    assert received == len(WEIGHTS) * 32
    assert process.returncode == 0


def test_a_taken_port_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """Either port being taken ends with the machine's exit code and the remedy, without a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option in ("--port", "--cdn-port"):
            command = [sys.executable, "-m", "tasks.local.hub", "--root", str(tmp_path), option, port]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
            assert ended.returncode == 9
            assert ended.stdout == ""
            assert ended.stderr.count("\n") == 1
            assert port in ended.stderr
