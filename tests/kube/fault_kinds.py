"""What can go wrong between a client and an API server, for ``tests.kube.faulty``, and what was asked of it."""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.breaking_proxy import Delay, LoseReply, Orders
from tests.kube.control_plane import ControlPlane

WRITES = ("create", "update", "patch", "delete")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Answer:
    """Answer with a ``Status`` of this code and reason instead of passing the request on."""

    status: int
    reason: str
    retry_after: int | None = None


CONFLICT = Answer(409, "Conflict")
EXPIRED = Answer(410, "Expired")


@dataclass(frozen=True)
class Stall:
    """Say nothing until the client has gone; the request is passed on first if ``applied``."""

    applied: bool = False


@dataclass(frozen=True)
class Gone:
    """Tell a watch after so many events, within the stream, that its version is too old, and end it."""

    after: int = 0


@dataclass(frozen=True)
class End:
    """End a watch after so many events; not ``clean``, the connection is closed amid the next one."""

    after: int = 0
    clean: bool = True


@dataclass(frozen=True)
class Silence:
    """Let nothing more of a watch through after so many events, until the client has gone."""

    after: int = 0


@dataclass(frozen=True)
class OnlyBookmarks:
    """Give a watch nothing but bookmarks of the version it began with for so long, then what it missed."""

    seconds: float
    every_s: float = 0.1


@dataclass(frozen=True)
class Duplicated:
    """Give a watch each event twice."""


@dataclass(frozen=True)
class Reordered:
    """Give a watch its events in groups of so many, each backwards."""

    size: int = 2


OfWatches = Gone | End | Silence | OnlyBookmarks | Duplicated | Reordered
Fault = Answer | LoseReply | Stall | Delay | OfWatches


@dataclass
class Seen:
    """One request as it came, at a time of the monotonic clock; ``status`` is 0 while the client has no reply."""

    verb: str
    place: str
    at: float
    fault: Fault | None
    status: int = 0


@dataclass
class Faulty(Orders[Seen]):
    """What goes wrong, and what was asked; for any thread, while the proxy serves at ``url``."""

    plane: ControlPlane = field(kw_only=True)
    url: str = ""

    def kubeconfig(self, user: str, namespace: str = "default") -> Path:
        """Write a kubeconfig of a user that leads through the proxy."""
        return self.plane.kubeconfig(user, namespace, url=self.url)

    def add(self, fault: Fault, *verbs: str, part: str = "", times: int | None = 1, skip: int = 0) -> None:
        """Break requests of the ``verbs``, Kubernetes' own, whose path and query hold ``part``; empty ones fit all.

        ``skip`` requests pass first, then ``times`` are broken; with None all are.
        """
        if isinstance(fault, OfWatches):
            assert verbs in {(), ("watch",)}, "only a watch can meet this fault"
            verbs = ("watch",)
        self.order(fault, partial(_fits, verbs, part), times, skip)

    def asked(self, *verbs: str, part: str = "") -> list[Seen]:
        """Return the requests so far that fit."""
        return self.those(partial(_fits, verbs, part))

    def seen(self, method: str, target: str) -> Seen:
        """Return a request as it is noted."""
        return Seen(_verb(method, target), target, time.monotonic(), None)


def _fits(verbs: tuple[str, ...], part: str, seen: Seen) -> bool:
    return (not verbs or seen.verb in verbs) and part in seen.place


def _verb(method: str, target: str) -> str:
    """Return Kubernetes' word for a request."""
    address = urlsplit(target)
    if method != "GET":
        return _VERBS[method]
    if parse_qs(address.query).get("watch", [""])[0].lower() in {"1", "true"}:
        return "watch"
    parts = address.path.strip("/").split("/")
    rest = parts[2 if parts[0] == "api" else 3 :]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "list" if len(rest) == 1 else "get"


def status_of(answer: Answer) -> dict[str, Any]:
    """Return the ``Status`` that the API server would answer."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"ordered by the test: {answer.reason}",
        "reason": answer.reason,
        "details": {} if answer.retry_after is None else {"retryAfterSeconds": answer.retry_after},
        "code": answer.status,
    }
