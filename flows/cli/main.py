"""The manners of ``slipway``: one clear sentence and a documented exit code for every error.

The verbs are in the modules whose names end in ``_verbs``; the help groups them by their panels.  Heavy libraries are
imported inside the verbs that need them, so that help and status answer at once.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 not found, 4 no access, 5 refused, 6 damaged bytes, 7 somebody else
came first, 8 the candidate failed, 9 this machine cannot, 75 may pass by itself, 130 interrupted.
"""

import json
import signal
import sys
import traceback

import typer

from flows.cli import (
    manifest_verbs,
    receive_verb,
    release_verbs,
    review_verbs,
    setup_verbs,
    spec_verbs,
    stack_verbs,
    weight_verbs,
)
from flows.cli.app import INTERRUPTED, app, say
from tasks.errors import BadInput, MachineError, SlipwayError, TransientError
from tasks.settings import silence_telemetry

__all__ = [
    "main",
    "manifest_verbs",
    "receive_verb",
    "release_verbs",
    "review_verbs",
    "setup_verbs",
    "spec_verbs",
    "stack_verbs",
    "weight_verbs",
]


def main() -> None:
    """Run the command line and exit with its code; SIGTERM unwinds as Ctrl-C does, so that all is cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    silence_telemetry()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="slipway", standalone_mode=False) or 0
        if code == INTERRUPTED:
            say("interrupted")
        sys.exit(code)
    except typer.TyperException as error:
        _fail(
            BadInput(f"{error.format_message().rstrip('.')}.", remedy="See `slipway --help`."), arguments, debug=debug
        )
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except SlipwayError as error:
        _fail(error, arguments, debug=debug)
    except OSError as error:
        what = f"{error.strerror or type(error).__name__}: {error.filename or 'no file named'}"
        _fail(MachineError(f"This machine refuses it ({what}).", remedy="Mend that."), arguments, debug=debug)
    except Exception as error:
        if debug:
            raise
        say(f"error: {type(error).__name__}: {error}")
        say("This is a fault of Slipway's; run it again with --debug for the traceback.")
        sys.exit(1)


def _fail(error: SlipwayError, arguments: list[str], *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    if "--json" in arguments:
        fault = {"kind": type(error).__name__, "message": error.args[0], "remedy": error.remedy}
        typer.echo(json.dumps({"error": fault | {"transient": isinstance(error, TransientError)}}))
    else:
        say(f"error: {error}")
    sys.exit(error.exit_code)
