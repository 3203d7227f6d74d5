"""Flow runs one after the other in a process of their own, as a worker's would be, each in another environment.

    python -m tests.faults.leaks.runs SCENARIOS

``SCENARIOS`` is a file of JSON: a list of variables that differ, the flow and its parameters.  What each run says of
its end is printed, with every cause of its error.
"""

import importlib
import json
import logging
import os
import sys
import traceback
from pathlib import Path

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.cli import main as main_command
from tasks import _retry
from tasks._release import engine


def main() -> None:
    """Run each and say how it ended."""
    logging.getLogger("tasks").setLevel(logging.DEBUG)
    _retry.ATTEMPTS, engine.PATIENCE, engine.PAUSE = 2, 1.0, 0.2
    for scenario in json.loads(Path(sys.argv[1]).read_text()):
        before = dict(os.environ)
        os.environ.update(scenario["variables"])
        if "flow" in scenario:
            run(**{name: value for name, value in scenario.items() if name != "variables"})
        else:
            command(scenario["command"])
        sys.stdout.flush()
        os.environ.clear()
        os.environ.update(before)


def run(name: str, flow: str, parameters: dict[str, str]) -> None:
    """Run a flow; say its state and every cause of its error."""
    made = getattr(importlib.import_module(f"flows.{flow}"), flow)
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = made(**parameters, return_state=True)
    sys.stdout.write(f"{name}: {state.name} {state!r} {state.message}\n")
    try:
        state.result()
    except Exception as error:  # noqa: BLE001 - every cause of any error is to be looked at
        sys.stdout.write("".join(traceback.format_exception(error)) + repr(error) + "\n")


def command(arguments: list[str]) -> None:
    """Type a command line."""
    sys.argv = ["slipway", *arguments]
    try:
        main_command()
    except SystemExit as ended:
        sys.stdout.write(f"{arguments}: {ended.code}\n")


if __name__ == "__main__":
    main()
