"""Bootstraps the embedded Prefect server: what ``slipway bootstrap`` does on any other.

In a process of its own, because this one must not load Prefect (a second of imports); and only where a file that says
what there should be, a flow, a value that it takes or a spec has changed since, by the stamp beside the database.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tasks.errors import MachineError
from tasks.local import processes
from tasks.local.components import Surroundings
from tasks.local.state import ROOT
from tasks.settings import inherited_environment

_DEADLINE_S = 180.0


def register(here: Surroundings, progress: Callable[[str], None]) -> None:
    """Make all deployments; raises ``MachineError`` that quotes what refuses them."""
    stamp, wanted = here.home / "prefect" / "deployed", _digest(here.stack.settings()["services"])
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    progress("Making the deployments.")
    log = here.home / "logs" / "deploy.log"
    marks = {processes.STACK_MARK: here.state.mark, processes.COMPONENT_MARK: "deploy"}
    seen = {**inherited_environment(), **here.stack.environment(), "PYTHONPATH": str(ROOT), **marks}
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tasks.deploying"],
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
                f"Prefect has not made the deployments in {_DEADLINE_S:.0f} s.", remedy=f"The whole log is {log}."
            ) from error
    if done.returncode:
        said = processes.last_line(log, here.keys.texts())
        raise MachineError(f"The deployments cannot be made: {said}", remedy=f"Mend that; the whole log is {log}.")
    stamp.write_text(wanted)


def _digest(services: Path) -> str:
    digest = hashlib.sha256()
    told = [ROOT / "prefect.yaml", ROOT / "automations.yaml", *sorted(services.glob("*.yaml"))]
    for pattern in ("flows/*.py", "tasks/*.py", "tasks/_deploying/*.py"):
        told += sorted(ROOT.glob(pattern))
    for path in told:
        digest.update(path.read_bytes())
    return digest.hexdigest()
