"""Whether a release is at work on a request, asked of servers that speak as Ray's metrics do."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from k8s import requests
from k8s.kinds import Object
from tests.fakes import asgi

pytestmark = pytest.mark.slow

IDLE = """\
# TYPE ray_serve_replica_processing_queries gauge
ray_serve_replica_processing_queries{application="chat-r1",replica="x"} 0.0
ray_serve_num_ongoing_http_requests{node_id="a"} 0.0
ray_serve_num_http_requests_total{route="/"} 12.0
"""
BUSY = IDLE.replace('{node_id="a"} 0.0', '{node_id="a"} 1.0')


def pods(monkeypatch: pytest.MonkeyPatch, url: str) -> tuple[Object, ...]:
    """Return one pod, whose metrics are at ``url``."""
    host, port = url.removeprefix("http://").split(":")
    monkeypatch.setattr(requests, "PORT", int(port))
    return ({"status": {"podIP": host}},)


@pytest.mark.parametrize(
    ("page", "expected"), [(IDLE, True), (BUSY, False), ("ray_node_cpu_count 2.0\n", False), (None, False)]
)
def test_a_release_is_quiet_when_its_pods_say_so(
    monkeypatch: pytest.MonkeyPatch, page: str | None, expected: bool
) -> None:
    """A page without a word about requests, or an error, is no word for it."""
    answer = PlainTextResponse(page or "not here", 200 if page else 404)
    with asgi.serving(Starlette(routes=[Route("/metrics", lambda _: answer)])) as (url, _server):
        found = pods(monkeypatch, url)

        assert expected is requests.is_quiet(found)
        assert not requests.is_quiet((*found, {"status": {}})), "a pod without an address says nothing"

    assert not requests.is_quiet(found), "nor does one that is gone"
