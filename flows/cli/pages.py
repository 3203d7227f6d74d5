"""Finds the stored page of a release, also of one that is too old for the record."""

import difflib
from collections.abc import Iterator

from tasks._release import ledger
from tasks._release.journal import evidence_key
from tasks._stores.store import Store
from tasks.errors import NotFound
from tasks.records import Progress, ServiceRecord

PAGE = "report.html"


def read_page(store: Store, record: ServiceRecord, release: str | None) -> tuple[str, bytes]:
    """Return the name and the page of ``release``, or of what ended last; of several times, the latest.

    Raises ``NotFound`` for a release that never was, naming the nearest, and for one without a page.
    """
    found = next((one for one in _newest_first(store, record) if release in (None, one.release.name)), None)
    if found is None:
        raise NotFound(_unknown(record, release), remedy=_remedy(store, record, release))
    page = store.get(evidence_key(found, PAGE))
    if page is None:
        raise NotFound(
            f"No page of {found.release.name} is stored.",
            remedy=f"`slipway history {record.service}` tells how it ended.",
        )
    return found.release.name, page[0]


def _newest_first(store: Store, record: ServiceRecord) -> Iterator[Progress]:
    yield from reversed(record.past)
    older = [entry.release for entry in ledger.entries(store, record.service)]
    yield from reversed(older)


def _unknown(record: ServiceRecord, release: str | None) -> str:
    return (
        f"{record.service} has no ended release {release!r}."
        if release
        else f"No release of {record.service} has ended yet."
    )


def _remedy(store: Store, record: ServiceRecord, release: str | None) -> str:
    known = {one.release.name for one in _newest_first(store, record)}
    near = difflib.get_close_matches(release or "", known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"`slipway history {record.service}` lists them."
