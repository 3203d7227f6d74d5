"""Releases in a namespace of a real API server, with a double of KubeRay, the kubelet and kube-proxy behind it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from k8s import cluster as module
from k8s.access import Access
from k8s.api import Api
from k8s.cluster import RayServices
from k8s.errors import ApiError, Reason
from k8s.kinds import HTTP_ROUTE, PDB, RAY_SERVICE, SERVICE, Kind, Object
from k8s.rayservice import ray_service
from k8s.reflector import Pace
from k8s.state import Health, ReleaseState
from k8s.workload import Workload
from tests.fakes.engine import Engine
from tests.fakes.kuberay import KubeRay, Trouble
from tests.k8s.matrix import workload
from tests.kube.account import controller
from tests.kube.control_plane import ControlPlane
from tests.kube.fault_kinds import CONFLICT, Faulty, LoseReply

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0
R1, R2, R3 = "chat-r1", "chat-r2", "chat-r3"
LONGEST_S = 3.0


@pytest.fixture
def cluster(kube: ControlPlane, namespace: str) -> Iterator[KubeRay]:
    """Run the double in the test's namespace; a stream of 40 words takes two seconds."""

    def engine(args: dict[str, Any]) -> Engine:
        words = " ".join(["word"] * 40)
        return Engine(
            lambda _: words, args["release"], args["commit"], args["served_model_name"], delay_s=LONGEST_S / 60
        )

    with KubeRay(kube, namespace, engine=engine) as double:
        yield double


@pytest.fixture
def releases(api: Api) -> Iterator[RayServices]:
    """Return what is tested."""
    with closing(RayServices(api)) as tested:
        yield tested


@pytest.fixture
def place(namespace: str) -> Callable[..., Workload]:
    """Return what makes the workload of a release of that number."""

    def made(number: int, spec: str = "cpu", longest_s: float = LONGEST_S) -> Workload:
        whole = workload(spec, number=number, namespace=namespace)
        arguments = {**whole.arguments, "longest_request_s": longest_s}
        return whole.model_copy(update={"arguments": arguments, "longest_s": longest_s})

    return made


Place = Callable[..., Workload]


