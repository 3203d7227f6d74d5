"""What all verbs of ``slipway`` share: the application they register with, their options, and where they look.

Imported at every start, so nothing here may load a heavy library.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.completing import services
from tasks.settings import Settings, read_settings

if TYPE_CHECKING:
    from tasks._stores.store import Store
    from tasks.records import ServiceRecord

app = typer.Typer(
    name="slipway",
    help="Carries a large language model from a Hugging Face commit to live traffic, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 wrong input, 3 not found, 4 no access, 5 refused, 6 damaged bytes, "
        "7 somebody else came first, 8 the candidate failed, 9 this machine cannot, 75 may pass by itself, "
        "130 interrupted. With --debug, at any place, an error shows its traceback."
    ),
)

RELEASES, LOOKING, WEIGHTS, MACHINE = "Releases", "Looking at releases", "Stored weights", "The stack of this machine"
"""The groups of verbs in the help."""
INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, by the shell's convention."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Service = Annotated[str, typer.Argument(help="Name of the service, e.g. chat.", autocompletion=services)]
StoreUrl = Annotated[
    str | None, typer.Option(help="s3://bucket/prefix or file:///folder; default: the configured one.")
]
HubUrl = Annotated[str | None, typer.Option(help="Base URL of the Hub; default: the configured one.")]
ModelName = Annotated[str | None, typer.Option(help="org/name; default: the spec's.")]
Ref = Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the spec's.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the record.")]
Actor = Annotated[str, typer.Option(help="Who asks; kept in the record. Default: your user name.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the run to its end, or only start it.")]


def say(text: str) -> None:
    """Tell a person something that is no part of the result."""
    typer.echo(text, err=True)


def settings_of(store: str | None = None, hub: str | None = None) -> Settings:
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


@contextmanager
def opened(settings: Settings, service: str) -> "Iterator[tuple[Store, ServiceRecord]]":
    """Yield the store and the record of ``service``.

    Raises ``NotFound``, with the nearest name, for a service of which nothing is recorded and that nobody described.
    """
    from tasks._release.journal import Journal  # noqa: PLC0415
    from tasks._spec_file import load_spec  # noqa: PLC0415
    from tasks._stores.store import open_store  # noqa: PLC0415
    from tasks.records import ServiceRecord  # noqa: PLC0415

    with closing(open_store(settings.store)) as store:
        record = Journal(store, service).record
        if record == ServiceRecord(service=service):
            load_spec(settings.services, service)
        yield store, record


def known(service: str) -> "tuple[Settings, ServiceRecord]":
    """Return the settings and the record of ``service``; raises as ``opened`` does."""
    settings = settings_of()
    with opened(settings, service) as (_, record):
        return settings, record
