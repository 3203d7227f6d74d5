"""The verbs that look at releases and answer for them: what would happen, what happens, what happened, and why.

They read the store and, but for ``plan`` and ``status``, nothing else; no Prefect server is needed.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import (
    LOOKING,
    RELEASES,
    Actor,
    AsJson,
    HubUrl,
    ModelName,
    Ref,
    Service,
    app,
    opened,
    say,
    settings_of,
)
from flows.cli.completing import ended_releases, services
from tasks._who import person as who
from tasks.errors import Refused
from tasks.settings import read_settings

Why = Annotated[str, typer.Option("--reason", help="Why; kept in the record and shown in the report.")]


@app.command(rich_help_panel=RELEASES)
def approve(service: Service, reason: Why, actor: Actor = "", as_json: AsJson = False) -> None:
    """Answer yes to what a release asks a person; it then goes on."""
    _answer(service, granted=True, actor=actor, reason=reason, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def reject(service: Service, reason: Why, actor: Actor = "", as_json: AsJson = False) -> None:
    """Answer no to what a release asks a person; it is then refused, and what is live stays so."""
    _answer(service, granted=False, actor=actor, reason=reason, as_json=as_json)


@app.command(rich_help_panel=LOOKING)
def plan(
    service: Service, model: ModelName = None, ref: Ref = None, hub: HubUrl = None, as_json: AsJson = False
) -> None:
    """Say what a release would do, before anything moves: what differs, whether it fits, what is checked.

    Ends with exit code 0 when it can be done, and 5 when it would be refused, with each reason.
    """
    from tasks._plans.plan import plan as foresee  # noqa: PLC0415
    from tasks._release.world import open_world  # noqa: PLC0415
    from tasks._spec_file import load_spec  # noqa: PLC0415

    settings = settings_of()
    load_spec(settings.services, service)  # a name that nobody described is told before a store that is missing
    with open_world(settings) as world:
        found = foresee(world, settings, service, model, ref, hub)
    typer.echo(found.to_json().decode() if as_json else "\n".join(found.lines()))
    raise typer.Exit(0 if found.possible else Refused.exit_code)


@app.command(rich_help_panel=LOOKING)
def status(
    service: Annotated[
        str | None,
        typer.Argument(help="Only this one; default: all that are described.", autocompletion=services),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the stack's health, and each service: live, kept warm, on its way, and what that waits for.

    With --watch a release in progress is shown as it goes: its steps, verdicts, and what clients see of it.
    """
    from flows.cli.sight import sight  # noqa: PLC0415

    with sight(read_settings(), service) as look:
        if watch:
            from flows.cli import live  # noqa: PLC0415

            live.watch(look, as_json=as_json)
            return
        shown = look()
    from flows.cli.screens import print_status  # noqa: PLC0415

    typer.echo(json.dumps(shown)) if as_json else print_status(shown)


@app.command(rich_help_panel=LOOKING)
def explain(service: Service, as_json: AsJson = False) -> None:
    """Say why a service's release is where it is, what it waits for, and what would unblock it."""
    from tasks._release.explain import explain as explained  # noqa: PLC0415
    from tasks._release.lease import read_lease  # noqa: PLC0415

    with opened(settings_of(), service) as (store, record):
        found = explained(record, read_lease(store, service), datetime.now(UTC))
    typer.echo(found.to_json().decode() if as_json else "\n".join(found.lines()))


@app.command(rich_help_panel=LOOKING)
def why(
    service: Service,
    when: Annotated[
        str,
        typer.Argument(
            metavar="TIME|REQUEST-ID",
            help="UTC time (2026-01-31T10:32:05Z, 10:32, '5m ago'), or the id in an answer's x-slipway-request.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say which release and which commit answered at a moment, or answered one request."""
    from tasks._release.why import why as served  # noqa: PLC0415

    with opened(settings_of(), service) as (store, record):
        found = served(store, record, when)
    typer.echo(found.to_json().decode() if as_json else "\n".join(found.lines()))


@app.command(rich_help_panel=LOOKING)
def history(
    service: Service,
    verify: Annotated[
        bool, typer.Option("--verify", help="Instead, prove that nobody changed the ledger since.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the ended releases of a service, newest first: what was asked for, by whom, how it ended, and why.

    With --verify every entry of the ledger is compared with the hash that its successor holds: exit code 6 when one
    was changed.
    """
    from flows.cli.screens import print_history  # noqa: PLC0415
    from flows.cli.sight import read_history  # noqa: PLC0415
    from tasks._release import ledger  # noqa: PLC0415

    with opened(settings_of(), service) as (store, record):
        if not verify:
            past = read_history(record)
            typer.echo(json.dumps(past)) if as_json else print_history(past)
            return
        entries = ledger.verify(store, record)
    typer.echo(json.dumps({"entries": entries, "unbroken": True}) if as_json else f"{entries} entries, unbroken")


@app.command(rich_help_panel=LOOKING)
def report(
    service: Service,
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="[RELEASE]", help="E.g. chat-r7; default: what ended last.", autocompletion=ended_releases
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: RELEASE.html in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page of a release to a file: its timeline, verdicts, failing answers, receipt and timings.

    The page needs no other file and no network; any browser shows it.
    """
    from flows.cli.pages import read_page  # noqa: PLC0415

    with opened(settings_of(), service) as (store, record):
        name, page = read_page(store, record, release)
    path = output or Path(f"{name}.html")
    path.write_bytes(page)
    typer.echo(json.dumps({"release": name, "report": str(path.absolute())}) if as_json else str(path))


def _answer(service: str, *, granted: bool, actor: str, reason: str, as_json: bool) -> None:
    from flows.cli.answering import answer  # noqa: PLC0415
    from tasks._release.news import answer_line  # noqa: PLC0415

    progress, approval, carried = answer(settings_of(), service, granted=granted, who=who(actor), why=reason)
    if as_json:
        said = {"release": progress.release.name, **approval.model_dump(mode="json"), "carried": carried}
        typer.echo(json.dumps(said))
    else:
        typer.echo(answer_line(progress, approval))
    if not carried:
        say(f"{service}: no run carries it now; `slipway finish {service}` does")
