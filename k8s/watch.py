"""One watch: the changes of one kind from a resourceVersion on, as long as the server tells them.

The official client's ``Watch`` goes on by itself after a break, keeps the version it continues from where nobody can
reset it, and gives no bound to a silence.  This one does none of it: it ends when the stream ends, raises what broke
it, and never outlives its time.  How to go on is the caller's to decide; see ``k8s.reflector``.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import urllib3

from k8s.errors import ApiError, Reason, unkept
from k8s.kinds import Object


class Change(StrEnum):
    """What an event says; a bookmark only says up to which resourceVersion all has been told."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True)
class Event:
    """One change; ``object`` is the object after it, or at its end when it was deleted."""

    change: Change
    object: Object


class Watch:
    """The events of an open stream, for one reader; ``close`` may be called from another thread.

    ``doing`` names the request in errors; ``until_s`` is the longest it is read, in seconds from now.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, doing: str, until_s: float) -> None:
        self._response = response
        self._doing = doing
        self._until = time.monotonic() + until_s
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        """Yield events until the server ends the stream, ``close`` is called or time is up.

        Raises ``ApiError``: ``EXPIRED`` when the resourceVersion is too old, ``UNREACHABLE`` when the stream broke
        or was silent for too long.
        """
        try:
            for line in self._response:
                yield _event(line, self._doing)
                if time.monotonic() > self._until:
                    return
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not self._closed.is_set():
                raise _broken(self._doing, error) from error
        finally:
            self._response.close()

    def close(self) -> None:
        """End the stream; its reader's loop ends."""
        self._closed.set()
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
            self._response.shutdown()


def _event(line: bytes, doing: str) -> Event:
    try:
        told = json.loads(line)
        change, item = told["type"], told["object"]
        if change != "ERROR":
            return Event(Change(change), item)
    except (ValueError, LookupError, TypeError) as error:
        raise _broken(doing, error) from error
    raise unkept(doing, item)


def _broken(doing: str, error: Exception) -> ApiError:
    return ApiError(Reason.UNREACHABLE, f"The API server stopped in the middle of {doing} ({type(error).__name__}).")
