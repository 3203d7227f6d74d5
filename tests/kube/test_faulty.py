"""The faults in front of the API server are the ones that were ordered; what is not broken is a real server's."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.kube.control_plane import ADMIN, STRANGER
from tests.kube.fault_kinds import (
    CONFLICT,
    EXPIRED,
    WRITES,
    Answer,
    Delay,
    Duplicated,
    End,
    Fault,
    Faulty,
    Gone,
    LoseReply,
    OnlyBookmarks,
    Reordered,
    Silence,
    Stall,
)

pytestmark = pytest.mark.slow

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def client(faulty_kube: Faulty) -> Iterator[httpx.Client]:
    """Return a client that goes through the proxy."""
    headers = {"Authorization": f"Bearer {faulty_kube.plane.token(ADMIN)}"}
    with httpx.Client(base_url=faulty_kube.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def maps(namespace: str) -> str:
    """Return where the config maps of this test are."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def create(client: httpx.Client, maps: str, name: str, patience_s: float = 30) -> httpx.Response:
    """Ask for a config map."""
    return client.post(maps, json={"metadata": {"name": name}}, timeout=patience_s)


def watch(client: httpx.Client, maps: str, patience_s: float = 30) -> Iterator[dict[str, Any]]:
    """Yield what a watch from the beginning gives in a second."""
    params = {"watch": "1", "resourceVersion": "0", "timeoutSeconds": "1"}
    with client.stream("GET", maps, params=params, timeout=patience_s) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            yield json.loads(line)


def names(events: list[dict[str, Any]]) -> str:
    """Return the events as text: names of objects, and the types of what else there is."""
    return "".join(event["object"]["metadata"].get("name", f"<{event['type']}>") for event in events)


@pytest.fixture
def four(faulty_kube: Faulty, maps: str) -> None:
    """Make four config maps."""
    for name in NAMES:
        create(faulty_kube.plane.admin, maps, name).raise_for_status()


def test_requests_pass_and_are_counted(faulty_kube: Faulty, client: httpx.Client, maps: str) -> None:
    """Without a fault a client meets the API server itself, and each request is noted by Kubernetes' verb."""
    create(client, maps, "a").raise_for_status()
    client.patch(f"{maps}/a", json={"data": {}}, headers={"Content-Type": "application/merge-patch+json"})
    client.get(f"{maps}/a")
    client.get(maps)
    list(watch(client, maps))
    client.delete(f"{maps}/a")
    client.get(maps.rpartition("/")[0])

    seen = [(seen.verb, seen.status) for seen in faulty_kube.asked()]
    assert seen == [("create", 201), *((verb, 200) for verb in ["patch", "get", "list", "watch", "delete", "get"])]


def test_the_api_server_still_says_who_may_do_what(faulty_kube: Faulty, namespace: str, maps: str) -> None:
    """A user's token is passed on."""
    token = json.loads(faulty_kube.kubeconfig(STRANGER, namespace).read_text())["users"][0]["user"]["token"]

    assert httpx.get(faulty_kube.url + maps, headers={"Authorization": f"Bearer {token}"}).status_code == 403
    assert httpx.get(faulty_kube.url + maps).status_code == 401


def test_writes_are_refused_as_often_as_ordered(faulty_kube: Faulty, client: httpx.Client, maps: str) -> None:
    """The next two writes conflict, reads and the third pass, and nothing was written before."""
    faulty_kube.add(CONFLICT, *WRITES, part="configmaps", times=2)

    statuses = [create(client, maps, "a").status_code, client.get(f"{maps}/a").status_code]
    statuses += [create(client, maps, "a").status_code, create(client, maps, "a").status_code]

    assert statuses == [409, 404, 409, 201]


@pytest.mark.parametrize("fault", [Answer(429, "TooManyRequests", 3), Answer(503, "ServiceUnavailable", 3)])
def test_a_throttled_client_is_told_how_long(
    faulty_kube: Faulty, client: httpx.Client, maps: str, fault: Answer
) -> None:
    """The header says after how many seconds to come again."""
    faulty_kube.add(fault, skip=1)

    first, second = client.get(maps), client.get(maps)

    assert (first.status_code, second.status_code) == (200, fault.status)
    assert (second.headers["retry-after"], second.json()["reason"]) == ("3", fault.reason)


