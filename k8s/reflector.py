"""What the namespace holds of one kind, kept current by a watch, and by lists where no watch can be had.

A reader sees what a list would show, however the changes came: twice, in another order, through a broken stream or
not at all.

What it costs, for each kind, at the usual pace: a server that works sees two watches and one list a minute; one that
fails sees at most 24 requests in any minute, a list and a watch after each of the pauses.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from k8s.api import BUDGET_S, SILENCE_S, WATCH_S, Api
from k8s.errors import ApiError, Reason
from k8s.kinds import Kind, Object
from k8s.store import Store, version
from k8s.watch import Change, Event, Watch

NEVER = float("-inf")
log = logging.getLogger(__name__)

FIRST_S = 40.0
"""Seconds that a reader waits for the first list, which fails by itself before that."""
CLOSING_S = 5.0
"""Seconds that ``close`` waits for the thread; one that is in the middle of a request ends after it."""


@dataclass(frozen=True)
class Pace:
    """How often to ask, in seconds."""

    watch: float = WATCH_S
    """How long one watch lasts."""
    list_again: float = 60.0
    """After how long everything is listed anew, for events that something between us and the server swallowed."""
    steady: float = 10.0
    """How long a watch must have lasted for its end to be no failure; after a failure everything is listed."""
    pauses: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0)
    """Between attempts while they fail, up to a tenth more; the last is the pace of polling."""
    patience: float = 10.0
    """For how long readers are given what was known before the server failed."""


@dataclass(frozen=True)
class Snapshot:
    """Objects by name, not to be changed; ``age_s`` is how many seconds ago the server last said anything."""

    objects: Mapping[str, Object]
    age_s: float


class Reflector:
    """A current picture of the objects of ``kind`` that the selectors match; starts at once, in its own thread."""

    def __init__(
        self, api: Api, kind: Kind, selector: str = "", *, fields: str = "", pace: Pace | None = None
    ) -> None:
        self._api, self._kind, self._selector, self._fields = api, kind, selector, fields
        self._pace = pace or Pace()
        self._store = Store()
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._watch: Watch | None = None
        self._began_at = time.monotonic()
        self._heard_at = NEVER
        self._listed_at = NEVER
        self._resource_version = ""
        self._trouble: ApiError | None = None
        self._thread = threading.Thread(target=self._run, name=f"reflector-{kind.plural}", daemon=True)
        self._thread.start()

    def snapshot(self) -> Snapshot:
        """Return what is known, once anything is; raises ``ApiError``, why nothing is or nothing new for a while."""
        with self._news:
            self._news.wait_for(self._is_decided, FIRST_S)
            age_s = time.monotonic() - self._heard_at
            if self._trouble and age_s > self._pace.patience:
                raise self._trouble
            if age_s > self._pace.watch + SILENCE_S + self._pace.patience:
                raise ApiError(Reason.UNREACHABLE, f"The API server is silent about {self._kind.plural}.")
            return Snapshot(self._store.objects, age_s)

    def _is_decided(self) -> bool:
        """Say whether anything is known, or why nothing will be; what may pass is given the readers' patience."""
        if self._heard_at > NEVER or self._trouble is None:
            return self._heard_at > NEVER
        return not self._trouble.transient or time.monotonic() - self._began_at > self._pace.patience

    def put(self, item: Object) -> None:
        """Take what a write of our own returned, so that the next ``snapshot`` shows it."""
        with self._news:
            self._store.take(item)

    def close(self) -> None:
        """End the watch and the thread."""
        self._closing.set()
        watch = self._watch
        if watch is not None:
            watch.close()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            began, ordered_s = time.monotonic(), 0.0
            try:
                self._follow()
            except ApiError as error:
                self._failed(error)
                ordered_s = min(error.retry_after or 0.0, BUDGET_S)
            except (LookupError, TypeError, ValueError) as error:  # objects without a name or a version
                self._failed(_unreadable(self._kind, error))
            steady = time.monotonic() - began >= self._pace.steady
            if not steady:
                self._resource_version = ""
            failures = 0 if steady else failures + 1
            self._closing.wait(max(self._pause(failures), ordered_s))

    def _follow(self) -> None:
        """List if the place to go on from is not known or an old one, then watch until the stream ends."""
        if time.monotonic() - self._listed_at > self._pace.list_again:
            self._resource_version = ""
        if not self._resource_version:
            self._list()
        watch = self._api.watch(
            self._kind, self._resource_version, self._selector, fields=self._fields, timeout_s=self._pace.watch
        )
        self._watch = watch
        if self._closing.is_set():
            watch.close()
        self._heard()
        for event in watch:
            self._take(event)
        self._heard()

    def _list(self) -> None:
        listing = self._api.list(self._kind, self._selector, fields=self._fields, patient=False)
        with self._news:
            self._store.replace(listing)
            self._resource_version = listing.resource_version
            self._listed_at = time.monotonic()
            self._trouble = None
        self._heard()

    def _take(self, event: Event) -> None:
        with self._news:
            if event.change is not Change.BOOKMARK:
                self._store.take(event.object, deleted=event.change is Change.DELETED)
            self._resource_version = str(max(int(self._resource_version), version(event.object)))
        self._heard()

    def _heard(self) -> None:
        with self._news:
            self._heard_at = time.monotonic()
            self._news.notify_all()

    def _failed(self, error: ApiError) -> None:
        """Start from a list next time; that a watch failed is no trouble for readers as long as lists work."""
        log.info("%s", error)
        listed, self._resource_version = self._resource_version, ""
        if not listed:
            with self._news:
                self._trouble = error
                self._news.notify_all()

    def _pause(self, failures: int) -> float:
        pauses = self._pace.pauses
        return pauses[min(failures, len(pauses) - 1)] * random.uniform(1.0, 1.1)  # noqa: S311 - not a secret


def _unreadable(kind: Kind, error: Exception) -> ApiError:
    return ApiError(Reason.UNREACHABLE, f"The {kind.plural} that came cannot be read ({type(error).__name__}).")
