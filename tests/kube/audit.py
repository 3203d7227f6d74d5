"""What a control plane was asked: its API server's audit log, read."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - {level: None, users: [system:apiserver]}
  - {level: None, nonResourceURLs: [/readyz*]}
  - {level: Metadata}
"""


@dataclass(frozen=True)
class Request:
    """One request to the API server.  ``resource`` holds the subresource too: ``pods/status``.

    ``at`` is in seconds since 1970; ``status`` is 0 while there is no reply.
    """

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    uri: str
    at: float
    status: int

    @property
    def unbounded(self) -> bool:
        """Tell whether it asks for all objects at once."""
        return self.verb == "list" and "limit" not in parse_qs(urlsplit(self.uri).query)


@dataclass(frozen=True)
class Audit:
    """The log.  A request is in it before its reply has come; what the API server asks itself is left out."""

    path: Path

    def position(self) -> int:
        """Return where the log ends now, for ``requests``."""
        return self.path.stat().st_size if self.path.exists() else 0

    def requests(self, *, user: str = "", namespace: str = "", since: int = 0) -> list[Request]:
        """Return the requests since a position, in order: those of one user, in one namespace, if named."""
        with self.path.open("rb") as log:
            log.seek(since)
            lines = log.read().rpartition(b"\n")[0].splitlines()
        events = {event["auditID"]: event for event in map(json.loads, lines)}
        return [
            request
            for request in map(_request, events.values())
            if user in {"", request.user} and namespace in {"", request.namespace}
        ]


def counted(requests: Iterable[Request]) -> Counter[tuple[str, str]]:
    """Return how many requests there are of each verb and resource."""
    return Counter((request.verb, request.resource) for request in requests)


def _request(event: dict[str, Any]) -> Request:
    about = event.get("objectRef", {})
    return Request(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource="/".join(filter(None, (about.get("resource"), about.get("subresource")))),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        uri=event["requestURI"],
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        status=event.get("responseStatus", {}).get("code", 0),
    )
