"""What ``status`` and ``history`` show: read as plain data first, so that ``--json`` and the tables agree."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.errors import SlipwayError
from tasks.local.stack import health, read_stack
from tasks.records import Progress, Release
from tasks.settings import Settings
from tasks.spec import load_spec, service_names


def read_status(settings: Settings) -> dict[str, Any]:
    """Return the stack's health and the state of every service that has a spec."""
    stack = None if settings.store.url else read_stack(settings.home)
    if stack is not None:
        settings = Settings(**stack.settings())
    parts = {name: part.model_dump(mode="json") for name, part in health(stack).items()} if stack else {}
    names = service_names(settings.services) if settings.store.url else ()
    return {"stack": parts if stack else None, "services": {name: _service(settings, name) for name in names}}


def read_history(settings: Settings, service: str) -> list[dict[str, Any]]:
    """Return the ended releases of a service, newest first; raises ``NotFound`` for one that nobody described."""
    from tasks._journal import Journal  # noqa: PLC0415
    from tasks._stores.store import open_store  # noqa: PLC0415

    past = Journal(open_store(settings.store), service).record.past
    if not past:
        load_spec(settings.services, service)
    return [_ended(progress) for progress in reversed(past)]


def print_status(shown: dict[str, Any]) -> None:
    """Print what ``read_status`` returned."""
    console = Console(soft_wrap=True, highlight=False)
    if shown["stack"] is None:
        console.print("no embedded stack is up; `slipway up` starts one")
    else:
        _print_stack(console, shown["stack"])
    for name, service in shown["services"].items():
        if "error" in service:
            console.print(f"{name}: {service['error']}")
            continue
        console.print(
            f"{name}: live {_named(service['live'])}, kept warm {_named(service['previous'])}, "
            f"on its way {_named(service['current'])}"
        )
        if service["live"] and service["serving"] != service["live"]["name"]:
            console.print(f"{name}: {service['live']['name']} does not run; `slipway release {name}` brings it back")


def print_history(past: list[dict[str, Any]]) -> None:
    """Print what ``read_history`` returned."""
    table = Table("release", "commit", "outcome", "seconds", "reason")
    for one in past:
        table.add_row(one["name"], one["commit"][:12], one["outcome"], f"{one['seconds']:.0f}", one["reason"])
    Console().print(table if past else "no release has ended yet")


def _print_stack(console: Console, parts: dict[str, Any]) -> None:
    table = Table("part", "state", "where", "pid")
    for name, part in parts.items():
        state = "healthy" if part["answers"] else "does not answer" if part["alive"] else "down"
        table.add_row(name, state, part.get("endpoint") or "", str(part.get("pid") or ""))
    console.print(table)


def _service(settings: Settings, name: str) -> dict[str, Any]:
    from tasks._journal import Journal  # noqa: PLC0415
    from tasks._stores.store import open_store  # noqa: PLC0415

    try:
        record = Journal(open_store(settings.store), name).record
    except SlipwayError as error:
        return {"error": str(error)}
    current = record.current.release if record.current else None
    return {"serving": _serving(settings, name)} | {
        "live": _release(record.live),
        "previous": _release(record.previous),
        "current": _release(current),
    }


def _serving(settings: Settings, name: str) -> str | None:
    """Return which release the target shows at the live address; ``None`` for none, or a target that is away."""
    from tasks._world import open_world  # noqa: PLC0415

    try:
        with open_world(settings) as world:
            return world.target.observe(name).live
    except SlipwayError:
        return None


def _release(release: Release | None) -> dict[str, str] | None:
    return {"name": release.name, "model": release.model, "commit": release.commit} if release else None


def _ended(progress: Progress) -> dict[str, Any]:
    closed = progress.closed_at or progress.opened_at
    return {
        "name": progress.release.name,
        "commit": progress.release.commit,
        "outcome": progress.outcome.value if progress.outcome else None,
        "reason": progress.failure.reason if progress.failure else progress.reason,
        "seconds": (closed - progress.opened_at).total_seconds(),
        "steps": progress.seconds(),
    }


def _named(release: dict[str, str] | None) -> str:
    return f"{release['name']} ({release['commit'][:12]})" if release else "none"