@pytest.mark.parametrize(
    ("fault", "applied"), [(LoseReply(), True), (Stall(applied=True), True), (Stall(), False)], ids=repr
)
def test_a_reply_does_not_come(
    faulty_kube: Faulty, client: httpx.Client, maps: str, fault: Fault, applied: bool
) -> None:
    """A write whose reply is lost was applied, and one that was not passed on was not."""
    faulty_kube.add(fault, "create")

    with pytest.raises(httpx.TransportError):
        create(client, maps, "a", patience_s=2)

    assert client.get(f"{maps}/a").is_success == applied


def test_a_reply_comes_late(faulty_kube: Faulty, client: httpx.Client, maps: str) -> None:
    """A slow API server answers after all."""
    faulty_kube.add(Delay(0.3))
    begun = time.monotonic()

    assert client.get(maps).is_success
    assert time.monotonic() - begun >= 0.3


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Gone(), "<ERROR>"),
        (Gone(after=2), "ab<ERROR>"),
        (End(after=3), "abc"),
        (Duplicated(), "aabbccdd"),
        (Reordered(), "badc"),
        (Reordered(size=3), "cbad"),
    ],
    ids=repr,
)
def test_a_watch_gets_what_was_ordered(
    faulty_kube: Faulty, client: httpx.Client, maps: str, fault: Fault, expected: str
) -> None:
    """Each fault changes the events or the end of a watch, and the next watch is whole."""
    faulty_kube.add(fault, part="configmaps")

    assert names(list(watch(client, maps))) == expected
    assert names(list(watch(client, maps))) == "abcd"


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("fault", [End(after=1, clean=False), Silence(after=1)], ids=repr)
def test_a_watch_breaks_off(faulty_kube: Faulty, client: httpx.Client, maps: str, fault: Fault) -> None:
    """One connection is closed amid an event, another says nothing any more."""
    faulty_kube.add(fault)
    events = watch(client, maps, patience_s=2)

    assert names([next(events)]) == "a"
    with pytest.raises((httpx.TransportError, json.JSONDecodeError)):
        next(events)


@pytest.mark.usefixtures("four")
def test_a_watch_is_given_only_bookmarks_for_a_while(faulty_kube: Faulty, client: httpx.Client, maps: str) -> None:
    """They carry the version that the watch began with, and the events come afterwards."""
    faulty_kube.add(OnlyBookmarks(0.25))

    events = list(watch(client, maps))

    bookmarks = [event["object"] for event in events if event["type"] == "BOOKMARK"]
    assert names(events) == "<BOOKMARK>" * len(bookmarks) + "abcd"
    assert {(mark["kind"], mark["metadata"]["resourceVersion"]) for mark in bookmarks} == {("ConfigMap", "0")}


def test_a_watch_can_be_refused_as_too_old(faulty_kube: Faulty, client: httpx.Client, maps: str) -> None:
    """The API server may answer a watch with the status 410, not in its stream."""
    faulty_kube.add(EXPIRED, "watch")

    reply = client.get(maps, params={"watch": "true", "resourceVersion": "1"})

    assert (reply.status_code, reply.json()["reason"]) == (410, "Expired")


def test_the_api_server_learns_that_a_client_of_a_watch_has_gone(
    faulty_kube: Faulty, client: httpx.Client, maps: str
) -> None:
    """A watch that nobody reads does not stay open behind the proxy."""
    since = faulty_kube.plane.audit.position()
    with client.stream("GET", maps, params={"watch": "1", "timeoutSeconds": "600"}) as reply:
        assert reply.is_success
    deadline = time.monotonic() + 10
    while not any(map(ends_a_watch, faulty_kube.plane.audit.path.read_bytes()[since:].splitlines())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ends_a_watch(line: bytes) -> bool:
    """Tell whether a line of the audit log, perhaps half written, says that a watch has ended."""
    return b'"stage":"ResponseComplete"' in line and b'"verb":"watch"' in line
