"""Registers the deployments of ``prefect.yaml`` and the automations beside it on the embedded Prefect server.

Through Prefect's own command, because this process must not load Prefect (a second of imports); and only where
the file, a flow or a value that a flow takes has changed since, by the stamp beside the server's database.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tasks.errors import MachineError
from tasks.local import processes
from tasks.local.components import Surroundings
from tasks.local.state import ROOT
from tasks.settings import inherited_environment

_DEADLINE_S = 180.0
_COMMANDS = (("prefect", "--no-prompt", "deploy", "--all"), ("tasks.automations",))


def register(here: Surroundings, progress: Callable[[str], None]) -> None:
    """Register all deployments; raises ``MachineError`` that quotes Prefect where it refuses."""
    if not (ROOT / "prefect.yaml").is_file():
        return
    stamp, wanted = here.home / "prefect" / "deployed", _digest(ROOT)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    progress("Registering the deployments.")
    log = here.home / "logs" / "deploy.log"
    marks = {processes.STACK_MARK: here.state.mark, processes.COMPONENT_MARK: "deploy"}
    seen = {**inherited_environment(), **here.stack.environment(), "PYTHONPATH": str(ROOT), **marks}
    with log.open("wb") as output:
        for command in _COMMANDS:
            _run([sys.executable, "-m", *command], seen, output, log, here)
    stamp.write_text(wanted)


def _run(command: list[str], seen: dict[str, str], output: BinaryIO, log: Path, here: Surroundings) -> None:
    """Run a command of Prefect's; raises ``MachineError`` with the last it said."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=seen,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(
            f"Prefect has not registered the deployments in {_DEADLINE_S:.0f} s.",
            remedy=f"The whole log is {log}.",
        ) from error
    if done.returncode:
        said = processes.last_line(log, here.keys.texts())
        raise MachineError(f"Prefect refuses prefect.yaml: {said}", remedy=f"Mend it; the whole log is {log}.")


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    files = (root / "prefect.yaml", root / "automations.yaml")
    for path in [*files, *sorted(root.glob("flows/**/*.py")), *sorted(root.glob("tasks/*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
