"""The target ``kuberay``: what Kubernetes says becomes what the engine understands."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from k8s import api
from k8s.errors import ApiError, Reason
from tasks._release.kuberay import KubeRayTarget, translate
from tasks._release.machine import Health, Placement
from tasks.errors import AccessDenied, BadInput, Conflict, NotFound, Refused, SlipwayError, Unreachable
from tasks.records import Release
from tasks.settings import KubernetesSettings
from tests.fakes.kuberay import KubeRay
from tests.kube.control_plane import ADMIN, ControlPlane

IMAGE = {"image": "registry.example.com/payload@sha256:" + "5" * 64}
DEADLINE_S = 30.0


def a_release(number: int, **kubernetes: Any) -> Release:
    """Return the release of that number."""
    section = {**IMAGE, **kubernetes}
    spec = {"service": "chat", "model": "org/name", "target": "kuberay", "kubernetes": section}
    return Release(
        service="chat", number=number, model="org/name", commit=f"{number:040x}", hub="http://hub", spec=spec
    )


def weights_of(release: Release) -> str:
    """Return where the release's weights are."""
    return f"s3://bucket/models/org/name/{release.commit}"


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """Return a kubeconfig of an API server that is not there."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "token-of-nobody"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def settings(nowhere: Path) -> KubernetesSettings:
    """Return the settings of a target whose API server is not there."""
    return KubernetesSettings(
        namespace="llm", kubeconfig=nowhere, service_url="http://{name}-{namespace}.example.com"
    )


@pytest.fixture
def away(settings: KubernetesSettings) -> Iterator[KubeRayTarget]:
    """Return the target."""
    with closing(KubeRayTarget(settings)) as target:
        yield target


MEANINGS: dict[Reason, type[SlipwayError]] = {
    Reason.UNREACHABLE: Unreachable,
    Reason.BUSY: Unreachable,
    Reason.EXPIRED: Unreachable,
    Reason.CONFLICT: Refused,
    Reason.OWNED: Refused,
    Reason.EXISTS: Refused,
    Reason.FOREIGN: Refused,
    Reason.INVALID: Refused,
    Reason.UNAUTHENTICATED: AccessDenied,
    Reason.FORBIDDEN: AccessDenied,
    Reason.NOT_FOUND: NotFound,
    Reason.NOT_SERVED: NotFound,
    Reason.MISCONFIGURED: BadInput,
}


@pytest.mark.parametrize("reason", Reason)
def test_every_error_has_its_meaning(reason: Reason) -> None:
    """None means that another run has the release: that is for the record alone to say."""
    told = translate(ApiError(reason, "It did not work.", remedy="Try this.", retry_after=7.0))

    assert (MEANINGS[reason], "It did not work. Try this.") == (type(told), str(told))
    assert not isinstance(told, Conflict)
    assert (7.0 if isinstance(told, Unreachable) else None) == getattr(told, "retry_after", None)


def test_addresses_follow_the_template(away: KubeRayTarget) -> None:
    """They are known without asking anybody, unless they hold the cluster's own address."""
    assert "http://chat-llm.example.com" == away.address("chat")
    assert "http://chat-r7-llm.example.com" == away.endpoint(a_release(7))


def test_clients_at_a_gateway_are_watched_there(settings: KubernetesSettings) -> None:
    """The live address is the Gateway's, where the shares are; a release's own is its Service still."""
    at_gateway = settings.model_copy(update={"live_url": "https://{name}.example.com"})
    with closing(KubeRayTarget(at_gateway)) as target:
        assert "https://chat.example.com" == target.address("chat")
        assert "http://chat-r7-llm.example.com" == target.endpoint(a_release(7))


@pytest.mark.parametrize(("section", "expected"), [({}, False), ({"gateway": {"name": "public"}}, True)])
def test_traffic_is_shared_where_the_spec_names_a_gateway(
    away: KubeRayTarget, section: dict[str, Any], expected: bool
) -> None:
    """A release whose spec names none moves all of it at once."""
    assert expected is away.shares(a_release(7, **section))


def test_an_api_server_that_is_away_may_come_back(away: KubeRayTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine waits for it, whatever it was about to do."""
    monkeypatch.setattr(api, "ATTEMPTS", 1)

    for call in (
        lambda: away.observe("chat"),
        lambda: away.room(a_release(1), weights_of(a_release(1))),
        lambda: away.start(a_release(1), weights_of(a_release(1))),
        lambda: away.shift("chat", "chat-r1"),
        lambda: away.drain("chat", "chat-r1"),
        lambda: away.remove("chat", "chat-r1"),
    ):
        with pytest.raises(Unreachable):
            call()


def test_a_kubeconfig_that_is_missing_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    """It is told before anything is begun."""
    with pytest.raises(BadInput):
        KubeRayTarget(KubernetesSettings(namespace="llm", kubeconfig=tmp_path / "missing"))


@pytest.mark.slow
def test_a_release_goes_through_its_life(kube: ControlPlane, namespace: str) -> None:
    """Started, observed, led to and drained, at the addresses of the cluster itself; removed when nobody is on it."""
    settings = KubernetesSettings(
        namespace=namespace, kubeconfig=kube.kubeconfig(ADMIN), service_url="http://{cluster_ip}:8000"
    )
    first, second = a_release(1), a_release(2)
    with KubeRay(kube, namespace), closing(KubeRayTarget(settings)) as target:

        def shown() -> dict[str, Placement]:
            return dict(target.observe("chat").placements)

        for release in (first, second):
            target.start(release, weights_of(release))
        assert target.observe("chat").lasting
        until(lambda: shown()[first.name].health is Health.HEALTHY and shown()[second.name].health is Health.HEALTHY)
        target.shift("chat", first.name)
        target.shift("chat", second.name)
        target.drain("chat", first.name)
        until(lambda: answers(target.address("chat")) == second.name)

        assert first.name == answers(target.endpoint(first))
        until(lambda: shown()[first.name] == Placement(health=Health.HEALTHY, draining=True))
        until(lambda: shown()[second.name] == Placement(health=Health.HEALTHY, live=True))
        target.start(a_release(3), weights_of(a_release(3)))
        target.remove("chat", "chat-r3")
        until(lambda: "chat-r3" not in shown())
        with pytest.raises(Refused):
            target.shift("chat", first.name, percent=25)


def until(condition: Any) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def answers(url: str) -> str | None:
    """Return which release answers at ``url`` on a new connection."""
    try:
        answer = httpx.get(f"{url}/v1/models", trust_env=False)
    except httpx.TransportError:
        return None
    return answer.headers["x-slipway-release"] if answer.is_success else None
