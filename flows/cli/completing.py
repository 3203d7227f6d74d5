"""What a shell completes: names of services and releases, read fast and without a word where they cannot be."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from tasks.errors import SlipwayError

if TYPE_CHECKING:
    from tasks.records import ServiceRecord


def services(incomplete: str) -> list[str]:
    """Return the services that are described and whose names begin so."""
    from flows.cli.app import settings_of  # noqa: PLC0415
    from tasks._spec_file import service_names  # noqa: PLC0415

    return _that_begin(incomplete, lambda: service_names(settings_of().services))


def earlier_releases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the releases of the service named before that have had live traffic."""

    def names() -> Iterable[str]:
        from tasks._release.wishes import earlier_releases as had_traffic  # noqa: PLC0415

        return (name for record in _records(ctx.params) for name in had_traffic(record))

    return _that_begin(incomplete, names)


def ended_releases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the releases of the service named before that have ended, however they did."""
    return _that_begin(
        incomplete, lambda: dict.fromkeys(one.release.name for record in _records(ctx.params) for one in record.past)
    )


def _records(given: dict[str, Any]) -> "Iterator[ServiceRecord]":
    """Yield the record of the service named before; all of them while an option's value is not there yet."""
    from flows.cli.app import known  # noqa: PLC0415

    named = given.get("service")
    for service in [named] if named else services(""):
        yield known(service)[1]


def _that_begin(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    """Return the names that begin so; none where they cannot be read: a shell must not show errors at a tab."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except (SlipwayError, OSError):
        return []
