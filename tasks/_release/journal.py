"""The durable record of one service, changed only by compare-and-swap, and the evidence beside it.

Anybody may ask for something or answer a question; only the run that holds the lease carries a release.  So a
change is a function of the record: when another writer came first, it is applied anew to what that one wrote, unless
that one bears a higher number of the lease: then this writer was taken for dead, and stops.
"""

import re
from collections.abc import Callable

from pydantic import ValidationError

from tasks._stores.store import Store
from tasks.errors import Conflict, IntegrityError
from tasks.records import Progress, ServiceRecord

FOLDER = "services"
ATTEMPTS = 50
"""Writes that may come first, one after the other, before a change is given up."""


class Journal:
    """The record of ``service`` in ``store``; ``record`` is what this writer read or wrote last."""

    def __init__(self, store: Store, service: str) -> None:
        self._store = store
        self._key = f"{FOLDER}/{service}/record.json"
        self._service = service
        self._version: str | None = None
        self._fence = 0
        self.record = ServiceRecord(service=service)
        self.reload()

    def reload(self) -> ServiceRecord:
        """Read the record again; a service without one has a fresh one.

        Raises ``IntegrityError`` for a record that cannot be read, rather than starting over from nothing.
        """
        stored = self._store.get(self._key)
        if stored is None:
            self._version, self.record = None, ServiceRecord(service=self._service)
            return self.record
        data, self._version = stored
        try:
            self.record = ServiceRecord.from_json(data)
        except ValidationError as error:
            raise IntegrityError(
                f"The record {self._key} of {self._service} cannot be read ({error.error_count()} faults).",
                remedy="Restore it from the bucket's versions, or use the Slipway version that wrote it.",
            ) from error
        return self.record

    def fence(self, number: int) -> None:
        """Write from now on under the lease of that ``number``, which shuts every earlier holder out."""
        self._fence = number
        self.change(lambda record: record)

    def change(self, how: Callable[[ServiceRecord], ServiceRecord]) -> ServiceRecord:
        """Write ``how(record)``, of the newest record; raises ``Conflict`` when the lease was lost."""
        for _ in range(ATTEMPTS):
            self._refuse_the_fenced_off()
            wanted = how(self.record).model_copy(update={"version": 2})
            if self._fence:
                wanted = wanted.model_copy(update={"fence": self._fence})
            if wanted == self.record and self._version is not None:
                return wanted
            try:
                self._version = self._store.put_if(self._key, wanted.to_json(), expect=self._version)
            except Conflict:
                if self.reload() == wanted:  # ours, and its answer was lost
                    return wanted
                continue
            self.record = wanted
            return wanted
        raise Conflict(f"The record of {self._service} changes faster than it can be written.", remedy="Try again.")

    def _refuse_the_fenced_off(self) -> None:
        if self._fence and self.record.fence > self._fence:
            raise Conflict(
                f"Another run has taken {self._service} over, so this one stops.",
                remedy="`slipway status` shows what goes on.",
            )


def evidence_key(progress: Progress, name: str) -> str:
    """Return where a piece of evidence about a release lies in the store, e.g. ``receipt.json``.

    A release that took traffic several times has a folder for each time.
    """
    return f"{FOLDER}/{progress.release.service}/evidence/{evidence_name(progress)}/{name}"


def evidence_name(progress: Progress) -> str:
    """Return what tells this release at this time from every other, in the store and on a machine."""
    return f"{progress.release.name}-{progress.opened_at:%Y%m%dT%H%M%S%fZ}"


def read_records(store: Store) -> tuple[ServiceRecord, ...]:
    """Return the record of every service in ``store``, by name; raises as ``Journal.reload`` does."""
    found = (re.fullmatch(rf"{FOLDER}/([^/]+)/record\.json", item.key) for item in store.list(FOLDER))
    return tuple(Journal(store, service).record for service in sorted(match[1] for match in found if match))
