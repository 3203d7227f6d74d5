"""The target ``ray``, against a small server that behaves as Serve's REST API does."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest
import stamina
from pydantic import SecretStr

from tasks._release.machine import Health
from tasks._release.ray import RayTarget
from tasks.errors import AccessDenied, CandidateFailed, Refused, Unreachable
from tasks.records import Release
from tasks.settings import RaySettings
from tests.fakes.ray_serve import RayServe, serving

WEIGHTS = "s3://bucket/models/org/name"


def a_release(number: int, service: str = "chat") -> Release:
    """Return the release of that number."""
    spec = {"service": service, "model": "org/name"}
    return Release(
        service=service, number=number, model="org/name", commit=f"{number:040x}", hub="http://hub", spec=spec
    )


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.fixture
def cluster() -> RayServe:
    """Return an empty cluster; it takes a moment to start a release, and a longer one to end it."""
    return RayServe(start_s=0.02)


@pytest.fixture
def settings(cluster: RayServe) -> Iterator[RaySettings]:
    """Serve the cluster."""
    with serving(cluster) as reached:
        yield reached


@pytest.fixture
def target(settings: RaySettings) -> Iterator[RayTarget]:
    """Return the target on the cluster."""
    with closing(RayTarget(settings)) as target:
        yield target


def started(target: RayTarget, *releases: Release) -> None:
    """Start releases and wait until each is healthy."""
    for release in releases:
        target.start(release, WEIGHTS)
        until(lambda one=release: target.observe(one.service).placements[one.name].health is Health.HEALTHY)


def answers(url: str) -> str | None:
    """Return which release answers at ``url``."""
    return httpx.get(f"{url}/v1/models").headers.get("x-slipway-release")


def test_a_started_release_answers_at_its_own_address_alone(target: RayTarget) -> None:
    """A candidate is reachable and takes no live traffic."""
    started(target, a_release(1))

    assert "chat-r1" == answers(target.endpoint(a_release(1)))
    assert answers(target.address("chat")) is None


def test_starting_twice_makes_one_replica(target: RayTarget, cluster: RayServe) -> None:
    """Repeating a start is harmless."""
    started(target, a_release(1))
    target.start(a_release(1), WEIGHTS)

    assert 1 == cluster.replicas


def test_a_name_taken_by_other_arguments_is_refused(target: RayTarget) -> None:
    """A release never takes over an application that is not itself."""
    started(target, a_release(1))

    with pytest.raises(Refused, match="another application called chat-r1"):
        target.start(a_release(1), "s3://elsewhere")


def test_a_shift_is_one_put_that_swaps_and_restarts_nothing(target: RayTarget, cluster: RayServe) -> None:
    """Live traffic goes from one release to the other in one declarative step."""
    started(target, a_release(1), a_release(2))
    target.shift("chat", "chat-r1")
    puts = len(cluster.puts)

    target.shift("chat", "chat-r2")

    assert puts + 1 == len(cluster.puts)
    assert 2 == cluster.replicas
    assert ("chat-r2", "chat-r2") == (target.observe("chat").live, answers(target.address("chat")))
    assert "chat-r1" == answers(target.endpoint(a_release(1)))


def test_shifting_to_none_leaves_the_live_address_empty(target: RayTarget) -> None:
    """Undoing a first release takes its traffic away."""
    started(target, a_release(1))
    target.shift("chat", "chat-r1")

    target.shift("chat", None)

    assert answers(target.address("chat")) is None
    assert target.observe("chat").live is None


def test_traffic_is_not_led_to_what_is_not_there(target: RayTarget) -> None:
    """A shift to a release that the cluster lost fails before anything moves."""
    started(target, a_release(1))
    target.shift("chat", "chat-r1")

    with pytest.raises(CandidateFailed, match="chat-r2 is not on the cluster"):
        target.shift("chat", "chat-r2")

    assert "chat-r1" == target.observe("chat").live


def test_a_drained_release_says_close_and_one_led_back_to_does_not(target: RayTarget) -> None:
    """The drain switch goes on after a shift and off when traffic returns."""
    started(target, a_release(1), a_release(2))
    target.shift("chat", "chat-r2")
    target.drain("chat", "chat-r1")

    assert target.observe("chat").placements["chat-r1"].draining
    assert "close" == httpx.get(f"{target.endpoint(a_release(1))}/v1/models").headers["connection"]

    target.shift("chat", "chat-r1")

    assert not target.observe("chat").placements["chat-r1"].draining


def test_a_removed_release_is_shown_until_it_is_gone(target: RayTarget) -> None:
    """Removal is observed, not assumed."""
    started(target, a_release(1))

    target.remove("chat", "chat-r1")

    assert Health.REMOVING is target.observe("chat").placements["chat-r1"].health
    until(lambda: not target.observe("chat").placements)


def test_services_leave_each_other_alone(target: RayTarget) -> None:
    """The document is the whole cluster's, so a change keeps what belongs to others."""
    started(target, a_release(1), a_release(1, "code"))
    target.shift("code", "code-r1")

    target.shift("chat", "chat-r1")
    target.remove("chat", "chat-r1")

    assert "code-r1" == answers(target.address("code"))
    assert {"code-r1"} == set(target.observe("code").placements)


def test_a_release_that_cannot_start_says_why(cluster: RayServe, target: RayTarget) -> None:
    """The last line of the payload's traceback is the message."""
    cluster.engine = lambda _args: None
    target.start(a_release(1), WEIGHTS)

    placement = target.observe("chat").placements["chat-r1"]

    assert (Health.FAILED, "RuntimeError: no such weights") == (placement.health, placement.message)


def test_a_wrong_token_is_told_at_once(settings: RaySettings) -> None:
    """Access is denied without retries and without the token in the message."""
    wrong = settings.model_copy(update={"token": SecretStr("CANARY")})

    with (
        closing(RayTarget(wrong)) as target,
        pytest.raises(AccessDenied, match="SLIPWAY_RAY__TOKEN") as caught,
    ):
        target.observe("chat")

    assert "CANARY" not in str(caught.value)


def test_a_cluster_that_is_down_is_unreachable() -> None:
    """The sentence names the address and the remedy."""
    nowhere = RaySettings(dashboard="http://127.0.0.1:9", serve="http://127.0.0.1:9")

    with (
        stamina.set_testing(True, attempts=2),
        closing(RayTarget(nowhere)) as target,
        pytest.raises(Unreachable, match=r"127.0.0.1:9 does not answer .* `slipway up`"),
    ):
        target.observe("chat")
