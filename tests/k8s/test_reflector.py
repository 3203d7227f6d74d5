"""A picture of a namespace that is right whatever becomes of the watch, and cheap whatever becomes of the server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from k8s import api as module
from k8s.api import Api
from k8s.errors import ApiError, Reason
from k8s.kinds import SERVICE_ACCOUNT, Object
from k8s.reflector import Pace, Reflector
from tests.kube.control_plane import ControlPlane
from tests.kube.fault_kinds import (
    EXPIRED,
    Answer,
    Duplicated,
    End,
    Fault,
    Faulty,
    Gone,
    OnlyBookmarks,
    Reordered,
    Silence,
)

pytestmark = pytest.mark.slow

FAST = Pace(watch=2, list_again=3, steady=0.5, pauses=(0.05, 0.1, 0.2, 0.5), patience=3)
SOON_S = 20.0


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.5)


@contextmanager
def reflecting(api: Api, pace: Pace | None = None) -> Iterator[Reflector]:
    """Run a reflector of the service accounts that tests make."""
    reflector = Reflector(api, SERVICE_ACCOUNT, "of=test", pace=pace)
    try:
        yield reflector
    finally:
        reflector.close()


def soon(call: Callable[[], Any], deadline_s: float = SOON_S) -> bool:
    """Say whether the call returns something true before the deadline."""
    until = time.monotonic() + deadline_s
    while not call():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Others:
    """What somebody else does to the namespace, past every fault."""

    def __init__(self, kube: ControlPlane, namespace: str) -> None:
        self._admin, self._place = kube.admin, f"/api/v1/namespaces/{namespace}/serviceaccounts"

    def make(self, name: str) -> None:
        """Make an object."""
        made = {"metadata": {"name": name, "labels": {"of": "test", "turn": "0"}}}
        self._admin.post(self._place, json=made).raise_for_status()

    def turn(self, name: str, turn: int) -> None:
        """Change it."""
        change = {"metadata": {"labels": {"turn": str(turn)}}}
        headers = {"Content-Type": "application/merge-patch+json"}
        self._admin.patch(f"{self._place}/{name}", json=change, headers=headers).raise_for_status()

    def delete(self, name: str) -> None:
        """Delete it."""
        self._admin.delete(f"{self._place}/{name}").raise_for_status()

    def live(self) -> None:
        """Do a bit of everything."""
        for name in ("a", "b", "c"):
            self.make(name)
        for number in range(1, 4):
            self.turn("a", number)
        self.delete("b")
        self.delete("c")
        self.make("c")
        self.turn("c", 9)


def turns(reflector: Reflector) -> dict[str, str]:
    """Return what a reader would decide on: which objects there are, and what they say."""
    return {name: item["metadata"]["labels"]["turn"] for name, item in reflector.snapshot().objects.items()}


def listed(api: Api) -> dict[str, Object]:
    """Return what polling shows."""
    return {item["metadata"]["name"]: item for item in api.list(SERVICE_ACCOUNT, "of=test").items}


FAULTS = [
    Gone(),
    Gone(after=2),
    EXPIRED,
    Answer(503, "ServiceUnavailable", retry_after=1),
    Answer(403, "Forbidden"),
    End(),
    End(after=2),
    End(after=2, clean=False),
    Silence(),
    Silence(after=2),
    OnlyBookmarks(1.0),
    OnlyBookmarks(30.0),
    Duplicated(),
    Reordered(3),
]


@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_whatever_becomes_of_the_watch_a_reader_sees_what_polling_shows(
    api: Api, kube: ControlPlane, faulty_kube: Faulty, fault: Fault, times: int | None
) -> None:
    """Objects that were made, changed, deleted and made again are known, with one broken watch or with no other."""
    others = Others(kube, api.namespace)
    others.make("before")
    faulty_kube.add(fault, "watch", times=times)
    with reflecting(api, FAST) as reflector:
        assert ["before"] == list(reflector.snapshot().objects)
        others.live()

        assert soon(lambda: turns(reflector) == {"before": "0", "a": "3", "c": "9"})
        others.delete("before")

        assert soon(lambda: "before" not in turns(reflector))
        assert listed(api) == reflector.snapshot().objects


@pytest.mark.parametrize(
    ("fault", "verbs"),
    [
        (Gone(), ("watch",)),
        (EXPIRED, ("watch",)),
        (Answer(403, "Forbidden"), ("watch",)),
        (End(), ("watch",)),
        (Answer(503, "ServiceUnavailable"), ("list", "watch")),
        (EXPIRED, ("list", "watch")),
    ],
    ids=str,
)
def test_a_server_that_fails_is_not_hammered(
    api: Api, faulty_kube: Faulty, fault: Fault, verbs: tuple[str, ...]
) -> None:
    """At most 24 requests in a minute, however quickly they fail; here a minute lasts three seconds."""
    usual = Pace()
    faster = Pace(steady=usual.steady / 20, pauses=tuple(pause / 20 for pause in usual.pauses))
    faulty_kube.add(fault, *verbs, times=None)
    with reflecting(api, faster):
        began = time.monotonic()
        assert soon(lambda: time.monotonic() - began > 3)

    asked = [seen for seen in faulty_kube.asked() if seen.at < began + 3]
    assert 4 <= len(asked) <= 24


def test_a_quiet_namespace_costs_one_list_and_one_watch(api: Api, faulty_kube: Faulty) -> None:
    """Nothing is asked while nothing happens."""
    with reflecting(api) as reflector:
        assert {} == reflector.snapshot().objects
        began = time.monotonic()
        assert soon(lambda: time.monotonic() - began > 3)

        assert ["list", "watch"] == [seen.verb for seen in faulty_kube.asked()]
        assert "limit=" in faulty_kube.asked("list")[0].place


def test_a_quiet_server_is_not_taken_for_a_silent_one(api: Api, faulty_kube: Faulty) -> None:
    """A watch may come to its end without a word; the next one goes on where it began."""
    quiet = Pace(watch=1, list_again=60, steady=0.5, pauses=(0.05,), patience=0.1)
    with reflecting(api, quiet) as reflector:
        assert {} == reflector.snapshot().objects
        assert soon(lambda: len(faulty_kube.asked("watch")) == 4 and reflector.snapshot())

        assert 1 == len(faulty_kube.asked("list"))


def test_a_reader_learns_that_the_server_is_away_and_that_it_is_back(
    api: Api, kube: ControlPlane, faulty_kube: Faulty
) -> None:
    """For a moment what was known still counts; then the reason is raised, until a list succeeds."""
    others = Others(kube, api.namespace)
    with reflecting(api, FAST) as reflector:
        assert {} == reflector.snapshot().objects
        faulty_kube.add(Answer(503, "ServiceUnavailable"), times=None)

        assert soon(lambda: _error(reflector) is not None)
        error = _error(reflector)
        assert error is not None
        assert (Reason.BUSY, True) == (error.reason, error.transient)
        others.make("late")
        faulty_kube.clear()

        assert soon(lambda: _error(reflector) is None)
        assert ["late"] == list(reflector.snapshot().objects)
        assert reflector.snapshot().age_s < 1


def test_a_first_list_that_fails_is_told_at_once(api: Api, faulty_kube: Faulty) -> None:
    """A missing right does not look like an empty namespace."""
    faulty_kube.add(Answer(403, "Forbidden"), times=None)
    with reflecting(api) as reflector:
        error = _error(reflector)

    assert error is not None
    assert Reason.FORBIDDEN is error.reason


def test_an_own_write_is_seen_at_once(api: Api, faulty_kube: Faulty) -> None:
    """Nobody decides on what was before an own write because the watch is slow; an older event does not undo it."""
    faulty_kube.add(Silence(), times=None)
    with reflecting(api) as reflector:
        assert {} == reflector.snapshot().objects
        metadata = {"name": "mine", "labels": {"of": "test", "turn": "1"}}
        made = api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        reflector.put(made)
        change = {"metadata": {"labels": {"turn": "2"}}}
        moved = api.patch(SERVICE_ACCOUNT, "mine", change, made["metadata"]["resourceVersion"])
        reflector.put(moved)
        reflector.put(made)

        assert {"mine": "2"} == turns(reflector)


def test_closing_ends_the_thread_in_the_middle_of_a_watch(api: Api) -> None:
    """No thread outlives its reflector, and nobody waits for a quiet watch."""
    with reflecting(api) as reflector:
        assert {} == reflector.snapshot().objects
        began = time.monotonic()

    assert time.monotonic() - began < 2
    assert not [thread for thread in threading.enumerate() if thread.name == "reflector-serviceaccounts"]


def _error(reflector: Reflector) -> ApiError | None:
    try:
        reflector.snapshot()
    except ApiError as error:
        return error
    return None
