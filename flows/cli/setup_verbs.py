"""The verbs about setting Slipway up: ``bootstrap`` makes what Prefect needs, ``doctor`` says what is wrong."""

import json
from typing import Annotated

import typer

from flows.cli.app import MACHINE, AsJson, app, settings_of

FOUND = 1
"""The exit code of ``doctor`` when something is wrong."""


@app.command(rich_help_panel=MACHINE)
def bootstrap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the work pool, deployments and automations on the Prefect server, or set right what differs.

    May be run at any time: what is right already is left alone, and what a person paused stays paused. Each service
    whose spec has schedules gets deployments of its own.
    """
    from tasks import deploying  # noqa: PLC0415

    settings = settings_of()
    done = deploying.compare(settings) if dry_run else deploying.bootstrap(settings)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "changes": [one.model_dump(mode="json") for one in done]}))
        return
    for one in done:
        what = f"{one.what.value}{': ' if one.fields else ''}{', '.join(one.fields)}"
        typer.echo(f"{one.sort.value:12} {one.name:32} {what}{' (paused)' if one.paused else ''}")
    differing = sum(one.what is not deploying.What.SAME for one in done)
    if not differing:
        typer.echo("nothing changed")
    else:
        typer.echo(f"{differing} {'would change' if dry_run else 'changed'}")


@app.command(rich_help_panel=MACHINE)
def doctor(as_json: AsJson = False) -> None:
    """Look for what commonly is wrong, and say how to mend it: exit code 0 when nothing is, 1 otherwise.

    Looks at settings, specs, Prefect, worker, store, Hub, target, clocks and this machine, all at once, and ends
    within 15 seconds also when everything is away. Nothing is changed.
    """
    from tasks.doctoring import examine  # noqa: PLC0415

    found = examine(settings_of())
    if as_json:
        typer.echo(json.dumps({"findings": [one.model_dump() for one in found]}))
    else:
        for one in found:
            typer.echo(f"{one.about}: {one.what}\n  {one.remedy}")
        if not found:
            typer.echo("nothing is wrong")
    raise typer.Exit(FOUND if found else 0)
