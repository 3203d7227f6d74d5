"""The verb that prints a release as Kubernetes objects, for those who apply them in their own way."""

from typing import Annotated

import typer

from flows.cli.app import LOOKING, AsJson, HubUrl, Ref, Service, app, settings_of
from flows.cli.completing import ended_releases
from tasks.errors import BadInput

NAMESPACE = "default"


@app.command(rich_help_panel=LOOKING)
def render(
    service: Service,
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="[RELEASE]",
            help="An earlier one, e.g. chat-r7; default: the next one.",
            autocompletion=ended_releases,
        ),
    ] = None,
    ref: Ref = None,
    hub: HubUrl = None,
    number: Annotated[
        int | None, typer.Option(min=1, help="Number of the next release; default: the record's.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Where it is to run; default: the configured one, or `default`.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Lead the live address to this release.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the Kubernetes objects of a release, for `kubectl apply -f -` or a repository; nothing is applied.

    Without --live they move no traffic. With a full commit as --ref and a --number nothing is asked of anybody.
    """
    from tasks._release.manifests import manifests, proposed, recorded  # noqa: PLC0415

    if release is not None and (ref or hub or number):
        raise BadInput("A recorded release has its commit and number.", remedy="Leave out --ref, --hub and --number.")
    settings = settings_of()
    where = namespace or settings.kubernetes.namespace or NAMESPACE
    if release is not None:
        workload = recorded(settings, service, release, where)
    else:
        workload = proposed(settings, service, ref, hub, number, where)
    typer.echo(manifests(workload, live=live, as_json=as_json), nl=as_json)
