"""The verbs of ``slipway`` and their manners: one clear sentence and a documented exit code for every error.

Heavy libraries are imported inside the verbs that need them, so that help and status answer at once.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 not found, 4 no access, 5 refused, 6 damaged bytes, 7 somebody else
came first, 8 the candidate failed, 9 this machine cannot, 75 may pass by itself, 130 interrupted.
"""

import json
import signal
import sys
import traceback
from enum import StrEnum
from typing import Annotated

import typer

from tasks.errors import BadInput, MachineError, SlipwayError, TransientError
from tasks.local.state import Stack, demonstration_mark
from tasks.settings import Settings, read_settings, silence_telemetry

app = typer.Typer(
    name="slipway",
    help="Carries a large language model from a Hugging Face commit to live traffic, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, by the shell's convention."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Service = Annotated[str, typer.Argument(help="Name of the service, e.g. chat.")]
StoreUrl = Annotated[
    str | None, typer.Option(help="s3://bucket/prefix or file:///folder; default: the configured one.")
]


class SchemaOf(StrEnum):
    """What ``slipway schema`` can describe."""

    SPEC = "spec"
    MANIFEST = "manifest"


def main() -> None:
    """Run the command line and exit with its code; SIGTERM unwinds as Ctrl-C does, so that all is cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    silence_telemetry()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="slipway", standalone_mode=False) or 0
        if code == INTERRUPTED:
            _say("interrupted")
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
        _say(f"error: {type(error).__name__}: {error}")
        _say("This is a fault of Slipway's; run it again with --debug for the traceback.")
        sys.exit(1)


def _fail(error: SlipwayError, arguments: list[str], *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    if "--json" in arguments:
        fault = {"kind": type(error).__name__, "message": error.args[0], "remedy": error.remedy}
        typer.echo(json.dumps({"error": fault | {"transient": isinstance(error, TransientError)}}))
    else:
        _say(f"error: {error}")
    sys.exit(error.exit_code)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _settings(store: str | None = None, hub: str | None = None) -> Settings:
    """Return the settings of the environment or, where it names no store, those of the embedded stack.

    ``store`` and ``hub`` are the URLs that were given instead; a store's keys stay those of the settings.
    """
    settings = read_settings()
    known = settings.store
    if not (known.url or (store and (known.endpoint or known.access_key or not store.startswith("s3:")))):
        from tasks.local.stack import read_stack  # noqa: PLC0415

        stack = read_stack(settings.home)
        settings = settings if stack is None else Settings(**stack.settings())
    settings = settings.from_hub(hub) if hub else settings
    return settings.at_store(store) if store else settings


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the embedded stack on this machine, or repair what of it is not healthy."""
    from tasks.local.stack import up as bring_up  # noqa: PLC0415

    home = read_settings().home
    demonstration_mark(home).unlink(missing_ok=True)
    stack = bring_up(home, progress=_say)
    if as_json:
        typer.echo(json.dumps(_addresses(stack)))
        return
    for name, address in _addresses(stack).items():
        typer.echo(f"{name:15} {address}")


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete weights, records and logs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the embedded stack; what it stores stays unless --wipe is given."""
    from tasks.local.stack import down as take_down  # noqa: PLC0415

    ended = take_down(read_settings().home, wipe=wipe, progress=_say)
    typer.echo(
        json.dumps({"ended": ended}) if as_json else f"{ended} processes ended" if ended else "nothing was running"
    )


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards.")] = False,
) -> None:
    """Watch one service go through three releases: a first, a better, and a bad one that is refused."""
    from flows.cli.demo import show_demo  # noqa: PLC0415

    show_demo(read_settings().home, keep=keep)


@app.command()
def release(
    service: Service,
    model: Annotated[str | None, typer.Option(help="org/name; default: the spec's.")] = None,
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the spec's.")] = None,
    hub: Annotated[str | None, typer.Option(help="Base URL of the Hub; default: the configured one.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Release the commit that the service's ref points to, and watch it to its end."""
    from tasks.spec import load_spec, with_source  # noqa: PLC0415

    settings = _settings()
    spec = with_source(load_spec(settings.services, service), model, ref)
    from flows.cli.watch import run_release  # noqa: PLC0415 - two seconds that a wrong spec does not pay

    end = run_release(settings, spec, model=model, ref=ref, hub=hub, reason=reason, say=_say)
    typer.echo(end.to_json().decode() if as_json else end.message)
    raise typer.Exit(end.exit_code)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the embedded stack's health, and each service: live, kept warm, on its way."""
    from flows.cli.screens import print_status, read_status  # noqa: PLC0415

    shown = read_status(read_settings())
    typer.echo(json.dumps(shown)) if as_json else print_status(shown)


@app.command()
def history(service: Service, as_json: AsJson = False) -> None:
    """List the ended releases of a service, newest first, each with its reason."""
    from flows.cli.screens import print_history, read_history  # noqa: PLC0415

    past = read_history(_settings(), service)
    typer.echo(json.dumps(past)) if as_json else print_history(past)


@app.command()
def mirror(
    target: Annotated[str, typer.Argument(metavar="ORG/NAME[@REF]", help="Model, and branch, tag or commit.")],
    store: StoreUrl = None,
    hub: Annotated[str | None, typer.Option(help="Base URL of the Hub; default: the configured one.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Refuse any other licence; may be repeated.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Look at what is stored, and fetch damage again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring one verified copy of a commit into the store; one that was begun is gone on with.

    A ref's pointer keeps its commit from `gc`; one that is named by its id is kept only while a release uses it.
    """
    from flows.cli import weights  # noqa: PLC0415
    from tasks import _upkeep  # noqa: PLC0415

    settings, licences = _settings(store, hub), tuple(licence or ())
    if dry_run:
        weights.print_plan(_upkeep.foresee(settings, target, licences=licences), as_json=as_json)
        return
    with weights.shown_bytes(target, quiet=as_json) as moved:
        done = _upkeep.mirror_target(
            settings,
            target,
            licences=licences,
            repair=repair,
            progress=moved,
            announce=lambda plan: None if as_json else _say(plan.sentence),
        )
    typer.echo(done.to_json().decode() if as_json else done.sentence)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="ORG/NAME@COMMIT", help="Model and 40-hex commit.")],
    store: StoreUrl = None,
    deep: Annotated[
        bool, typer.Option("--deep/--quick", help="Read and hash every byte, or ask the store for its checksums.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a stored commit with its manifest: exit code 0 when it is whole, 1 with each damaged file named."""
    from flows.cli import weights  # noqa: PLC0415
    from tasks import _upkeep  # noqa: PLC0415

    with weights.shown_bytes(target, quiet=as_json or not deep) as moved:
        found = _upkeep.verify_target(_settings(store), target, deep=deep, progress=moved)
    typer.echo(found.to_json().decode()) if as_json else weights.print_verification(found)
    raise typer.Exit(0 if found.whole else weights.FOUND)


@app.command()
def gc(
    store: StoreUrl = None,
    delete: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Mark garbage, and delete what was marked a grace ago.")
    ] = False,
    grace_days: Annotated[float, typer.Option(min=0, help="Days between mark and deletion.")] = 7.0,
    as_json: AsJson = False,
) -> None:
    """Find stored commits that no release and no ref refers to; delete those that have been so for long."""
    from flows.cli import weights  # noqa: PLC0415
    from tasks import _upkeep  # noqa: PLC0415

    done = _upkeep.collect_garbage(_settings(store), delete=delete, grace_days=grace_days)
    typer.echo(done.to_json().decode()) if as_json else weights.print_collection(done)


@app.command()
def upstream(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Report what became, at their Hubs, of commits in use: vanished, force-pushed, gated, licence changed."""
    from flows.cli import weights  # noqa: PLC0415
    from tasks import _upkeep  # noqa: PLC0415

    found = _upkeep.watch_upstream(_settings(store))
    typer.echo(json.dumps([one.model_dump(mode="json") for one in found])) if as_json else weights.print_findings(
        found
    )
    raise typer.Exit(weights.FOUND if any(map(_upkeep.is_trouble, found)) else 0)


@app.command()
def schema(
    of: Annotated[
        SchemaOf, typer.Argument(help="A service spec, or the manifest of a stored commit.")
    ] = SchemaOf.SPEC,
) -> None:
    """Print a JSON Schema, for editors and other programs."""
    from tasks.records import Manifest, Value  # noqa: PLC0415
    from tasks.spec import ServiceSpec  # noqa: PLC0415

    described: dict[SchemaOf, type[Value]] = {SchemaOf.SPEC: ServiceSpec, SchemaOf.MANIFEST: Manifest}
    typer.echo(json.dumps(described[of].model_json_schema(), indent=2))


def _addresses(stack: Stack) -> dict[str, str]:
    return {
        "Prefect UI": stack.prefect,
        "Ray dashboard": stack.ray,
        "Hub": stack.hub,
        "S3": stack.s3,
        "live": stack.serve,
    }
