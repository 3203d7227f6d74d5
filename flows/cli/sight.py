"""What there is to see of releases, as plain data: ``--json`` prints it, tables and live views are made of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks._release.machine import PLANS
from tasks._spec_file import load_spec, service_names
from tasks.errors import SlipwayError, Unreachable
from tasks.local.stack import health, read_stack
from tasks.records import Kind, Progress, Release, Request, ServiceRecord, StepState
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks._clients.tally import Tally
    from tasks._release.target import Target
    from tasks._stores.store import Store

Look = Callable[[], dict[str, Any]]
_OF_A_CHECK = {"name", "verdict", "summary"}


@contextmanager
def sight(settings: Settings, service: str | None = None) -> Iterator[Look]:
    """Yield what looks at the stack's health and at every service that has a spec, or at ``service`` alone.

    It may look again and again, over the same connections.  Raises ``NotFound``, with the nearest name, for a service
    that nobody described and of which nothing is recorded; a store that is away is in what is seen instead.
    """
    stack = None if settings.store.url else read_stack(settings.home)
    if stack is not None:
        settings = Settings(**stack.settings())
    names = (service,) if service else service_names(settings.services) if settings.store.url else ()
    with ExitStack() as connections:
        services = _services(settings, names, connections) if settings.store.url else _undescribed(settings, names)

        def look() -> dict[str, Any]:
            parts = {name: part.model_dump(mode="json") for name, part in health(stack).items()} if stack else None
            return {"stack": parts, "services": services()}

        yield look


def read_history(record: ServiceRecord) -> list[dict[str, Any]]:
    """Return the ended releases of a service, newest first."""
    return [_ended(progress) for progress in reversed(record.past)]


def _undescribed(settings: Settings, names: tuple[str, ...]) -> Look:
    """Return the look at services without a store: a name that nobody described is told before that."""
    for name in names:
        load_spec(settings.services, name)
    return dict


def _services(settings: Settings, names: tuple[str, ...], connections: ExitStack) -> Look:
    """Return what looks at the services called ``names``; what it opens is let go of with ``connections``."""
    if not names:
        return dict
    from tasks._clients.tally import Tally  # noqa: PLC0415
    from tasks._stores.store import open_store  # noqa: PLC0415

    try:
        store = open_store(settings.store)
    except SlipwayError as error:
        fault = str(error)
        return lambda: {name: {"error": fault} for name in names}
    connections.callback(store.close)
    _refuse_unknown(settings, store, names)
    target = _target(settings, connections)
    tallies = {name: Tally(settings.home / "receipts") for name in names}

    def look() -> dict[str, Any]:
        seen: dict[str, Any] = {}
        away = ""
        for name in names:
            try:
                seen[name] = {"error": away} if away else _service(settings, store, target, name, tallies[name])
            except Unreachable as error:  # of one store, so of all of them; each would take its time to find out
                away = str(error)
                seen[name] = {"error": away}
            except SlipwayError as error:
                seen[name] = {"error": str(error)}
        return seen

    return look


def _refuse_unknown(settings: Settings, store: "Store", names: tuple[str, ...]) -> None:
    """Raise ``NotFound`` for a name that nobody described and of which nothing is recorded."""
    from tasks._release.journal import Journal  # noqa: PLC0415

    for name in set(names) - set(service_names(settings.services)):
        try:
            record = Journal(store, name).record
        except SlipwayError:  # told with the service
            continue
        if record == ServiceRecord(service=name):
            load_spec(settings.services, name)


def _target(settings: Settings, connections: ExitStack) -> "Target | str":
    """Return the target, or why there is none."""
    from tasks._release.world import open_world  # noqa: PLC0415

    try:
        return connections.enter_context(open_world(settings)).target
    except SlipwayError as error:
        return str(error.args[0])


def _service(settings: Settings, store: "Store", target: "Target | str", name: str, tally: "Tally") -> dict[str, Any]:
    from tasks._release.journal import Journal  # noqa: PLC0415
    from tasks._release.lease import is_free, read_lease  # noqa: PLC0415

    record, lease = Journal(store, name).record, read_lease(store, name)
    if record == ServiceRecord(service=name):
        load_spec(settings.services, name)
    held = lease is not None and not is_free(lease, datetime.now(UTC))
    return {
        **_serving(target, name),
        "live": _release(record.live),
        "previous": _release(record.previous),
        "current": _current(record.current, tally) if record.current else None,
        "waiting": _waiting(record.waiting) if record.waiting else None,
        "carrier": lease.run if lease is not None and held else None,
        "last": _ended(record.past[-1]) if record.past else None,
    }


def _serving(target: "Target | str", name: str) -> dict[str, str | None]:
    """Return which release the target shows at the live address, or why it does not tell."""
    if isinstance(target, str):
        return {"serving": None, "away": target}
    try:
        return {"serving": target.observe(name).live, "away": None}
    except SlipwayError as error:
        return {"serving": None, "away": str(error.args[0])}


def _release(release: Release | None) -> dict[str, str] | None:
    return {"name": release.name, "model": release.model, "commit": release.commit} if release else None


def _current(progress: Progress, tally: "Tally") -> dict[str, Any]:
    begun = [step for step in progress.steps if step.state is StepState.STARTED] or progress.steps
    question = progress.question.model_dump(mode="json") if progress.question else None
    counted = tally.look(progress)
    return {
        **(_release(progress.release) or {}),
        "kind": progress.kind.value,
        "step": begun[-1].name.value if begun else "its beginning",
        "actor": progress.actor,
        "reason": progress.reason,
        "opened_at": progress.opened_at.isoformat(),
        "steps": [step.model_dump(mode="json") for step in progress.steps],
        "to_come": [] if progress.failure else _to_come(progress),
        "checks": [check.model_dump(mode="json", include=_OF_A_CHECK) for check in progress.checks],
        "clients": {**counted.model_dump(mode="json"), "shares": counted.shares} if counted else None,
        "failure": progress.failure.reason if progress.failure else None,
        "question": question,
    }


def _to_come(progress: Progress) -> list[str]:
    return [step.value for step in PLANS[progress.kind] if progress.step(step) is None]


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
        "answers": [approval.model_dump(mode="json") for approval in progress.approvals],
        "closed_at": closed.isoformat(),
        "seconds": (closed - progress.opened_at).total_seconds(),
        "steps": progress.seconds(),
    }
