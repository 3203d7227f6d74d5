"""What somebody may ask for, as the request that the engine takes: pure functions of the record.

A person names a release; here it is found, or refused with what there is.  Nothing is touched yet.
"""

from datetime import datetime

from tasks.errors import NotFound, Refused
from tasks.records import Commit, Kind, Outcome, Release, Request, ServiceRecord
from tasks.spec import ServiceSpec

ASIDE = {"notify", "schedules"}
"""Sections of a spec that say how a service is run and nothing of what a release is: they are read anew each time."""


def wanted(spec: ServiceSpec, commit: Commit, hub: str, *, number: int = 1) -> Release:
    """Return the release of ``commit``, from the Hub at ``hub``, as ``spec`` describes it."""
    return Release(
        service=spec.service,
        number=number,
        model=spec.model,
        commit=commit,
        hub=hub,
        spec=spec.model_dump(mode="json", exclude_defaults=True, exclude=ASIDE),
    )


def to_release(release: Release, *, run: str, actor: str, reason: str, at: datetime) -> Request:
    """Return the wish for a new release; its number is given when it begins."""
    return Request(id=run, release=release, actor=actor, reason=reason, at=at)


def to_promote(record: ServiceRecord, name: str, *, run: str, actor: str, reason: str, at: datetime) -> Request:
    """Return the wish that the earlier release called ``name`` takes traffic; raises ``NotFound``."""
    release = earlier_releases(record).get(name)
    if release is None:
        known = ", ".join(earlier_releases(record)) or "none"
        raise NotFound(f"{record.service} has had no live release {name!r}.", remedy=f"There is: {known}.")
    return Request(id=run, kind=Kind.PROMOTE, release=release, actor=actor, reason=reason, at=at)


def to_roll_back(
    record: ServiceRecord, name: str | None, *, run: str, actor: str, reason: str, at: datetime
) -> Request:
    """Return the wish that traffic goes back to ``name``, None being the release before the live one.

    What was itself rolled back from is never chosen: rolling back twice goes further back.  Raises ``NotFound`` when
    there is none.
    """
    if name is not None:
        wish = to_promote(record, name, run=run, actor=actor, reason=reason, at=at)
        return wish.model_copy(update={"kind": Kind.ROLL_BACK})
    bad = left_behind(record)
    choice = [record.previous, *reversed(earlier_releases(record).values())]
    release = next((one for one in choice if one and one != record.live and one.name not in bad), None)
    if release is None:
        raise NotFound(
            f"{record.service} has no release to go back to.",
            remedy="Release another commit, or name a release with --to.",
        )
    return Request(id=run, kind=Kind.ROLL_BACK, release=release, actor=actor, reason=reason, at=at)


def to_restore(record: ServiceRecord, *, run: str, actor: str, reason: str, at: datetime) -> Request:
    """Return the wish that the live release runs again, in a target that may be empty; raises ``NotFound``."""
    release = record.live or next(reversed(earlier_releases(record).values()), None)
    if release is None:
        raise NotFound(f"{record.service} never had a release.", remedy="Release a commit first.")
    return Request(id=run, kind=Kind.RESTORE, release=release, actor=actor, reason=reason, at=at)


def refuse_again(record: ServiceRecord, release: Release) -> None:
    """Raise ``Refused`` when the newest release of the same commit and spec was refused: it would be again."""
    for past in reversed(record.past):
        if past.release.model_copy(update={"number": release.number}) == release:
            if past.outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
                why = past.failure.reason if past.failure else "no reason was recorded"
                raise Refused(
                    f"Commit {release.commit[:12]} was {past.outcome.value.replace('_', ' ')} before: {why}",
                    remedy=f"`slipway release {record.service}` tries it again.",
                )
            return


def earlier_releases(record: ServiceRecord) -> dict[str, Release]:
    """Return the releases that have had live traffic, by name, the oldest first."""
    promoted = [past.release for past in record.past if past.outcome is Outcome.PROMOTED]
    named = (*promoted, *(one for one in (record.previous, record.live) if one))
    return {release.name: release for release in sorted(named, key=lambda release: release.number)}


def left_behind(record: ServiceRecord) -> frozenset[str]:
    """Return the releases that somebody rolled back from and that have not come back since, as after a drill."""
    bad: set[str] = set()
    live: str | None = None
    for past in record.past:
        if past.outcome is not Outcome.PROMOTED:
            continue
        if past.kind is Kind.ROLL_BACK and live is not None and past.release.name not in bad:
            bad.add(live)
        live = past.release.name
        bad.discard(live)
    return frozenset(bad)
