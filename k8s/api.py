"""One namespace of one API server: read, list, watch, apply, patch and delete plain objects.

Reads and writes are tried again here and nowhere else, so that attempts never multiply.  Every write may be repeated:
what is applied has a name of ours and is the same each time, a patch holds only for the object that was read, a
deletion only for the object of that uid.  So a write whose reply was lost makes nothing twice and undoes nobody's
change.  Nothing is ever taken from another field manager by force.

The API: https://kubernetes.io/docs/reference/using-api/api-concepts/ and
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import stamina

from k8s.access import Access, Connection, Question
from k8s.errors import ApiError, Reason
from k8s.kinds import Kind, Object, kind_of
from k8s.store import Listing
from k8s.watch import Watch

T = TypeVar("T")

MANAGER = "slipway"
"""The field manager that what is applied belongs to."""
PAGE = 250
"""Objects in one answer to a list."""
TURNS = 20
"""How often ``change`` reads and decides, when others write the same object each time; together about 5 seconds."""
ATTEMPTS = 5
"""Tries of one request in all; with the waits between them about 8 seconds for a server that refuses at once."""
BUDGET_S = 60.0
"""Seconds after which no further try is started; a server that asks for a longer wait is not waited for."""
RETURNING_S = 30.0
"""Seconds after it could not be reached in which a server's 403 may pass: it refuses before it has read its roles."""
WATCH_S = 30.0
"""Seconds that a watch is asked to last.  A quiet server may say nothing all this time, not even a bookmark."""
SILENCE_S = 5.0
"""Seconds beyond its time after which a watch that neither speaks nor ends is given up."""


