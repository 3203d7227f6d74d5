"""What calls a receiver, as Hugging Face writes it; and receivers, in this process and as one of their own."""

import json
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import UUID, uuid4

import httpx
from pydantic import SecretStr

from tasks._receiver.application import Receiver
from tasks._receiver.bounds import Bounds, ReceiverServer
from tasks._receiver.counts import Counts
from tasks._receiver.desk import Asked, Call, Desk
from tasks._receiver.keys import Keys
from tasks._receiver.services import Services
from tests.fakes.asgi import PromptServer, running

ROOT = Path(__file__).parents[2]
START_S = 60.0
MODEL = "acme/tiny"
SECRET, NEXT_SECRET = "the-canary-of-webhooks", "the-canary-that-comes-next"
SPEC = f"service: chat\nmodel: {MODEL}\n"


def sha(number: int) -> str:
    """Return a commit's id."""
    return f"{number:040x}"


def payload(commit: str | None, *, ref: str = "refs/heads/main", model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """Return what Hugging Face sends when ``ref`` has moved to ``commit``; ``fields`` take the place of its own.

    As documented at https://huggingface.co/docs/hub/webhooks#webhook-payload.
    """
    return {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": model,
            "id": "621ffdc036468d709f17434d",
            "private": False,
            "url": {"web": f"https://huggingface.co/{model}", "api": f"https://huggingface.co/api/models/{model}"},
            "headSha": sha(0xBAD),
            "owner": {"id": "61d2000c3c2083e1c08af22d"},
        },
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
        "updatedRefs": [{"ref": ref, "oldSha": sha(0), "newSha": commit}],
        **fields,
    }


def body(commit: str | None, **fields: Any) -> bytes:
    """Return the bytes of ``payload``."""
    return json.dumps(payload(commit, **fields)).encode()


@dataclass
class Recorder:
    """Stands where Prefect is asked: every new commit of a service makes a run, and what was asked is kept."""

    asked: list[tuple[str, tuple[Call, ...]]] = field(default_factory=list)
    runs: dict[tuple[str, Call], UUID] = field(default_factory=dict)
    error: Exception | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    trouble: str = ""

    def __post_init__(self) -> None:
        self.go_on.set()

    def converse(self, service: str, calls: tuple[Call, ...]) -> dict[Call, Asked]:
        """Return a run for each call, when it may."""
        self.asked.append((service, calls))
        self.began.set()
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error
        return {call: self._run(service, call) for call in calls}

    def _run(self, service: str, call: Call) -> Asked:
        new = (service, call) not in self.runs
        run = self.runs.setdefault((service, call), uuid4())
        return Asked(service=service, run=run, url=f"http://prefect/{run}", state="Scheduled", new=new)


class Server(PromptServer, ReceiverServer):
    """A receiver's server that stops at once."""


@contextmanager
def in_a_thread(server: ReceiverServer) -> Iterator[None]:
    """Run a receiver's server, as it is, until the block is left."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(START_S)
        assert not thread.is_alive()


@dataclass
class Running:
    """A receiver that answers at ``port``, and what it is made of."""

    port: int
    folder: Path
    prefect: Recorder
    keys: Keys
    services: Services
    counts: Counts
    bounds: Bounds
    server: ReceiverServer

    @property
    def url(self) -> str:
        """Return the address of its webhook."""
        return f"http://127.0.0.1:{self.port}/webhook"


@contextmanager
def receiving(
    folder: Path,
    *,
    body_bytes: int = 65_536,
    calls: int = 256,
    connections: int = 512,
    server: type[ReceiverServer] = Server,
) -> Iterator[Running]:
    """Run a receiver, its server and bounds included, for the specs in ``folder``; gives it."""
    (folder / "chat.yaml").write_text(SPEC)
    keys = Keys(lambda: (SecretStr(SECRET), SecretStr(NEXT_SECRET)))
    services, counts, prefect = Services(folder), Counts(), Recorder()
    desk, limits = Desk(prefect.converse), (body_bytes, calls)
    bounds = Bounds(connections=connections, body_bytes=body_bytes)
    ready: SimpleQueue[str] = SimpleQueue()
    receiver = Receiver(keys, services, desk, counts, prefect=prefect, limits=limits)
    made = server(receiver, "127.0.0.1", 0, bounds, ready.put)
    with running(made) if isinstance(made, PromptServer) else in_a_thread(made):
        port = int(ready.get(timeout=START_S).rpartition(":")[2])
        yield Running(port, folder, prefect, keys, services, counts, bounds, made)


@dataclass
class ReceiverProcess:
    """``slipway receive`` as a process; ``url`` is its webhook."""

    process: subprocess.Popen[str]
    url: str

    def call(self, *told: Any) -> list[httpx.Response]:
        """Make all these calls at once and return the answers."""
        with (
            httpx.Client(headers={"x-webhook-secret": SECRET}, trust_env=False, timeout=60) as client,
            ThreadPoolExecutor(len(told)) as callers,
        ):
            return list(callers.map(lambda one: client.post(self.url, json=one), told))

    def stop(self) -> int:
        """Tell it to end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)


@contextmanager
def receiver_process(environment: dict[str, str], log: Path) -> Iterator[ReceiverProcess]:
    """Run ``slipway receive`` with these variables, and a port and a secret, until the block is left."""
    variables = {**environment, "SLIPWAY_RECEIVER__PORT": "0", "SLIPWAY_RECEIVER__SECRET": SECRET}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "receive", "--json"]
    with (
        log.open("ab") as said,
        subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdout
        try:
            assert select.select([process.stdout], [], [], START_S)[0], "it does not start"
            line = process.stdout.readline()
            assert line, log.read_text()
            yield ReceiverProcess(process, json.loads(line)["webhook"])
        finally:
            process.kill()