def until(condition: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def state(releases: RayServices, name: str) -> ReleaseState:
    """Return what is shown of a release."""
    return releases.observe("chat")[name]


def started(releases: RayServices, *workloads: Workload) -> None:
    """Start releases and wait until each is healthy."""
    for one in workloads:
        releases.start(one)
    until(lambda: all(state(releases, one.release).health is Health.HEALTHY for one in workloads))


def answers(url: str) -> str | None:
    """Return which release answers on a new connection."""
    try:
        answer = httpx.get(f"{url}/v1/models", trust_env=False)
    except httpx.TransportError:
        return None
    return answer.headers["x-slipway-release"] if answer.is_success else None


def refused(call: Callable[[], object]) -> Reason:
    """Return why the call is refused."""
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.reason


def merged(api: Api, kind: Kind, name: str, change: Object) -> None:
    """Change an object as a foreign hand would."""
    api.change(kind, name, lambda _: change)


def deleted(api: Api, kind: Kind, name: str) -> None:
    """Delete an object as a foreign hand would."""
    there = api.get(kind, name)
    assert there is not None
    api.delete(kind, name, there["metadata"]["uid"])


def test_a_started_release_answers_at_its_own_address_alone(
    releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """A candidate is reachable, takes no live traffic, and is healthy only when all its pods take requests."""
    started(releases, place(1))

    assert ReleaseState(Health.HEALTHY) == state(releases, R1)
    assert answers(cluster.address(R1)) == R1
    assert answers(cluster.address("chat")) is None


def test_starting_again_changes_nothing_whoever_does_it(
    api: Api, faulty_kube: Faulty, releases: RayServices, place: Place
) -> None:
    """A run that died has left one; a reply that was lost makes no second."""
    faulty_kube.add(LoseReply(), "patch", part=f"rayservices/{R1}")
    releases.start(place(1))
    first = api.get(RAY_SERVICE, R1)

    with closing(RayServices(api)) as another:
        another.start(place(1))

        assert first == api.get(RAY_SERVICE, R1)
        assert [R1] == list(another.observe("chat")), "what was just written is seen at once"


def test_a_start_whose_reply_is_lost_finds_what_the_operator_wrote_since(
    api: Api, kube: ControlPlane, releases: RayServices, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KubeRay adds defaults as soon as it sees a RayService, and they are its own from then on."""
    apply = api.apply

    def again(obj: Object) -> Object:
        made = apply(obj)
        if obj["kind"] != "RayService":
            return made
        config = made["spec"]["rayClusterConfig"]
        config["workerGroupSpecs"][0]["scaleStrategy"] = {}
        where = f"/apis/ray.io/v1/namespaces/{api.namespace}/rayservices/{R1}"
        change = {"spec": {"rayClusterConfig": config}}
        headers = {"content-type": "application/merge-patch+json"}
        kube.admin.patch(where, json=change, headers=headers).raise_for_status()
        return apply(obj)

    monkeypatch.setattr(api, "apply", again)
    releases.start(place(1))

    assert [R1] == list(releases.observe("chat"))


def test_what_is_not_ours_is_left_alone(api: Api, releases: RayServices, place: Place) -> None:
    """Neither a RayService of that name, nor a Service in the place of the live address, is taken over."""
    theirs = ray_service(place(1))
    theirs["metadata"]["labels"] = {"team": "other"}
    api.apply(theirs)
    other = ray_service(place(2).model_copy(update={"arguments": {**place(2).arguments, "engine": {"seed": 1}}}))
    api.apply(other)

    assert Reason.FOREIGN is refused(lambda: releases.start(place(1)))
    assert Reason.FOREIGN is refused(lambda: releases.start(place(2)))
    assert Reason.FOREIGN is refused(lambda: releases.remove("chat", R1))
    assert Reason.FOREIGN is refused(lambda: releases.drain("chat", R1))
    assert api.get(SERVICE, "chat") is None, "and nothing was made beside it"


def test_traffic_moves_and_comes_back(
    faulty_kube: Faulty, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """A conflict is met by looking and deciding again; what takes traffic back drains no more."""
    started(releases, place(1), place(2))
    releases.shift("chat", R1)
    until(lambda: answers(cluster.address("chat")) == R1)

    faulty_kube.add(CONFLICT, "patch", part="/services/chat?", times=2)
    releases.shift("chat", R2)
    assert state(releases, R2).live, "what was just written is seen at once"
    releases.drain("chat", R1)
    until(lambda: answers(cluster.address("chat")) == R2)
    until(lambda: cluster.is_draining() == {R1: True, R2: False})
    until(lambda: state(releases, R1) == ReleaseState(Health.HEALTHY, draining=True))

    releases.shift("chat", R1)
    releases.drain("chat", R2)
    until(lambda: answers(cluster.address("chat")) == R1)
    until(lambda: cluster.is_draining() == {R1: False, R2: True})

    releases.shift("chat", None)
    until(lambda: answers(cluster.address("chat")) is None)
    assert [False, False] == [one.live for one in releases.observe("chat").values()]


def test_conflicts_without_end_are_given_up(
    faulty_kube: Faulty, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """Somebody else writes the Service all the time: nothing is overwritten, and the caller hears of it."""
    started(releases, place(1))
    faulty_kube.add(CONFLICT, "patch", part="/services/chat?", times=None)

    assert Reason.CONFLICT is refused(lambda: releases.shift("chat", R1))
    assert 5 == len(faulty_kube.asked("patch", part="/services/chat?")) - 2, "two were those of the start"
    assert cluster.live("chat") is None


def test_traffic_is_led_to_no_release_that_cannot_take_it(
    releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """A release that is not there, or has no pod yet, would be an outage."""
    started(releases, place(1))
    releases.shift("chat", R1)
    cluster.troubles[R2] = Trouble.IMAGE
    releases.start(place(2))

    assert Reason.NOT_FOUND is refused(lambda: releases.shift("chat", R2))
    assert Reason.NOT_FOUND is refused(lambda: releases.shift("chat", R3))
    assert Reason.INVALID is refused(lambda: releases.shift("chat", R1, 25)), "no Gateway shares its traffic"
    assert state(releases, R1).live


@pytest.mark.parametrize(
    ("order", "expected", "words"),
    [
        (Trouble.IMAGE, Health.FAILED, "cannot be pulled"),
        (Trouble.WORKER_IMAGE, Health.FAILED, "cannot be pulled"),
        (Trouble.CPU, Health.STARTING, "no node has enough cpu"),
        (Trouble.CRASH, Health.FAILED, "has crashed"),
        (Trouble.FAILED, Health.FAILED, "RuntimeError: model load failed on purpose"),
        (Trouble.QUOTA, Health.STARTING, "exceeded quota"),
        (Trouble.DEPLOYING, Health.STARTING, "is DEPLOYING"),
    ],
)
def test_what_keeps_a_release_from_running_is_told(
    releases: RayServices, cluster: KubeRay, place: Place, order: Trouble, expected: Health, words: str
) -> None:
    """The RayService's own status says almost nothing of it."""
    cluster.trouble = order
    releases.start(place(1))

    until(lambda: words in state(releases, R1).message)
    assert expected is state(releases, R1).health


def test_a_status_that_lags_promotes_nothing(releases: RayServices, cluster: KubeRay, place: Place) -> None:
    """Conditions and endpoints are there long before the operator says that they are about this spec."""
    cluster.lag_s[R1] = 3.0
    begun = time.monotonic()

    started(releases, place(1))

    assert time.monotonic() - begun >= 2.5


@pytest.mark.parametrize(("settle_s", "longest_s"), [(0.5, 60.0), (60.0, LONGEST_S)], ids=["quiet", "time is up"])
def test_a_release_leaves_when_its_requests_have_ended(
    api: Api,
    releases: RayServices,
    cluster: KubeRay,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    settle_s: float,
    longest_s: float,
) -> None:
    """It is drained, its stream comes to its end, by its pods' word or after the longest; then all of it goes."""
    monkeypatch.setattr(module, "SETTLE_S", settle_s)
    started(releases, place(1, longest_s=longest_s), place(2))
    releases.shift("chat", R1)
    until(lambda: answers(cluster.address("chat")) == R1)
    stream = Streaming(cluster.address("chat"))
    releases.shift("chat", R2)
    assert Reason.INVALID is refused(lambda: releases.remove("chat", R2)), "it is live"

    def gone() -> bool:
        releases.remove("chat", R1)
        return R1 not in releases.observe("chat")

    until(gone)

    assert "[DONE]" in stream.text()
    assert [None] * 3 == [api.get(kind, R1) for kind in (RAY_SERVICE, SERVICE, PDB)]
    assert [R2] == list(releases.observe("chat"))


def test_a_release_that_never_had_traffic_leaves_at_once(
    releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """A refused candidate gives its GPUs back, whatever the longest generation is; twice is no harm."""
    releases.start(place(1))

    releases.remove("chat", R1)
    releases.remove("chat", R1)

    until(lambda: not releases.observe("chat"), LONGEST_S)
    assert {} == cluster.is_draining()


def test_a_release_that_somebody_deletes_is_gone_and_stays_gone(
    api: Api, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """Its own Service may be left; that is shown until it is removed, and the live release is no worse."""
    started(releases, place(1))
    releases.shift("chat", R1)
    releases.start(place(2))
    cluster.stop_operator()  # which keeps what is left of a RayService from going
    deleted(api, RAY_SERVICE, R2)
    until(lambda: state(releases, R2).health in {Health.REMOVING, Health.FAILED})
    cluster.start_operator()

    def gone() -> bool:
        releases.remove("chat", R2)
        return R2 not in releases.observe("chat")

    until(gone)
    assert ReleaseState(Health.HEALTHY, live=True, share=100) == state(releases, R1)
    assert [None, None] == [api.get(kind, R2) for kind in (RAY_SERVICE, SERVICE)]


def test_edits_and_suspension_are_seen(api: Api, releases: RayServices, cluster: KubeRay, place: Place) -> None:
    """A candidate has failed then; the live release answers on, and says it."""
    started(releases, place(1), place(2))
    releases.shift("chat", R1)
    edit = {"spec": {"rayClusterConfig": {"rayVersion": "2.59.0"}}}

    merged(api, RAY_SERVICE, R1, edit)
    merged(api, RAY_SERVICE, R2, {"spec": {"suspend": True}})

    until(lambda: state(releases, R2).health is Health.FAILED)
    assert "suspended" in state(releases, R2).message
    until(lambda: "rayClusterConfig.rayVersion" in state(releases, R1).message)
    assert Health.HEALTHY is state(releases, R1).health
    assert answers(cluster.address("chat")) == R1


def test_a_selector_that_somebody_moves_is_seen_and_decided_anew(
    api: Api, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """Who is live is what the selector says, whoever wrote it."""
    started(releases, place(1), place(2))
    releases.shift("chat", R1)

    merged(api, SERVICE, "chat", {"spec": {"selector": {"slipway.dev/release": R2, "team": "other"}}})
    until(lambda: not state(releases, R1).live)
    assert Reason.INVALID is refused(lambda: releases.remove("chat", R2)), "it is named in the selector"
    releases.shift("chat", R1)

    assert state(releases, R1).live
    until(lambda: answers(cluster.address("chat")) == R1)


def test_a_live_address_that_was_deleted_comes_back_where_it_led(
    api: Api, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """Nothing is live without it, and starting a candidate does not make that live."""
    started(releases, place(1), place(2))
    releases.shift("chat", R1)
    releases.shift("chat", R2)
    deleted(api, SERVICE, "chat")
    until(lambda: not state(releases, R2).live)
    assert Reason.NOT_FOUND is refused(lambda: releases.shift("chat", R1))

    started(releases, place(3))

    assert {R1: False, R2: True, R3: False} == {name: one.live for name, one in releases.observe("chat").items()}
    until(lambda: answers(cluster.address("chat")) == R2)


def test_an_operator_that_is_down_is_named_and_harms_nobody(
    api: Api, releases: RayServices, cluster: KubeRay, place: Place
) -> None:
    """Traffic moves and comes back without it; only what starts has to wait."""
    started(releases, place(1), place(2))
    releases.shift("chat", R1)
    releases.shift("chat", R2)
    cluster.stop_operator()
    releases.drain("chat", R1)
    releases.start(place(3))

    with closing(RayServices(api, now=lambda: datetime.now(UTC) + timedelta(minutes=1))) as later:
        told = later.observe("chat")
        assert (Health.STARTING, True) == (told[R3].health, "operator does not act" in told[R3].message)
        assert (Health.HEALTHY, True) == (told[R1].health, "operator does not act" in told[R1].message)
    releases.shift("chat", R1)

    until(lambda: answers(cluster.address("chat")) == R1)


def test_an_api_server_that_is_away_passes(api: Api, faulty_kube: Faulty, place: Place) -> None:
    """What was known is shown for some seconds; then the outage is an error that may pass, and does."""
    with closing(RayServices(api, pace=Pace(watch=1.0, pauses=(0.1,), patience=0.3))) as releases:

        def is_away() -> bool:
            try:
                return list(releases.observe("chat")) != [R1]
            except ApiError as error:
                return error.transient

        releases.start(place(1))
        assert not is_away()
        faulty_kube.plane.stop()
        try:
            until(is_away)
        finally:
            faulty_kube.plane.start()

        until(lambda: not is_away())


@pytest.mark.usefixtures("extensions")
def test_a_gateway_shares_traffic(api: Api, releases: RayServices, cluster: KubeRay, place: Place) -> None:
    """By weight, never by one of 0; and each release can be asked for by name."""
    first, second = place(1, "gateway"), place(2, "gateway")
    cluster.gpus = None
    started(releases, first, second)
    releases.shift("chat", R1)

    releases.shift("chat", R2, 25)
    told = releases.observe("chat")
    assert [(75, True), (25, False)] == [(one.share, one.live) for one in told.values()]
    releases.shift("chat", R2)

    route = api.get(HTTP_ROUTE, "chat")
    assert route is not None
    assert [{R2: 100}] == [
        {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
        for rule in route["spec"]["rules"]
        if not any("headers" in match for match in rule["matches"])
    ]
    assert [(0, False), (100, True)] == [(one.share, one.live) for one in releases.observe("chat").values()]
    releases.remove("chat", R1)


@pytest.mark.usefixtures("cluster")
def test_waiting_costs_less_than_a_request_a_second(kube: ControlPlane, namespace: str, place: Place) -> None:
    """However often it is looked; counted in the API server's own log, under the account that it is for."""
    account = controller(kube, namespace)
    with closing(RayServices(Api(Access(namespace, kube.kubeconfig(account))))) as releases:
        started(releases, place(1), place(2))
        releases.shift("chat", R1)
        releases.shift("chat", R2)
        releases.drain("chat", R1)
        since, begun = kube.audit.position(), time.monotonic()
        while time.monotonic() - begun < LONGEST_S - 0.5:
            releases.observe("chat")
            releases.remove("chat", R1)
            time.sleep(0.05)

        seconds = time.monotonic() - begun
        asked = kube.audit.requests(user=account, since=since)
        whole = kube.audit.requests(user=account)

    assert len(asked) <= seconds, [(one.verb, one.uri) for one in asked]
    assert [] == [one.uri for one in whole if one.unbounded]


class Streaming:
    """One streamed answer, read by a thread of its own."""

    def __init__(self, url: str) -> None:
        self._text: list[str] = []
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=[url])
        self._thread.start()
        assert self._begun.wait(DEADLINE_S), "the stream does not begin"

    def text(self) -> str:
        """Return the whole answer, once it has ended."""
        self._thread.join(DEADLINE_S)
        return "\n".join(self._text)

    def _read(self, url: str) -> None:
        body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_S, trust_env=False
        ) as answer:
            for line in answer.iter_lines():
                self._text.append(line)
                self._begun.set()