class Api:
    """The objects of ``access.namespace``, from any number of threads.

    All calls raise ``ApiError``; what may pass has been tried several times before.
    """

    def __init__(self, access: Access) -> None:
        self.namespace = access.namespace
        self._connection = Connection(access)
        self._unreachable_at = float("-inf")

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return the object as it is now, None where there is none of that name."""
        try:
            return _patiently(lambda: self._once("get", "GET", kind, name))
        except ApiError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    def list(self, kind: Kind, selector: str = "", *, fields: str = "", patient: bool = True) -> Listing:
        """Return all objects that the label and field selectors match, page by page.

        Not ``patient``: what fails is not tried again, for callers that have a pace of their own.
        """

        def pages() -> Listing:
            return self._pages(kind, _selecting(selector, fields))

        return _patiently(pages) if patient else pages()

    def watch(
        self, kind: Kind, resource_version: str, selector: str = "", *, fields: str = "", timeout_s: float = WATCH_S
    ) -> Watch:
        """Open a watch of what ``list`` gave, from its ``resource_version`` on; not tried again."""
        doing = self._doing("watch", kind)
        query = {
            **_selecting(selector, fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(round(timeout_s)),
        }
        longest_s = timeout_s + SILENCE_S
        question = Question(doing, "GET", kind.path(self.namespace), query)
        return Watch(self._connection.stream(question, longest_s), doing, longest_s)

    def apply(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Make the object exist with the fields given (server-side apply, unknown fields refused); return it.

        Raises ``OWNED`` when somebody else set one of them to another value, ``INVALID`` for what the kind's schema
        does not know.  A dry run goes through all of the server's checks and changes nothing.
        """
        query = {**_WRITING, **(_DRY if dry_run else {})}
        kind, name = kind_of(obj), obj["metadata"]["name"]

        def once() -> Object:
            try:
                return self._once(
                    "apply", "PATCH", kind, name, query, obj, content_type="application/apply-patch+yaml"
                )
            except ApiError as error:
                if error.status == 500:  # noqa: PLR2004
                    self._check(kind, obj)
                raise

        return _patiently(once)

    def patch(self, kind: Kind, name: str, change: Object, resource_version: str) -> Object:
        """Merge ``change`` into the object if it is still at ``resource_version``; return it.

        Raises ``CONFLICT`` when it is not, ``NOT_FOUND`` when it is gone.
        """
        metadata = {**change.get("metadata", {}), "resourceVersion": resource_version}
        body = {**change, "metadata": metadata}
        unsure = False

        def once() -> Object:
            nonlocal unsure
            try:
                return self._once(
                    "patch", "PATCH", kind, name, _WRITING, body, content_type="application/merge-patch+json"
                )
            except ApiError as error:
                if unsure and error.reason is Reason.CONFLICT:  # perhaps with our own write, whose reply was lost
                    return self._look(kind, name, change, error)
                unsure = unsure or error.transient
                raise

        return _patiently(once)

    def change(self, kind: Kind, name: str, decide: Callable[[Object], Object | None]) -> Object:
        """Read the object, let ``decide`` say what to merge into it (None: nothing), and patch it; return it.

        When somebody writes in between it is read and decided again, a few times; then raises ``CONFLICT``.
        """

        def turn() -> Object:
            before = self.get(kind, name)
            if before is None:
                raise ApiError(Reason.NOT_FOUND, f"There is no {kind.plural}/{name} in {self.namespace}.", status=404)
            change = decide(before)
            return before if change is None else self.patch(kind, name, change, before["metadata"]["resourceVersion"])

        for attempt in _turns():
            with attempt:
                return turn()
        raise AssertionError  # the last turn has returned or raised

    def delete(self, kind: Kind, name: str, uid: str) -> None:
        """Delete the object of that name and uid, what it owns after it; fine where it is gone already."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            _patiently(lambda: self._once("delete", "DELETE", kind, name, {}, body))
        except ApiError as error:
            if error.reason not in {Reason.NOT_FOUND, Reason.CONFLICT} or self._is_there(kind, name, uid):
                raise

    def close(self) -> None:
        """Let go of connections."""
        self._connection.close()

    def _pages(self, kind: Kind, query: Mapping[str, str]) -> Listing:
        items: list[Object] = []
        page = {**query, "limit": str(PAGE)}
        while True:
            part = self._once("list", "GET", kind, "", page)
            items += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in part.get("items") or ()]
            following = part["metadata"].get("continue")
            if not following:
                return Listing(tuple(items), part["metadata"]["resourceVersion"])
            page["continue"] = following

    def _look(self, kind: Kind, name: str, change: Object, conflict: ApiError) -> Object:
        now = self._once("get", "GET", kind, name)
        if _holds(now, change):
            return now
        raise conflict

    def _check(self, kind: Kind, obj: Object) -> None:
        """Raise ``INVALID`` for an object that the schema does not know.

        Server-side apply answers that as it answers a fault of its own, a 500 without a reason; making the object
        in a dry run is refused properly.
        """
        try:
            self._once("create", "POST", kind, "", {**_WRITING, **_DRY}, obj)
        except ApiError as error:
            if error.reason is Reason.INVALID:
                raise

    def _is_there(self, kind: Kind, name: str, uid: str) -> bool:
        there = self.get(kind, name)
        return there is not None and there["metadata"]["uid"] == uid

    def _once(
        self,
        verb: str,
        method: str,
        kind: Kind,
        name: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        doing = self._doing(verb, kind, name)
        question = Question(doing, method, kind.path(self.namespace, name), query or {}, body, content_type)
        try:
            return _parsed(doing, self._connection.ask(question))
        except ApiError as error:
            if error.reason is Reason.UNREACHABLE:
                self._unreachable_at = time.monotonic()
            elif error.reason is Reason.FORBIDDEN and time.monotonic() - self._unreachable_at < RETURNING_S:
                error.retry_after = 1.0
            raise

    def _doing(self, verb: str, kind: Kind, name: str = "") -> str:
        what = f"{kind.plural}/{name}" if name else kind.plural
        return f"{verb} {what} in {self.namespace}" if kind.namespaced else f"{verb} {what}"


_DRY = {"dryRun": "All"}
_WRITING = {"fieldManager": MANAGER, "fieldValidation": "Strict"}


def _parsed(doing: str, body: bytes) -> Object:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "kind" not in told:
        raise ApiError(Reason.UNREACHABLE, f"Something else than an API server was asked to {doing}.")
    return told


def _selecting(selector: str, fields: str) -> dict[str, str]:
    return {
        **({"labelSelector": selector} if selector else {}),
        **({"fieldSelector": fields} if fields else {}),
    }


def _holds(value: object, change: object) -> bool:
    """Say whether merging ``change`` into ``value`` would change nothing (RFC 7386)."""
    if not isinstance(change, dict):
        return value == change
    if not isinstance(value, dict):
        return False
    return all(_holds(value.get(key), part) for key, part in change.items())


def _patiently(call: Callable[[], T]) -> T:
    """Return what ``call`` returns, calling it again while what it raises may pass."""
    for attempt in _attempts():
        with attempt:
            return call()
    raise AssertionError  # the last attempt has returned or raised


def _attempts() -> Iterable[stamina.Attempt]:
    return stamina.retry_context(
        on=_pause, attempts=ATTEMPTS, timeout=BUDGET_S, wait_initial=0.5, wait_max=10.0, wait_jitter=1.0
    )


def _turns() -> Iterable[stamina.Attempt]:
    return stamina.retry_context(
        on=_is_conflict, attempts=TURNS, timeout=BUDGET_S, wait_initial=0.02, wait_max=0.3, wait_jitter=0.1
    )


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.reason is Reason.CONFLICT


def _pause(error: Exception) -> bool | float:
    """Say whether to try again, or the seconds to wait before it when the server named them."""
    if not isinstance(error, ApiError):
        return False
    if error.retry_after is None:
        return error.transient
    if not error.transient and error.reason is not Reason.FORBIDDEN:
        return False
    return max(error.retry_after, 0.1) if error.retry_after < BUDGET_S else False
