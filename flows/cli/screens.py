"""What ``status`` and ``history`` show: read as plain data first, so that ``--json`` and the tables agree."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks._release.news import question_lines
from tasks._spec_file import service_names
from tasks.errors import SlipwayError
from tasks.local.stack import health, read_stack
from tasks.records import Kind, Progress, Question, Release, Request, ServiceRecord, StepState
from tasks.settings import Settings


def read_status(settings: Settings) -> dict[str, Any]:
    """Return the stack's health and the state of every service that has a spec."""
    stack = None if settings.store.url else read_stack(settings.home)
    if stack is not None:
        settings = Settings(**stack.settings())
    parts = {name: part.model_dump(mode="json") for name, part in health(stack).items()} if stack else {}
    names = service_names(settings.services) if settings.store.url else ()
    return {"stack": parts if stack else None, "services": {name: _service(settings, name) for name in names}}


def read_history(record: ServiceRecord) -> list[dict[str, Any]]:
    """Return the ended releases of a service, newest first."""
    return [_ended(progress) for progress in reversed(record.past)]


def print_status(shown: dict[str, Any]) -> None:
    """Print what ``read_status`` returned."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if shown["stack"] is None:
        console.print("no embedded stack is up; `slipway up` starts one")
    else:
        _print_stack(console, shown["stack"])
    for name, service in shown["services"].items():
        for line in [f"{name}: {service['error']}"] if "error" in service else _service_lines(name, service):
            console.print(line)


def print_history(past: list[dict[str, Any]]) -> None:
    """Print what ``read_history`` returned."""
    table = Table("release", "what", "commit", "outcome", "seconds", "who", "reason")
    for one in past:
        what, outcome = _plain(one["kind"]), _plain(one["outcome"] or "")
        table.add_row(
            one["name"], what, one["commit"][:12], outcome, f"{one['seconds']:.0f}", one["actor"], one["reason"]
        )
    Console(markup=False).print(table if past else "no release has ended yet")


def _print_stack(console: Console, parts: dict[str, Any]) -> None:
    table = Table("part", "state", "where", "pid")
    for name, part in parts.items():
        state = "healthy" if part["answers"] else "does not answer" if part["alive"] else "down"
        table.add_row(name, state, part.get("endpoint") or "", str(part.get("pid") or ""))
    console.print(table)


def _service_lines(name: str, service: dict[str, Any]) -> list[str]:
    current, waiting, carrier = service["current"], service["waiting"], service["carrier"]
    lines = [
        f"{name}: live {_named(service['live'])}, kept warm {_named(service['previous'])}, "
        f"on its way {_named(current)}"
    ]
    if service["live"] and service["serving"] != service["live"]["name"]:
        lines.append(f"{name}: {service['live']['name']} does not run; `slipway restore {name}` brings it back")
    if current:
        who = f"the run {carrier} carries it" if carrier else f"no run carries it now; `slipway finish {name}` does"
        failure = f"; it is undone, because {current['failure']}" if current["failure"] else ""
        lines.append(
            f"{name}: {current['name']}, a {_plain(current['kind'])}, is at {current['step']}; {who}{failure}"
        )
    elif carrier:
        lines.append(f"{name}: the run {carrier} is at work")
    if current and current["question"]:
        lines += question_lines(current["name"], name, Question.model_validate(current["question"]))
    if waiting:
        why = f": {waiting['reason']}" if waiting["reason"] else ""
        asked = f"{_plain(waiting['kind'])} of {_named(waiting)}"
        lines.append(f"{name}: waits to begin: {asked}, asked for by {waiting['actor'] or 'nobody named'}{why}")
    return lines


def _service(settings: Settings, name: str) -> dict[str, Any]:
    from tasks._release.journal import Journal  # noqa: PLC0415
    from tasks._release.lease import is_free, read_lease  # noqa: PLC0415
    from tasks._stores.store import open_store  # noqa: PLC0415

    try:
        with closing(open_store(settings.store)) as store:
            record, lease = Journal(store, name).record, read_lease(store, name)
    except SlipwayError as error:
        return {"error": str(error)}
    held = lease is not None and not is_free(lease, datetime.now(UTC))
    return {
        "serving": _serving(settings, name),
        "live": _release(record.live),
        "previous": _release(record.previous),
        "current": _current(record.current) if record.current else None,
        "waiting": _waiting(record.waiting) if record.waiting else None,
        "carrier": lease.run if lease is not None and held else None,
    }


def _serving(settings: Settings, name: str) -> str | None:
    """Return which release the target shows at the live address; ``None`` for none, or a target that is away."""
    from tasks._release.world import open_world  # noqa: PLC0415

    try:
        with open_world(settings) as world:
            return world.target.observe(name).live
    except SlipwayError:
        return None


def _release(release: Release | None) -> dict[str, str] | None:
    return {"name": release.name, "model": release.model, "commit": release.commit} if release else None


def _current(progress: Progress) -> dict[str, Any]:
    begun = [step for step in progress.steps if step.state is StepState.STARTED] or progress.steps
    question = progress.question.model_dump(mode="json") if progress.question else None
    return {
        **(_release(progress.release) or {}),
        "kind": progress.kind.value,
        "step": begun[-1].name.value if begun else "its beginning",
        "actor": progress.actor,
        "reason": progress.reason,
        "failure": progress.failure.reason if progress.failure else None,
        "question": question,
    }


def _waiting(request: Request) -> dict[str, Any]:
    named = None if request.kind is Kind.RELEASE else request.release.name  # a new one has no number yet
    asked = {"kind": request.kind.value, "actor": request.actor, "reason": request.reason}
    return {**(_release(request.release) or {}), "name": named, **asked}


def _ended(progress: Progress) -> dict[str, Any]:
    closed = progress.closed_at or progress.opened_at
    return {
        "name": progress.release.name,
        "kind": progress.kind.value,
        "commit": progress.release.commit,
        "outcome": progress.outcome.value if progress.outcome else None,
        "actor": progress.actor,
        "asked": progress.reason,
        "reason": progress.failure.reason if progress.failure else progress.reason,
        "seconds": (closed - progress.opened_at).total_seconds(),
        "steps": progress.seconds(),
    }


def _plain(word: str) -> str:
    return word.replace("_", " ")


def _named(release: dict[str, Any] | None) -> str:
    if release is None:
        return "none"
    commit = release["commit"][:12]
    return f"{release['name']} ({commit})" if release["name"] else f"commit {commit}"
