"""The one error of this package: what a Kubernetes API server, or the way to it, has against a request.

``reason`` is told by status codes and the server's own words for machines (``Status.reason``), never by message
text: https://kubernetes.io/docs/reference/using-api/api-concepts/.  The message is the server's, shortened; the
credentials of a request never come near it.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

MOST_TEXT = 300
"""Characters of a server's message that are passed on; an admission webhook may send pages."""


class Reason(StrEnum):
    """What went wrong, as far as it changes what to do next."""

    UNREACHABLE = "unreachable"
    """No whole answer came: refused, timed out, cut.  What a write did is not known."""
    BUSY = "busy"
    """The server answered that it cannot now: 429 and every 5xx."""
    EXPIRED = "expired"
    """The resourceVersion or the place in a list is too old (410): list from the start."""
    CONFLICT = "conflict"
    """The object is not the one that was read (409): read it again and decide again."""
    OWNED = "owned"
    """A field to be applied belongs to another field manager, which set it to something else (409)."""
    EXISTS = "exists"
    """An object of that name is there already (409)."""
    FOREIGN = "foreign"
    """An object of that name is there and it is not ours."""
    UNAUTHENTICATED = "unauthenticated"
    """The server does not know who we are (401)."""
    FORBIDDEN = "forbidden"
    """A right is missing, or admission (a quota, a policy) says no (403)."""
    NOT_FOUND = "not_found"
    """The object, or the namespace that it is to live in, does not exist (404)."""
    NOT_SERVED = "not_served"
    """The server has no such kind: its CustomResourceDefinition is not installed."""
    INVALID = "invalid"
    """The server does not take the object or the request as written (every other 4xx)."""
    MISCONFIGURED = "misconfigured"
    """There is no usable kubeconfig, context or service account."""


PASSING = frozenset({Reason.UNREACHABLE, Reason.BUSY, Reason.EXPIRED})


class ApiError(Exception):
    """A request that failed; ``status`` is the HTTP status, 0 where there was none, ``retry_after`` in seconds."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        remedy: str = "",
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.remedy = remedy
        self.status = status
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Say whether the same call may succeed later without anybody doing anything."""
        return self.reason in PASSING


def refusal(doing: str, status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """Return the error that an answer other than 2xx stands for; ``doing`` is e.g. ``get pods/chat in llm``."""
    told = _status(body)
    reason = _reason(status, told)
    text = _short(told.get("message") or f"HTTP status {status}")
    return ApiError(
        reason,
        f"The API server did not {doing}: {text}",
        remedy=REMEDIES.get(reason, ""),
        status=status,
        retry_after=_seconds(headers.get("Retry-After")),
    )


def unkept(doing: str, status: dict[str, Any]) -> ApiError:
    """Return the error that the ``Status`` of a watch's ERROR event stands for."""
    return refusal(doing, int(status.get("code") or 500), json.dumps(status).encode(), {})


REMEDIES = {
    Reason.OWNED: "Let that manager give the field up; Slipway never takes one by force.",
    Reason.UNAUTHENTICATED: "Renew the credentials of the kubeconfig or of the service account.",
    Reason.FORBIDDEN: "Bind the Role in k8s/ to this account; where a quota or policy refused, raise or change that.",
    Reason.NOT_SERVED: "Install its CustomResourceDefinitions.",
}


def _reason(status: int, told: dict[str, Any]) -> Reason:
    match status:
        case 409:
            return _conflict(told)
        case 401:
            return Reason.UNAUTHENTICATED
        case 403:
            return Reason.FORBIDDEN
        case 404:
            return Reason.NOT_FOUND if told else Reason.NOT_SERVED
        case 410:
            return Reason.EXPIRED
        case _:
            return Reason.BUSY if status == 429 or status >= 500 else Reason.INVALID  # noqa: PLR2004


def _conflict(told: dict[str, Any]) -> Reason:
    causes = (told.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
        return Reason.OWNED
    return Reason.EXISTS if told.get("reason") == "AlreadyExists" else Reason.CONFLICT


def _status(body: bytes) -> dict[str, Any]:
    """Return the ``Status`` object of an answer; empty where something else than an API server answered."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("kind") == "Status" else {}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_TEXT else line[: MOST_TEXT - 1] + "…"


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdecimal() else None
