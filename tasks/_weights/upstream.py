"""What has become, at their Hubs, of the commits that are in use here.

A published commit needs its Hub no more, so nothing here fails or stops a release: these are things that a person
should know before the store is the only place that has the commit, or before its terms are others.  What could not
be asked is said to be unknown, and is no finding.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum

from tasks._stores.store import Store
from tasks._weights.hub import Hub, RepositoryFacts
from tasks._weights.manifests import read_manifest
from tasks._weights.references import Reference
from tasks.errors import NotFound, SlipwayError
from tasks.records import Commit, Manifest, Value


class FindingKind(StrEnum):
    """What was found of a commit; ``ahead`` is news, not trouble, and ``unknown`` is that nothing was found out."""

    VANISHED = "vanished"
    MOVED = "moved"
    FORCE_PUSHED = "force-pushed"
    GATED = "gated"
    LICENCE_CHANGED = "licence changed"
    AHEAD = "ahead"
    UNKNOWN = "unknown"


class Pin(Value):
    """A commit in use that ``ref`` of the Hub at ``hub`` led to; ``used`` says by what."""

    model: str
    commit: Commit
    ref: str
    hub: str
    used: tuple[str, ...]


class Finding(Value):
    """One thing to know of a commit in use; ``what`` is a sentence."""

    kind: FindingKind
    pin: Pin
    what: str


@dataclass(frozen=True)
class Seen:
    """What a Hub said of the commit and of its ref, None where there is none, and if the one led to the other."""

    commit: RepositoryFacts | None
    ref: RepositoryFacts | None
    is_ancestor: bool = True


def pins(wanted: Iterable[Reference]) -> tuple[Pin, ...]:
    """Return each commit in use once by hub and ref, with all that use it."""
    used: dict[tuple[str, str, str, str], list[str]] = {}
    for one in wanted:
        used.setdefault((one.hub, one.model, one.ref, one.commit), []).append(one.why)
    return tuple(
        Pin(model=model, commit=commit, ref=ref, hub=hub, used=tuple(used[hub, model, ref, commit]))
        for hub, model, ref, commit in sorted(used)
    )


def watch(
    open_hub: Callable[[str], AbstractContextManager[Hub]], store: Store, watched: Iterable[Pin]
) -> tuple[Finding, ...]:
    """Return what is to be known of each pin; trouble in finding out is a finding of kind ``unknown``."""
    return tuple(
        Finding(kind=kind, pin=pin, what=what) for pin in watched for kind, what in _look(open_hub, store, pin)
    )


def judge(pin: Pin, manifest: Manifest | None, seen: Seen) -> Iterator[tuple[FindingKind, str]]:
    """Yield what is to be known of a commit that was mirrored with ``manifest``."""
    now = seen.ref or seen.commit
    if now is None:
        yield FindingKind.VANISHED, f"{pin.model} is gone from {pin.hub}, or was made private."
        return
    if now.model.lower() != pin.model.lower():
        yield FindingKind.MOVED, f"{pin.model} is called {now.model} now."
    if seen.commit is None:
        yield FindingKind.VANISHED, f"{pin.model} has the commit {pin.commit[:12]} no more."
    elif seen.ref is None:
        yield FindingKind.VANISHED, f"{pin.model} has no {pin.ref} any more, from which {pin.commit[:12]} came."
    elif seen.ref.commit != pin.commit:
        yield _of_history(pin, seen.ref.commit, is_ancestor=seen.is_ancestor)
    if manifest is not None and manifest.version > 1:  # version 1 recorded neither
        yield from _of_terms(pin, manifest, now)


def _of_history(pin: Pin, head: str, *, is_ancestor: bool) -> tuple[FindingKind, str]:
    if is_ancestor:
        return FindingKind.AHEAD, f"{pin.ref} of {pin.model} has gone on to {head[:12]}."
    return (
        FindingKind.FORCE_PUSHED,
        f"{pin.ref} of {pin.model} was rewritten: it is at {head[:12]}, which {pin.commit[:12]} does not lead to.",
    )


def _of_terms(pin: Pin, manifest: Manifest, now: RepositoryFacts) -> Iterator[tuple[FindingKind, str]]:
    if now.gated and not manifest.gated:
        yield FindingKind.GATED, f"{pin.model} was open when it was mirrored and is gated now."
    if now.license != manifest.license:
        then, since = manifest.license or "none", now.license or "none"
        yield FindingKind.LICENCE_CHANGED, f"The licence of {pin.model} was {then} and is {since} now."


def _look(
    open_hub: Callable[[str], AbstractContextManager[Hub]], store: Store, pin: Pin
) -> tuple[tuple[FindingKind, str], ...]:
    try:
        manifest = read_manifest(store, pin.model, pin.commit)
        with open_hub(pin.hub) as hub:
            return tuple(judge(pin, manifest, _see(hub, pin)))
    except SlipwayError as error:
        return ((FindingKind.UNKNOWN, str(error)),)


def _see(hub: Hub, pin: Pin) -> Seen:
    at_commit = _facts(hub, pin.model, pin.commit)
    if re.fullmatch(r"[0-9a-f]{40}", pin.ref):
        return Seen(commit=at_commit, ref=at_commit)
    at_ref = _facts(hub, pin.model, pin.ref)
    if at_commit is None or at_ref is None or at_ref.commit == pin.commit:
        return Seen(commit=at_commit, ref=at_ref)
    return Seen(commit=at_commit, ref=at_ref, is_ancestor=hub.has_ancestor(pin.model, pin.ref, pin.commit))


def _facts(hub: Hub, model: str, ref: str) -> RepositoryFacts | None:
    try:
        return hub.facts(model, ref)
    except NotFound:
        return None
