"""The lease on a service: one writer at a time, and a number that fences off the one before.

The lease is one object beside the record, written by compare-and-swap.  Whoever takes it over raises ``fence``, and
writes that number into the record before anything else: from then on the earlier writer can neither renew the lease
nor write the record.  What cannot carry a number, a change at the target, is preceded by ``renew``: a writer that
was stopped and woke finds there that it has lost the lease, before it touches traffic.

A lease is free when its holder let go of it, has died on this machine, or has not renewed it for ``LIFETIME_S``.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock

from pydantic import ValidationError

from tasks._processes import is_dead, this_process
from tasks._renewal import renewing
from tasks._stores.store import Store
from tasks.errors import Conflict, SlipwayError
from tasks.records import Value

LIFETIME_S = 30.0
RENEW_S = 8.0
"""Seconds between two renewals; three may be missed."""

log = logging.getLogger(__name__)


class Lease(Value):
    """The lease as it is stored; ``process`` says where the run that holds it runs."""

    version: int = 1
    service: str
    fence: int
    run: str
    process: str
    renewed_at: datetime
    held: bool


class HeldLease:
    """A lease that this process holds; for several threads."""

    def __init__(self, store: Store, lease: Lease, version: str) -> None:
        self._store, self._lease, self._version = store, lease, version
        self._lock = Lock()

    @property
    def fence(self) -> int:
        """Return the number that tells this holder from every one before."""
        return self._lease.fence

    def renew(self) -> None:
        """Prove to everybody, and to ourselves, that we hold it; raises ``Conflict`` when it was lost."""
        self._write(held=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease while the block runs, and let go of it at the end."""
        try:
            with renewing(self.renew, RENEW_S, f"lease on {self._lease.service}"):
                yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._write(held=False)
        except Conflict:
            log.debug("The lease on %s had another holder already.", self._lease.service)
        except SlipwayError as error:
            log.warning("The lease on %s could not be let go of: %s", self._lease.service, error)

    def _write(self, *, held: bool) -> None:
        with self._lock:
            lease = self._lease.model_copy(update={"held": held, "renewed_at": datetime.now(UTC)})
            try:
                self._version = self._put(lease, self._version)
            except Conflict:
                found = _read(self._store, lease.service)
                if found is None or found[0] is None or found[0].fence != lease.fence:
                    raise
                self._version = self._put(lease, found[1])  # ours: it was written, and its answer lost

    def _put(self, lease: Lease, expect: str) -> str:
        try:
            return self._store.put_if(_key(lease.service), lease.to_json(), expect=expect)
        except Conflict as error:
            raise Conflict(
                f"Another run has taken {lease.service} over, so this one stops.",
                remedy="`slipway status` shows what goes on.",
            ) from error


def take_lease(store: Store, service: str, run: str, *, above: int) -> HeldLease | Lease:
    """Take the lease on ``service`` for ``run``, or return the one that another process holds.

    ``above`` is the number in the record: a lease that was lost or cannot be read is nobody's, and must not begin
    to count anew.
    """
    found = _read(store, service)
    lease, version = found or (None, None)
    if lease is not None and not is_free(lease, datetime.now(UTC)):
        return lease
    mine = Lease(
        service=service,
        fence=max(above, lease.fence if lease else 0) + 1,
        run=run,
        process=this_process(),
        renewed_at=datetime.now(UTC),
        held=True,
    )
    try:
        return HeldLease(store, mine, store.put_if(_key(service), mine.to_json(), expect=version))
    except Conflict:
        return take_lease(store, service, run, above=above)


def read_lease(store: Store, service: str) -> Lease | None:
    """Return the lease on ``service``, whoever holds it; None when nobody ever did."""
    found = _read(store, service)
    return found[0] if found else None


def is_free(lease: Lease, now: datetime) -> bool:
    """Say whether another run may take the lease."""
    silent = now - lease.renewed_at > timedelta(seconds=LIFETIME_S)
    return not lease.held or silent or is_dead(lease.process)


def _key(service: str) -> str:
    return f"services/{service}/lease.json"


def _read(store: Store, service: str) -> tuple[Lease | None, str] | None:
    found = store.get(_key(service))
    if found is None:
        return None
    try:
        return Lease.from_json(found[0]), found[1]
    except ValidationError:
        return None, found[1]
