"""Whether a release is at work on any request: asked of Ray's metrics, on each of its pods.

Serve counts what runs in each replica and, where HTTP comes in, in each proxy:
https://docs.ray.io/en/releases-2.60.0/serve/monitoring.html#built-in-serve-metrics
"""

import re
from collections.abc import Iterable

import httpx

from k8s.kinds import Object

PORT = 8080
"""KubeRay's port for Ray's metrics."""
TIMEOUT_S = 2.0
ONGOING = re.compile(
    r"^ray_serve_(?:replica_processing_queries|num_ongoing_http_requests)(?:\{[^}]*\})?[ \t]+(\S+)", re.MULTILINE
)


def is_quiet(pods: Iterable[Object]) -> bool:
    """Say whether the pods are known to be at work on no request; False when one of them does not answer.

    Ray's numbers are up to ten seconds old.
    """
    counts: list[float] = []
    for pod in pods:
        address = (pod.get("status") or {}).get("podIP")
        page = _page(f"http://{address}:{PORT}/metrics") if address else None
        if page is None:
            return False
        counts += map(float, ONGOING.findall(page))
    return bool(counts) and not any(counts)


def _page(url: str) -> str | None:
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None
    return answer.text if answer.is_success else None
