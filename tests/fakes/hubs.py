"""A model to publish on the embedded Hub, and faults to switch on in front of it."""

import asyncio
import hashlib
import json
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.publishing import publish
from tasks.local.hub.repositories import large_blob_path
from tests.fakes.hub_server import serving

MODEL = "acme/tiny"
TOKEN = "hf_canary_of_no_worth"


@dataclass
class Faults:
    """What goes wrong, by a part of the request's path; each entry is used up by one request."""

    answers: dict[str, deque[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """Statuses and headers to answer with instead."""

    cuts: dict[str, deque[int]] = field(default_factory=dict)
    """Bytes after which the connection breaks."""

    pause: dict[str, float] = field(default_factory=dict)
    """Seconds before each piece of a body; for every request."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and ``Range`` header of every request so far."""

    def asked(self, part: str) -> list[str]:
        """Return the ranges asked for of paths that hold ``part``; an empty one is the whole."""
        return [span for path, span in self.requests if part in path]

    def around(self, inner: ASGIApp) -> ASGIApp:
        """Return the application with these faults in front of it."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            self.requests.append((scope["path"], headers.get(b"range", b"").decode()))
            for part, queue in self.answers.items():
                if part in scope["path"] and queue:
                    status, extra = queue.popleft()
                    pairs = [(k.encode(), v.encode()) for k, v in {**extra, "content-length": "0"}.items()]
                    await send({"type": "http.response.start", "status": status, "headers": pairs})
                    await send({"type": "http.response.body"})
                    return
            cut = next((q.popleft() for part, q in self.cuts.items() if part in scope["path"] and q), None)
            pause = next((s for part, s in self.pause.items() if part in scope["path"]), 0.0)
            sent = 0

            async def watched(message: Message) -> None:
                nonlocal sent
                if message["type"] == "http.response.body":
                    await asyncio.sleep(pause)
                    sent += len(message.get("body", b""))
                    if cut is not None and sent > cut:
                        raise ConnectionResetError
                await send(message)

            await inner(scope, receive, watched)

        return faulty


@dataclass
class RunningHub:
    """A Hub that answers at ``endpoint``, its repositories under ``root``."""

    endpoint: str
    root: Path
    faults: Faults

    def publish(self, folder: Path, **options: bool | str | None) -> str:
        """Make ``folder`` the head of ``MODEL`` and return the commit."""
        return publish(self.root, MODEL, folder, message="test", **options)  # type: ignore[arg-type]

    def blob(self, file: Path) -> Path:
        """Return where the Hub keeps the bytes of a published large file."""
        return large_blob_path(self.root, hashlib.sha256(file.read_bytes()).hexdigest())


@contextmanager
def running_hub(root: Path) -> Iterator[RunningHub]:
    """Serve ``root`` until the block is left; ``TOKEN`` opens what is gated or private."""
    faults = Faults()
    with serving(root, tokens=AccessTokens({TOKEN: "*"}), middleware=faults.around) as server:
        yield RunningHub(server.endpoint, root, faults)


def write_model(folder: Path, *, seed: int = 0, sizes: tuple[int, ...] = (3_000_000, 70_000)) -> Path:
    """Write a model with shards of ``sizes`` bytes, and things beside it that must not be mirrored."""
    rng = random.Random(seed)  # noqa: S311 - filler
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes, 1):
        (folder / f"model-{number}-of-{len(sizes)}.safetensors").write_bytes(rng.randbytes(size))
    for name in ("config.json", "tokenizer.json", "onnx/config.json"):
        (folder / name).write_text(json.dumps({"name": name, "seed": seed}))
    (folder / "README.md").write_text("A model.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "onnx/model.onnx").write_bytes(b"onnx")
    return folder
