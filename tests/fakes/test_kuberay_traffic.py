"""The double of a cluster carries real traffic as a node and its pods do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.fakes.kube_client import POD, RAY_SERVICE, ROUTE, SERVICE
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand, await_that, configured
from tests.kube.control_plane import ControlPlane

pytestmark = pytest.mark.slow


@contextmanager
def reached(cluster: KubeRay) -> Iterator[httpx.Client]:
    """Give a client of the stable Service."""
    await_that(lambda: cluster.live("chat"))
    with httpx.Client(base_url=cluster.address("chat"), timeout=10, trust_env=False) as client:
        yield client


def release_of(client: httpx.Client, **headers: str) -> str:
    """Return who answers."""
    return client.get("/v1/models", headers=headers).headers["x-slipway-release"]


def is_refused(client: httpx.Client) -> bool:
    """Say whether nobody listens."""
    try:
        client.get("/v1/models")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    raise AssertionError("somebody answers")


def drain(hand: Hand, release: str) -> None:
    """Tell a release to part with its clients."""
    hand.patch(RAY_SERVICE, release, {"spec": {"serveConfigV2": configured(release, drain=True)}})


class Stream(threading.Thread):
    """A stream of so many tokens, of which each takes 10 ms."""

    def __init__(self, client: httpx.Client, tokens: int) -> None:
        super().__init__(daemon=True)
        self.said, self.error = "", ""
        self._client, self._tokens = client, tokens
        self._begun = threading.Event()
        self.start()
        assert self._begun.wait(10)

    def run(self) -> None:
        """Read it whole."""
        asked: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
        asked |= {"stream": True, "ignore_eos": True, "max_tokens": self._tokens}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                for piece in answer.iter_text():
                    self._begun.set()
                    self.said += piece
        except httpx.TransportError as error:
            self.error = type(error).__name__

    def ended(self) -> str:
        """Return its last line, or its error."""
        self.join(30)
        return self.error or self.said.strip().rpartition("\n")[2]


def test_flip_and_drain(cluster: KubeRay, hand: Hand) -> None:
    """New connections follow the selector, a kept-alive one stays until its release drains, and nothing is lost."""
    hand.release("chat-r1")
    hand.release("chat-r2")
    hand.expose("chat-r1")
    with reached(cluster) as kept:
        before = release_of(kept)
        stream = Stream(kept, 60)
        hand.expose("chat-r2")
        await_that(lambda: cluster.live("chat") == "chat-r2")
        with reached(cluster) as fresh:
            await_that(lambda: release_of(fresh) == "chat-r2")
        ended, pinned = stream.ended(), release_of(kept)
        drain(hand, "chat-r1")
        await_that(lambda: cluster.is_draining() == {"chat-r1": True, "chat-r2": False})
        await_that(lambda: release_of(kept) == "chat-r2")

    assert ["chat-r1", "data: [DONE]", "chat-r1"] == [before, ended, pinned]


def test_deletion_takes_a_kept_connection_along(cluster: KubeRay, hand: Hand) -> None:
    """A stream ends well within the drain; what is asked then hangs without a replica, and is reset at the end."""
    cluster.time_scale = 0.1
    hand.release("chat-r1")
    hand.expose("chat-r1")
    with reached(cluster) as client:
        stream = Stream(client, 120)
        hand.delete(RAY_SERVICE, "chat-r1")
        ended = stream.ended()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await_that(lambda: not client.get("/v1/models").is_success)
        await_that(lambda: not hand.items(POD))
        await_that(lambda: is_refused(client))

    assert "data: [DONE]" == ended


def test_no_drain_at_all(cluster: KubeRay, hand: Hand) -> None:
    """With a drain of zero a stream is cut when its release is deleted."""
    hand.release("chat-r1", drain_s=0)
    hand.expose("chat-r1")
    with reached(cluster) as client:
        stream = Stream(client, 500)
        hand.delete(RAY_SERVICE, "chat-r1")

        assert stream.ended() in {"ReadError", "RemoteProtocolError"}


def test_a_crash(cluster: KubeRay, hand: Hand) -> None:
    """A pod that crashes cuts its connections, is no endpoint for a while, and comes back at its address."""
    hand.release("chat-r1")
    hand.expose("chat-r1")
    with reached(cluster) as client:
        stream = Stream(client, 500)
        addresses = {pod["status"]["podIP"] for pod in hand.items(POD)}
        for pod in cluster.releases["chat-r1"].pods:
            cluster.crash(pod)
        ended = stream.ended()
        await_that(lambda: hand.items(POD)[0]["status"]["containerStatuses"][0]["restartCount"] == 1)
        await_that(lambda: cluster.live("chat") and hand.endpoints("chat-r1") == 2)

        assert ended in {"ReadError", "RemoteProtocolError"}
        assert "chat-r1" == release_of(client)
        assert addresses == {pod["status"]["podIP"] for pod in hand.items(POD)}


def test_an_api_server_that_is_away(cluster: KubeRay, hand: Hand, kube: ControlPlane) -> None:
    """Addresses and pods need no API server; what is written when it is there again acts as ever."""
    hand.release("chat-r1")
    hand.release("chat-r2")
    hand.expose("chat-r1")
    with reached(cluster) as client:
        kube.stop()
        try:
            stream, during = Stream(client, 30), release_of(client)
        finally:
            kube.start()
        ended = stream.ended()
        hand.expose("chat-r2")
        await_that(lambda: cluster.live("chat") == "chat-r2")

    assert ["chat-r1", "data: [DONE]"] == [during, ended]


def test_metrics_count_open_requests(cluster: KubeRay, hand: Hand) -> None:
    """The pod that answers says so under Ray's name, and ends to say so with the answer."""
    hand.release("chat-r1")
    hand.expose("chat-r1")

    def ongoing() -> float:
        total = 0.0
        for pod in hand.items(POD):
            text = httpx.get(f"http://{pod['status']['podIP']}:8080/metrics", trust_env=False).text
            lines = [line for line in text.splitlines() if line.startswith("ray_serve_num_ongoing_http_requests{")]
            total += float(lines[0].rpartition(" ")[2])
        return total

    with reached(cluster) as client:
        stream = Stream(client, 60)
        during = ongoing()
        stream.ended()

    assert 1.0 == during
    await_that(lambda: ongoing() == 0.0)


