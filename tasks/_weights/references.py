"""What refers to a commit: the releases that may take traffic, and the pointers of refs.

Only what may take traffic without a new decision counts: of each service the live release, the one kept warm for a
roll back, the one on its way, and what moving that one back would restore.  Ended releases of the past do not: a
person who releases one of them anew has it mirrored anew.
"""

from collections.abc import Iterable, Iterator

from tasks._release.journal import read_records
from tasks._stores.store import Store
from tasks._weights.channels import Channel, read_channels
from tasks.records import Commit, Release, ServiceRecord, Value
from tasks.spec import ServiceSpec


class Reference(Value):
    """One reason to keep a commit; ``ref`` of the Hub at ``hub`` led to it, ``why`` is for a person to read."""

    model: str
    commit: Commit
    ref: str
    hub: str
    why: str


def references(records: Iterable[ServiceRecord], channels: Iterable[Channel]) -> tuple[Reference, ...]:
    """Return every reference of these records and pointers."""
    by_releases = (_of_release(release, why) for record in records for release, why in _kept(record))
    by_refs = (
        Reference(
            model=channel.model,
            commit=channel.commit,
            ref=channel.ref,
            hub=channel.source,
            why=f"the ref {channel.ref} points to it",
        )
        for channel in channels
    )
    return (*by_releases, *by_refs)


def read_references(store: Store, model: str | None = None) -> tuple[Reference, ...]:
    """Return every reference in ``store``, or those to commits of ``model``.

    Raises ``IntegrityError`` for a record or pointer that cannot be read: what it refers to is not known then.
    """
    found = references(read_records(store), read_channels(store, model))
    return tuple(one for one in found if model in (None, one.model))


def _kept(record: ServiceRecord) -> Iterator[tuple[Release, str]]:
    current = record.current
    named = (
        (record.live, "live in"),
        (record.previous, "previous in"),
        (current.release if current else None, "on its way in"),
        (current.kept_warm if current else None, "what a release on its way would move back to in"),
    )
    return ((release, f"{what} {record.service}") for release, what in named if release is not None)


def _of_release(release: Release, why: str) -> Reference:
    ref = release.spec.get("ref", ServiceSpec.model_fields["ref"].default)
    return Reference(model=release.model, commit=release.commit, ref=str(ref), hub=release.hub, why=why)
