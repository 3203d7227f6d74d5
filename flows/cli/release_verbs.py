"""The verbs that start a flow run and watch it: they only ask, and the run does, whoever watches.

A run of any of them is also started by Prefect's own pages, with the same parameters.  What is wrong as it was
written is said before Prefect is loaded, which takes two seconds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.cli.app import (
    RELEASES,
    Actor,
    AsJson,
    HubUrl,
    ModelName,
    Reason,
    Ref,
    Service,
    Wait,
    app,
    known,
    say,
    settings_of,
)
from flows.cli.completing import earlier_releases
from flows.cli.review_verbs import plan
from tasks._who import person as who
from tasks.errors import SlipwayError
from tasks.records import Request, ServiceRecord
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks._release.machine import Observed

EarlierRelease = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE", help="Name of an earlier release, e.g. chat-r3.", autocompletion=earlier_releases
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]


@app.command(rich_help_panel=RELEASES)
def release(
    service: Service,
    model: ModelName = None,
    ref: Ref = None,
    hub: HubUrl = None,
    reason: Reason = "",
    actor: Actor = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release the commit that the service's ref points to, and watch it to its end.

    Ends with exit code 0 when it is live, 5 when a check or a person refused it, 7 when a newer request took its
    place, and 8 when it could not start or was rolled back. Ctrl-C ends the watching, not the release; where no
    Prefect server is configured the release runs in this program, and Ctrl-C stops it. --dry-run is `slipway plan`.
    """
    from tasks._spec_file import load_spec, with_source  # noqa: PLC0415

    if dry_run:
        plan(service, model, ref, hub, as_json=as_json)
    settings = settings_of()
    spec = with_source(load_spec(settings.services, service), model, ref)
    from flows.cli import watch  # noqa: PLC0415
    from tasks.runs import RELEASE  # noqa: PLC0415

    say(f"{service}: commit {watch.resolved(settings, spec, hub)[:12]}")
    asked = {"model": model, "ref": ref, "hub": hub, "reason": reason, "actor": who(actor)}
    _run(settings, service, RELEASE, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def promote(
    service: Service,
    release: EarlierRelease,
    reason: Reason = "",
    actor: Actor = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give live traffic to an earlier release again, after smoke checks and with the usual watching.

    Only a release that has been live before can be named; `slipway history` lists them.
    """
    from tasks._release.wishes import to_promote  # noqa: PLC0415

    settings, record = known(service)
    wish = to_promote(record, release, run="", actor="", reason="", at=datetime.now(UTC))
    if dry_run:
        _foresee(settings, record, wish, as_json=as_json)
    from tasks.runs import PROMOTE  # noqa: PLC0415

    asked = {"release": release, "reason": reason, "actor": who(actor)}
    _run(settings, service, PROMOTE, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def rollback(
    service: Service,
    to: Annotated[
        str | None,
        typer.Option(help="Name of an earlier release; default: the one before.", autocompletion=earlier_releases),
    ] = None,
    reason: Reason = "",
    actor: Actor = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Undo the release on its way or, when there is none, lead live traffic back to the release before.

    That one is kept running, so it takes seconds. With --to traffic goes to any release that was live before.
    """
    from tasks._release.wishes import to_roll_back  # noqa: PLC0415

    settings, record = known(service)
    wish = None
    if record.current is None or to is not None:
        wish = to_roll_back(record, to, run="", actor="", reason="", at=datetime.now(UTC))
    if dry_run:
        _foresee(settings, record, wish, as_json=as_json)
    from tasks.runs import ROLL_BACK  # noqa: PLC0415

    asked = {"to": to, "reason": reason, "actor": who(actor)}
    _run(settings, service, ROLL_BACK, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def restore(
    service: Service,
    reason: Reason = "",
    actor: Actor = "",
    wait: Wait = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring the last good release up again, in a cluster that may be new and empty, from the store alone."""
    from tasks._release.wishes import to_restore  # noqa: PLC0415

    settings, record = known(service)
    wish = to_restore(record, run="", actor="", reason="", at=datetime.now(UTC))
    if dry_run:
        _foresee(settings, record, wish, as_json=as_json)
    from tasks.runs import RESTORE  # noqa: PLC0415

    asked = {"reason": reason, "actor": who(actor)}
    _run(settings, service, RESTORE, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def refresh(
    service: Service,
    hub: HubUrl = None,
    reason: Reason = "",
    actor: Actor = "",
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Look whether the service's ref moved, and release the new commit if the spec's policy allows."""
    settings, _ = known(service)
    from tasks.runs import REFRESH  # noqa: PLC0415

    asked = {"hub": hub, "reason": reason, "actor": who(actor)}
    _run(settings, service, REFRESH, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def check(service: Service, wait: Wait = True, as_json: AsJson = False) -> None:
    """Ask the live release its golden prompts; one that fails look after look is rolled back."""
    settings, _ = known(service)
    from tasks.runs import CHECK_LIVE  # noqa: PLC0415

    _run(settings, service, CHECK_LIVE, {}, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def drill(service: Service, actor: Actor = "", wait: Wait = True, as_json: AsJson = False) -> None:
    """Rehearse a roll back on live traffic, there and forth again, and tell how long each took."""
    settings, _ = known(service)
    from tasks.runs import DRILL  # noqa: PLC0415

    _run(settings, service, DRILL, {"actor": who(actor)}, wait=wait, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def finish(service: Service, wait: Wait = True, as_json: AsJson = False) -> None:
    """End what a run that died left on its way: forward to its promotion, or back."""
    settings, _ = known(service)
    from tasks.runs import FINISH  # noqa: PLC0415

    _run(settings, service, FINISH, {}, wait=wait, as_json=as_json)


def _foresee(settings: Settings, record: ServiceRecord, wish: Request | None, *, as_json: bool) -> NoReturn:
    """Say what ``wish`` would do, None being to undo what is on its way, and end the program."""
    from tasks._plans.foreseen import foreseen, undoing  # noqa: PLC0415

    found = undoing(record) if wish is None else foreseen(record, wish, _observed(settings, record.service))
    if found is not None:
        typer.echo(found.to_json().decode() if as_json else "\n".join(found.lines()))
    raise typer.Exit(0)


def _observed(settings: Settings, service: str) -> "Observed | None":
    from tasks._release.world import open_world  # noqa: PLC0415

    try:
        with open_world(settings) as world:
            return world.target.observe(service)
    except SlipwayError:
        return None


def _run(
    settings: Settings, service: str, deployment: str, parameters: Mapping[str, Any], *, wait: bool, as_json: bool
) -> None:
    from flows.cli import watch  # noqa: PLC0415

    raise typer.Exit(watch.run(settings, service, deployment, parameters, wait=wait, as_json=as_json))