def test_behind_haproxy(cluster: KubeRay, hand: Hand) -> None:
    """Behind HAProxy a drain closes each connection once, by a reload, whatever the application says."""
    cluster.behind_haproxy = True
    hand.release("chat-r1")
    hand.expose("chat-r1")
    with reached(cluster) as client:
        first = client.get("/v1/models").headers.get("connection")
        drain(hand, "chat-r1")
        await_that(lambda: cluster.is_draining() == {"chat-r1": True})
        then = [client.get("/v1/models").headers.get("connection") for _ in range(3)]

    assert [None, "close", None, None] == [first, *then]


@pytest.mark.usefixtures("extensions")
def test_gateway(cluster: KubeRay, hand: Hand) -> None:
    """A route's weights divide requests among releases, and a header leads past them to one."""
    for number in (1, 2):
        name = f"chat-r{number}"
        hand.release(name)
        selector = {"slipway.dev/release": name, "ray.io/serve": "true"}
        ports = [{"name": "http", "port": 8000, "targetPort": "serve"}]
        hand.create(SERVICE, {"metadata": {"name": name}, "spec": {"selector": selector, "ports": ports}})

    def backend(name: str, weight: int) -> dict[str, Any]:
        return {"name": name, "port": 8000, "weight": weight}

    header = {"name": "x-slipway-release", "value": "chat-r2", "type": "Exact"}
    direct = {"matches": [{"headers": [header]}], "backendRefs": [backend("chat-r2", 1)]}
    shared = {"backendRefs": [backend("chat-r1", 100), backend("chat-r2", 0)]}
    spec = {"parentRefs": [{"name": "front"}], "rules": [direct, shared]}
    hand.create(
        ROUTE, {"metadata": {"name": "chat"}, "apiVersion": ROUTE.api_version, "kind": ROUTE.name, "spec": spec}
    )
    await_that(lambda: "Accepted" in json.dumps((hand.get(ROUTE, "chat") or {}).get("status", {})))
    with httpx.Client(base_url=cluster.gateway_url, trust_env=False) as client:
        await_that(lambda: client.get("/v1/models").is_success)
        weighed = {release_of(client) for _ in range(10)}
        led = {release_of(client, **{"x-slipway-release": "chat-r2"}) for _ in range(3)}
        shared["backendRefs"] = [backend("chat-r1", 1), backend("chat-r2", 1)]
        hand.patch(ROUTE, "chat", {"spec": spec})
        await_that(lambda: release_of(client) == "chat-r2")

    assert [{"chat-r1"}, {"chat-r2"}] == [weighed, led]


def test_bumping(cluster: KubeRay, hand: Hand) -> None:
    """Who writes to an object that is bumped, at a version that was read, meets a conflict."""
    hand.release("chat-r1")
    with cluster.bumping(RAY_SERVICE, "chat-r1"):
        read = (hand.get(RAY_SERVICE, "chat-r1") or {})["metadata"]["resourceVersion"]
        await_that(lambda: (hand.get(RAY_SERVICE, "chat-r1") or {})["metadata"]["resourceVersion"] != read)
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            hand.patch(RAY_SERVICE, "chat-r1", {"metadata": {"resourceVersion": read, "labels": {"a": "b"}}})
