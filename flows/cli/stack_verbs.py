"""The verbs about the stack of this machine, and those that need no store: ``up``, ``down``, ``demo``, ``schema``."""

import json
from typing import Annotated, Literal

import typer

from flows.cli.app import LOOKING, MACHINE, AsJson, app, say
from tasks.local.state import Stack, demonstration_mark
from tasks.settings import read_settings


@app.command(rich_help_panel=MACHINE)
def up(as_json: AsJson = False) -> None:
    """Start the embedded stack on this machine, or repair what of it is not healthy."""
    from tasks.local.stack import up as bring_up  # noqa: PLC0415

    home = read_settings().home
    demonstration_mark(home).unlink(missing_ok=True)
    stack = bring_up(home, progress=say)
    if as_json:
        typer.echo(json.dumps(_addresses(stack)))
        return
    for name, address in _addresses(stack).items():
        typer.echo(f"{name:15} {address}")


@app.command(rich_help_panel=MACHINE)
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete weights, records and logs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the embedded stack; what it stores stays unless --wipe is given."""
    from tasks.local.stack import down as take_down  # noqa: PLC0415

    ended = take_down(read_settings().home, wipe=wipe, progress=say)
    typer.echo(
        json.dumps({"ended": ended}) if as_json else f"{ended} processes ended" if ended else "nothing was running"
    )


@app.command(rich_help_panel=MACHINE)
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards.")] = False,
) -> None:
    """Watch one service go through three releases: a first, a better, and a bad one that is refused."""
    from flows.cli.demo import show_demo  # noqa: PLC0415

    show_demo(read_settings().home, keep=keep)


@app.command(rich_help_panel=LOOKING)
def schema(
    of: Annotated[
        Literal["spec", "manifest"], typer.Argument(help="A service spec, or the manifest of a stored commit.")
    ] = "spec",
) -> None:
    """Print a JSON Schema, for editors and other programs."""
    from tasks.records import Manifest, Value  # noqa: PLC0415
    from tasks.spec import ServiceSpec  # noqa: PLC0415

    described: dict[str, type[Value]] = {"spec": ServiceSpec, "manifest": Manifest}
    typer.echo(json.dumps(described[of].model_json_schema(), indent=2))


def _addresses(stack: Stack) -> dict[str, str]:
    return {
        "Prefect UI": stack.prefect,
        "Ray dashboard": stack.ray,
        "Hub": stack.hub,
        "S3": stack.s3,
        "live": stack.serve,
    }
