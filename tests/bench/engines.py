"""Real engines for the benchmark of the checks: the payload's own engine and application, without Ray around them.

``running`` starts one and ends it with its block.  The process is this module again, in the payload's environment:
so what answers is ``serve.engine`` with the arguments of a release, the release's headers and the list of paths, as
in a replica.  The listening socket is made here and handed down: the first question waits in it until the engine
answers, and is refused at once where the engine dies.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = ROOT / "serve/.venv/bin/python"
START_DEADLINE_S = 300.0
END_DEADLINE_S = 20.0
TAIL = 2000
"""Characters of an engine's log that its error shows."""


class NotStarted(Exception):
    """An engine died before it answered, or did not answer in time; the text is the end of its log."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers at the base URL ``endpoint``."""

    endpoint: str
    pid: int


@contextmanager
def running(folder: Path, arguments: Mapping[str, Any], log: Path) -> Iterator[Engine]:
    """Serve the model in ``folder`` as the release of ``arguments``; raises ``NotStarted``.

    ``arguments`` are those of ``serve.arguments.Arguments`` but for the weights, which are in ``folder`` already.
    """
    weights = f"file://{folder.parent}/{arguments['commit']}"
    told = json.dumps({**arguments, "weights": weights})
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "LANG": "C.UTF-8"}
    with socket.create_server(("127.0.0.1", 0)) as listening, log.open("ab") as said:
        number, port = listening.fileno(), listening.getsockname()[1]
        process = subprocess.Popen(
            [PAYLOAD, "-m", "tests.bench.engines", str(number), str(folder), told],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(number,),
            start_new_session=True,
        )
    engine = Engine(f"http://127.0.0.1:{port}", process.pid)
    try:
        _await(engine, log)
        yield engine
    finally:
        _end(process)


def _await(engine: Engine, log: Path) -> None:
    try:
        with urllib.request.urlopen(f"{engine.endpoint}/health", timeout=START_DEADLINE_S):  # noqa: S310 - loopback
            pass
    except (OSError, urllib.error.URLError) as error:
        raise NotStarted(f"{type(error).__name__}: {log.read_text(errors='replace')[-TAIL:]}") from error


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the engine, politely, and then what it left behind: its core is a process that outlives it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_DEADLINE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    """Serve, in the payload's environment: ``FILE_DESCRIPTOR FOLDER ARGUMENTS``."""
    number, folder, told = sys.argv[1:]
    asyncio.run(_serve(int(number), Path(folder), json.loads(told)))


async def _serve(number: int, folder: Path, raw: dict[str, Any]) -> None:
    import uvicorn  # noqa: PLC0415 - this and what follows is in the payload's environment alone

    from serve.arguments import read_arguments  # noqa: PLC0415
    from serve.engine import Server, load  # noqa: PLC0415

    arguments = read_arguments(raw)
    load(arguments)
    server = Server(arguments, folder)
    try:
        # Whole without its lifespan: what the application starts there logs figures that nobody reads here.
        config = uvicorn.Config(await server.app(), fd=number, lifespan="off", log_level="warning")
        await uvicorn.Server(config).serve()
    finally:
        server.shutdown()


if __name__ == "__main__":
    main()
