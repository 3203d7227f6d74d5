"""The durable record of one service, changed only by compare-and-swap.

Every write names the version it read, so of two writers one gets ``Conflict`` and stops; that is what keeps a run
that was thought dead from touching traffic.  The record is written before each side effect and after it.
"""

import re
from collections.abc import Callable

from pydantic import ValidationError

from tasks._stores.store import Store
from tasks.errors import IntegrityError
from tasks.records import ServiceRecord

FOLDER = "services"


class Journal:
    """The record of ``service`` in ``store``; ``record`` is what this writer read or wrote last."""

    def __init__(self, store: Store, service: str) -> None:
        self._store = store
        self._key = f"{FOLDER}/{service}/record.json"
        self._service = service
        self._version: str | None = None
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

    def change(self, how: Callable[[ServiceRecord], ServiceRecord]) -> ServiceRecord:
        """Write ``how(record)`` in place of what was read; raises ``Conflict`` when another writer came first."""
        wanted = how(self.record)
        self._version = self._store.put_if(self._key, wanted.to_json(), expect=self._version)
        self.record = wanted
        return wanted


def read_records(store: Store) -> tuple[ServiceRecord, ...]:
    """Return the record of every service in ``store``, by name; raises as ``Journal.reload`` does."""
    found = (re.fullmatch(rf"{FOLDER}/([^/]+)/record\.json", item.key) for item in store.list(FOLDER))
    return tuple(Journal(store, service).record for service in sorted(match[1] for match in found if match))
