"""The verbs about stored weights: ``mirror``, ``verify``, ``gc`` and ``upstream``; they need no Prefect server."""

import json
from typing import Annotated

import typer

from flows.cli.app import WEIGHTS, AsJson, HubUrl, StoreUrl, app, say, settings_of


@app.command(rich_help_panel=WEIGHTS)
def mirror(
    target: Annotated[str, typer.Argument(metavar="ORG/NAME[@REF]", help="Model, and branch, tag or commit.")],
    store: StoreUrl = None,
    hub: HubUrl = None,
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

    settings, licences = settings_of(store, hub), tuple(licence or ())
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
            announce=lambda plan: None if as_json else say(plan.sentence),
        )
    typer.echo(done.to_json().decode() if as_json else done.sentence)


@app.command(rich_help_panel=WEIGHTS)
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
        found = _upkeep.verify_target(settings_of(store), target, deep=deep, progress=moved)
    typer.echo(found.to_json().decode()) if as_json else weights.print_verification(found)
    raise typer.Exit(0 if found.whole else weights.FOUND)


@app.command(rich_help_panel=WEIGHTS)
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

    done = _upkeep.collect_garbage(settings_of(store), delete=delete, grace_days=grace_days)
    typer.echo(done.to_json().decode()) if as_json else weights.print_collection(done)


@app.command(rich_help_panel=WEIGHTS)
def upstream(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Report what became, at their Hubs, of commits in use: vanished, force-pushed, gated, licence changed."""
    from flows.cli import weights  # noqa: PLC0415
    from tasks import _upkeep  # noqa: PLC0415

    found = _upkeep.watch_upstream(settings_of(store))
    typer.echo(json.dumps([one.model_dump(mode="json") for one in found])) if as_json else weights.print_findings(
        found
    )
    raise typer.Exit(weights.FOUND if any(map(_upkeep.is_trouble, found)) else 0)
