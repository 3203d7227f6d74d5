"""What is done with stored weights beside releases: mirror, verify, collect garbage, look upstream.

The same for a person at the command line and for a schedule.  It needs a store and, for some, a Hub; no Prefect and
no cluster.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import TypeAdapter, ValidationError

from tasks._stores.store import Store, open_store
from tasks._weights.access import open_hub, signer
from tasks._weights.carrying import Progress
from tasks._weights.collect import Collection, collect
from tasks._weights.follow import Followed, follow
from tasks._weights.mirror import survey
from tasks._weights.planning import Plan
from tasks._weights.references import read_references
from tasks._weights.upstream import Finding, FindingKind, pins, watch
from tasks._weights.verify import Verification, verify
from tasks.errors import BadInput
from tasks.settings import Settings
from tasks.spec import Limits, ModelName


def mirror_target(
    settings: Settings,
    target: str,
    *,
    licences: tuple[str, ...] = (),
    repair: bool = False,
    progress: Progress = lambda *_: None,
    announce: Callable[[Plan], None] = lambda _: None,
) -> Followed:
    """Mirror ``ORG/NAME[@REF]``, the branch ``main`` unless given; see ``follow``."""
    model, ref = parse_target(target)
    limits = limits_of(licences)
    with open_hub(settings) as hub, _opened(settings) as store:
        return follow(
            hub,
            store,
            model,
            ref or "main",
            limits,
            repair=repair,
            progress=progress,
            announce=announce,
            sign=signer(settings.signing),
        )


def foresee(settings: Settings, target: str, *, licences: tuple[str, ...] = ()) -> Plan:
    """Return what ``mirror_target`` would move; nothing is written."""
    model, ref = parse_target(target)
    limits = limits_of(licences)
    with open_hub(settings) as hub, _opened(settings) as store:
        return survey(hub, store, model, hub.resolve(model, ref or "main").commit, limits)


def verify_target(
    settings: Settings, target: str, *, deep: bool, progress: Progress = lambda *_: None
) -> Verification:
    """Compare the stored files of ``ORG/NAME@COMMIT`` with their manifest."""
    model, commit = parse_target(target)
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise BadInput(
            f"{target!r} names no commit.", remedy="Write it as ORG/NAME@COMMIT with the commit's 40 hex digits."
        )
    with _opened(settings) as store:
        return verify(store, model, commit, deep=deep, progress=progress)


def collect_garbage(settings: Settings, *, delete: bool, grace_days: float) -> Collection:
    """Decide what nothing refers to and, with ``delete``, mark it, or delete what was marked a grace ago."""
    with _opened(settings) as store:
        return collect(store, delete=delete, grace_s=grace_days * 86400)


def watch_upstream(settings: Settings) -> tuple[Finding, ...]:
    """Return what has become at their Hubs of the commits that are in use."""
    with _opened(settings) as store:
        return watch(lambda endpoint: open_hub(settings, endpoint), store, pins(read_references(store)))


def is_trouble(finding: Finding) -> bool:
    """Say whether a person should look: a newer commit of a ref is no trouble."""
    return finding.kind is not FindingKind.AHEAD


def parse_target(target: str) -> tuple[str, str | None]:
    """Return model and ref of ``ORG/NAME[@REF]``; raises ``BadInput`` for anything else."""
    model, at, ref = target.partition("@")
    try:
        return TypeAdapter(ModelName).validate_python(model if ref or not at else ""), ref or None
    except ValidationError as error:
        raise BadInput(f"{target!r} names no model.", remedy="Write it as ORG/NAME or ORG/NAME@REF.") from error


def limits_of(licences: tuple[str, ...]) -> Limits:
    """Return the limits of a mirror without a spec; raises ``BadInput`` for what no Hub calls a licence."""
    try:
        return Limits(licences=licences)
    except ValidationError as error:
        raise BadInput(
            f"No licence is called {', '.join(licences)}.", remedy="Write it as the Hub does, e.g. apache-2.0."
        ) from error


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store = open_store(settings.store)
    try:
        yield store
    finally:
        store.close()
