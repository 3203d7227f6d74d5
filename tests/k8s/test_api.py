"""Reads and writes against a real API server, alone and with everything that can go wrong on the way."""

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import certifi
import pytest
import stamina

from k8s import access
from k8s import api as module
from k8s.access import Access
from k8s.api import TURNS, Api
from k8s.errors import ApiError, Reason
from k8s.kinds import RAY_SERVICE, SERVICE, Kind, Object
from k8s.watch import Change
from tests.kube.control_plane import ACCOUNT, ADMIN, ControlPlane
from tests.kube.fault_kinds import CONFLICT, EXPIRED, Answer, Fault, Faulty, LoseReply, Silence, Stall

pytestmark = pytest.mark.slow

BUSY = Answer(503, "ServiceUnavailable")
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a silent server be given up soon, and three tries without pauses be enough."""
    monkeypatch.setattr(access, "READ_S", 1.0)
    monkeypatch.setattr(module, "SILENCE_S", 0.5)
    with stamina.set_testing(True, attempts=3):
        yield


def service(name: str = "chat", **selector: str) -> Object:
    """Return a Service that leads nowhere."""
    spec = {"clusterIP": "None", "selector": selector or {"release": "none"}, "ports": [{"name": "h", "port": 8000}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def selector(release: str) -> Object:
    """Return the change that leads a Service to a release."""
    return {"spec": {"selector": {"release": release}}}


def foreign(kube: ControlPlane, namespace: str, change: Object, name: str = "chat", manager: str = "kubectl") -> None:
    """Let somebody else change the Service."""
    place = f"/api/v1/namespaces/{namespace}/services/{name}"
    asked = {"fieldManager": manager}
    kube.admin.patch(place, params=asked, content=json.dumps(change), headers=MERGE).raise_for_status()


def refused(call: Callable[[], object]) -> ApiError:
    """Return the error that the call raises."""
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def account(kube: ControlPlane, namespace: str, **user: Any) -> Access:
    """Return access by a kubeconfig whose user is as given."""
    path = kube.kubeconfig(ADMIN, namespace)
    content = json.loads(path.read_text())
    content["users"][0]["user"] = user
    path.write_text(json.dumps(content))
    return Access(namespace, path)


def test_what_is_applied_is_there_once_and_goes_by_its_uid(api: Api) -> None:
    """Applied twice it is the same object; deleted twice, it is gone; a deletion of another uid leaves it."""
    first = api.apply(service())
    again = api.apply(service())
    api.delete(SERVICE, "chat", "of-another")
    there = api.get(SERVICE, "chat")
    api.delete(SERVICE, "chat", first["metadata"]["uid"])
    api.delete(SERVICE, "chat", first["metadata"]["uid"])

    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    assert there is not None
    assert first["metadata"]["uid"] == there["metadata"]["uid"]
    assert api.get(SERVICE, "chat") is None


def test_a_dry_run_is_checked_and_changes_nothing(api: Api) -> None:
    """The server answers with the object as it would be."""
    shown = api.apply(service(), dry_run=True)

    assert "chat" == shown["metadata"]["name"]
    assert api.get(SERVICE, "chat") is None


@pytest.mark.parametrize(
    ("wrong", "word"), [({"selektor": {}}, "selektor"), ({"ports": "8000"}, "ports"), ({"type": "Nope"}, "Nope")]
)
def test_what_the_schema_does_not_know_is_refused_by_its_name(
    api: Api, faulty_kube: Faulty, wrong: Object, word: str
) -> None:
    """A misspelt field is neither dropped in silence nor taken for a fault of the server, made or changed."""
    spelt = {**service(), "spec": {**service()["spec"], **wrong}}
    made = refused(lambda: api.apply(spelt))
    api.apply(service())
    changed = refused(lambda: api.apply(spelt))

    assert (Reason.INVALID, Reason.INVALID) == (made.reason, changed.reason)
    assert word in str(made)
    assert 3 == len(faulty_kube.asked("patch"))


def test_a_list_comes_in_pages_and_says_what_its_items_are(
    api: Api, faulty_kube: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request has a limit, and the items of all pages are one list with one version."""
    monkeypatch.setattr(module, "PAGE", 2)
    for number in range(5):
        api.apply({**service(f"chat-{number}"), "metadata": {"name": f"chat-{number}", "labels": {"of": "test"}}})
    api.apply(service("other"))
    listing = api.list(SERVICE, "of=test")

    assert [f"chat-{number}" for number in range(5)] == [item["metadata"]["name"] for item in listing.items]
    assert {("v1", "Service")} == {(item["apiVersion"], item["kind"]) for item in listing.items}
    assert 3 == len(faulty_kube.asked("list", part="limit=2"))
    assert all(int(item["metadata"]["resourceVersion"]) <= int(listing.resource_version) for item in listing.items)


def test_a_list_whose_next_page_has_expired_begins_anew(
    api: Api, faulty_kube: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page of an old list is joined to pages of a new one."""
    monkeypatch.setattr(module, "PAGE", 1)
    api.apply(service("chat-1"))
    api.apply(service("chat-2"))
    faulty_kube.add(EXPIRED, "list", part="continue=")

    assert ["chat-1", "chat-2"] == [item["metadata"]["name"] for item in api.list(SERVICE).items]
    assert 4 == len(faulty_kube.asked("list"))


def test_a_field_of_another_manager_is_not_taken(api: Api, kube: ControlPlane) -> None:
    """The conflict is told apart from others, says whose the field is, and changes nothing."""
    api.apply(service(release="chat-r1"))
    foreign(kube, api.namespace, selector("mine"), manager="somebody")
    error = refused(lambda: api.apply(service(release="chat-r1")))
    there = api.get(SERVICE, "chat")

    assert Reason.OWNED is error.reason
    assert "somebody" in str(error)
    assert there is not None
    assert {"release": "mine"} == there["spec"]["selector"]


@pytest.mark.parametrize(
    ("answer", "reason", "transient"),
    [
        (Answer(409, "AlreadyExists"), Reason.EXISTS, False),
        (CONFLICT, Reason.CONFLICT, False),
        (Answer(401, "Unauthorized"), Reason.UNAUTHENTICATED, False),
        (Answer(422, "Invalid"), Reason.INVALID, False),
        (EXPIRED, Reason.EXPIRED, True),
        (Answer(429, "TooManyRequests"), Reason.BUSY, True),
        (Answer(500, "InternalError"), Reason.BUSY, True),
        (Answer(504, "Timeout"), Reason.BUSY, True),
    ],
    ids=lambda value: getattr(value, "value", None),
)
def test_refusals_are_told_apart(
    api: Api, faulty_kube: Faulty, answer: Answer, reason: Reason, *, transient: bool
) -> None:
    """The reason says what to do next; only what may pass is tried again."""
    faulty_kube.add(answer, "patch", times=None)
    error = refused(lambda: api.apply(service()))

    assert (reason, answer.status, transient) == (error.reason, error.status, error.transient)
    tries = {Reason.UNAUTHENTICATED: 2}.get(reason, 3 if transient else 1)
    assert tries == len(faulty_kube.asked("patch"))


def test_a_missing_right_is_named(kube: ControlPlane, namespace: str) -> None:
    """The message holds the account, the verb, the resource and the namespace; the remedy the Role."""
    user = f"{ACCOUNT}{namespace}:nobody"
    client = Api(Access(namespace, kube.kubeconfig(user)))
    try:
        error = refused(lambda: client.apply(service()))
    finally:
        client.close()

    assert Reason.FORBIDDEN is error.reason
    assert all(word in str(error) for word in (user, "cannot patch", "services", namespace))
    assert "Role in k8s/" in error.remedy


def test_a_kind_and_a_namespace_that_are_missing_are_told_apart(api: Api, kube: ControlPlane) -> None:
    """An absent object is None; a kind that nobody installed and a namespace that nobody made are errors."""
    client = Api(Access("nowhere", kube.kubeconfig(ADMIN)))
    try:
        nowhere = refused(lambda: client.apply(service()))
    finally:
        client.close()
    unknown = refused(lambda: api.get(Kind("nobody.example/v1", "Thing", "things"), "x"))

    assert api.get(RAY_SERVICE, "chat-r1") is None
    assert Reason.NOT_FOUND is nowhere.reason
    assert '"nowhere" not found' in str(nowhere)
    assert Reason.NOT_SERVED is unknown.reason


@pytest.mark.parametrize("fault", [BUSY, Answer(429, "TooManyRequests"), Stall(), LoseReply()], ids=str)
def test_what_passes_is_not_noticed(api: Api, faulty_kube: Faulty, fault: Fault) -> None:
    """Reads and writes are tried again, a few times."""
    for verb in ("patch", "get", "list", "delete"):
        faulty_kube.add(fault, verb)
    made = api.apply(service())

    assert api.get(SERVICE, "chat") == made
    assert 1 == len(api.list(SERVICE).items)
    api.delete(SERVICE, "chat", made["metadata"]["uid"])
    assert api.get(SERVICE, "chat") is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_to_come_back_is_obeyed(api: Api, faulty_kube: Faulty, status: int) -> None:
    """Neither earlier, nor at all where that is too far away."""
    with stamina.set_testing(False):
        faulty_kube.add(Answer(status, "TooManyRequests", retry_after=2), "get")
        began = time.monotonic()
        api.get(SERVICE, "chat")
        waited = time.monotonic() - began
        faulty_kube.clear()
        faulty_kube.add(Answer(status, "TooManyRequests", retry_after=3600), "get", times=None)
        error = refused(lambda: api.get(SERVICE, "chat"))

    assert waited >= 2
    assert 3600 == error.retry_after
    assert 1 == len(faulty_kube.asked("get"))


def test_a_server_that_has_just_come_back_may_refuse_for_a_moment(api: Api, faulty_kube: Faulty) -> None:
    """It answers before it has read its roles; at any other time a 403 is the last word."""
    forbidden = Answer(403, "Forbidden")
    faulty_kube.add(forbidden, "get")
    error = refused(lambda: api.get(SERVICE, "chat"))
    faulty_kube.add(LoseReply(), "get")
    faulty_kube.add(forbidden, "get")

    assert api.get(SERVICE, "chat") is None
    assert Reason.FORBIDDEN is error.reason
    assert [403, 0, 403, 404] == [seen.status for seen in faulty_kube.asked("get")]


@pytest.mark.parametrize("fault", [LoseReply(), Stall(applied=True)], ids=str)
def test_a_lost_reply_makes_nothing_twice_and_undoes_nothing(
    api: Api, kube: ControlPlane, faulty_kube: Faulty, fault: Fault
) -> None:
    """What was written before the connection broke counts once; what others wrote since stays."""
    faulty_kube.add(fault, "patch")
    made = api.apply(service())
    faulty_kube.add(fault, "patch")
    moved = api.patch(SERVICE, "chat", selector("chat-r2"), made["metadata"]["resourceVersion"])
    foreign(kube, api.namespace, {"metadata": {"labels": {"of": "others"}}})
    faulty_kube.add(fault, "patch")
    changed = api.change(SERVICE, "chat", lambda there: _unless_there(there, "chat-r3"))

    assert {"release": "chat-r2"} == moved["spec"]["selector"]
    assert ({"release": "chat-r3"}, {"of": "others"}) == (changed["spec"]["selector"], changed["metadata"]["labels"])
    assert made["metadata"]["uid"] == changed["metadata"]["uid"]
    assert 6 == len(faulty_kube.asked("patch"))


def test_a_lost_reply_is_no_excuse_when_somebody_else_was_first(
    api: Api, kube: ControlPlane, faulty_kube: Faulty
) -> None:
    """A write that was not applied before another's is a conflict, not a success."""
    made = api.apply(service())
    foreign(kube, api.namespace, selector("others"))
    faulty_kube.add(LoseReply(), "patch")
    version = made["metadata"]["resourceVersion"]

    assert Reason.CONFLICT is refused(lambda: api.patch(SERVICE, "chat", selector("chat-r2"), version)).reason


@pytest.mark.parametrize(("times", "wins"), [(1, True), (TURNS - 1, True), (TURNS, False), (50, False)])
def test_a_change_is_decided_again_after_every_other_writer(
    api: Api, kube: ControlPlane, times: int, *, wins: bool
) -> None:
    """Another write between reading and writing is seen by the next decision, up to a limit."""
    api.apply(service())
    seen: list[str] = []

    def decide(there: Object) -> Object:
        seen.append(there["metadata"].get("labels", {}).get("turn", ""))
        if len(seen) <= times:
            foreign(kube, api.namespace, {"metadata": {"labels": {"turn": str(len(seen))}}})
        return selector("chat-r2")

    with stamina.set_testing(True, attempts=TURNS):
        error = None if wins and api.change(SERVICE, "chat", decide) else refused(
            lambda: api.change(SERVICE, "chat", decide)
        )  # fmt: skip
    there = api.get(SERVICE, "chat")

    assert ["", *map(str, range(1, min(times, TURNS - 1) + 1))] == seen
    assert there is not None
    assert {"turn": str(min(times, TURNS))} == there["metadata"]["labels"]
    assert ("chat-r2" if wins else "none") == there["spec"]["selector"]["release"]
    assert error is None or error.reason is Reason.CONFLICT


def test_a_change_of_what_is_gone_or_needs_none_writes_nothing(api: Api, faulty_kube: Faulty) -> None:
    """Nothing is made again that somebody deleted."""
    gone = refused(lambda: api.change(SERVICE, "chat", lambda _: selector("x")))
    made = api.apply(service())
    kept = api.change(SERVICE, "chat", lambda _: None)

    assert Reason.NOT_FOUND is gone.reason
    assert made["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]
    assert 1 == len(faulty_kube.asked("patch"))


def test_a_server_that_is_away_or_silent_is_transient(api: Api, kube: ControlPlane, faulty_kube: Faulty) -> None:
    """The message names the server; nothing waits for ever."""
    away = Api(Access("llm", kube.kubeconfig(ADMIN, url="https://127.0.0.1:1")))
    try:
        error = refused(lambda: away.list(SERVICE, patient=False))
    finally:
        away.close()
    faulty_kube.add(Stall(), times=None)
    began = time.monotonic()
    silent = refused(lambda: api.list(SERVICE, patient=False))

    assert (Reason.UNREACHABLE, True) == (error.reason, error.transient)
    assert "127.0.0.1:1 does not answer" in str(error)
    assert Reason.UNREACHABLE is silent.reason
    assert time.monotonic() - began < 5


def test_a_certificate_that_is_not_trusted_is_a_matter_of_configuration(kube: ControlPlane, namespace: str) -> None:
    """Waiting does not mend it."""
    path = kube.kubeconfig(ADMIN)
    content = json.loads(path.read_text())
    content["clusters"][0]["cluster"]["certificate-authority"] = certifi.where()
    path.write_text(json.dumps(content))
    client = Api(Access(namespace, path))
    try:
        error = refused(lambda: client.get(SERVICE, "chat"))
    finally:
        client.close()

    assert Reason.MISCONFIGURED is error.reason
    assert "certificate" in str(error)


def test_a_token_file_is_read_again_when_the_token_is_refused(
    kube: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """A token that was renewed in its file is used without a new client; no token is in an error."""
    file = tmp_path / "token"
    file.write_text("CANARY\n")
    client = Api(account(kube, namespace, tokenFile=str(file)))
    try:
        error = refused(lambda: client.get(SERVICE, "chat"))
        file.write_text(kube.token(ADMIN))
        there = client.get(SERVICE, "chat")
    finally:
        client.close()

    assert Reason.UNAUTHENTICATED is error.reason
    assert "CANARY" not in "".join(traceback.format_exception(error))
    assert there is None


def test_an_exec_plugin_is_asked_again_when_its_token_is_refused(
    kube: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """As `aws eks get-token` is: what it prints is used until refused; when it fails later, that may pass."""
    printed = tmp_path / "printed"
    version = "client.authentication.k8s.io/v1"

    def prints(token: str) -> None:
        credential = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}
        printed.write_text(json.dumps(credential))

    prints("CANARY")
    plugin = {"apiVersion": version, "command": "cat", "args": [str(printed)], "interactiveMode": "Never"}
    client = Api(account(kube, namespace, exec=plugin))
    try:
        error = refused(lambda: client.get(SERVICE, "chat"))
        printed.unlink()
        late = refused(lambda: client.get(SERVICE, "chat"))
        prints(kube.token(ADMIN))
        there = client.get(SERVICE, "chat")
    finally:
        client.close()

    assert Reason.UNAUTHENTICATED is error.reason
    assert late.transient
    assert "cat, which" in str(late)
    assert there is None


def test_one_client_serves_many_threads(api: Api) -> None:
    """Answers are not mixed up, also with more threads than kept connections."""

    def own(number: int) -> bool:
        name = f"chat-{number}"
        made = api.apply(service(name, release=name))
        return all(api.get(SERVICE, name) == made for _ in range(3))

    with ThreadPoolExecutor(24) as threads:
        assert [True] * 48 == list(threads.map(own, range(48)))


def test_a_watch_tells_what_happened_since_a_list(api: Api) -> None:
    """Made, changed and deleted, in this order."""
    listing = api.list(SERVICE)
    made = api.apply(service())
    api.patch(SERVICE, "chat", selector("chat-r2"), made["metadata"]["resourceVersion"])
    api.delete(SERVICE, "chat", made["metadata"]["uid"])
    told = [event.change for event in api.watch(SERVICE, listing.resource_version, timeout_s=2)]

    assert [Change.ADDED, Change.MODIFIED, Change.DELETED] == [change for change in told if change != Change.BOOKMARK]


def test_a_silent_watch_ends_by_itself(api: Api, faulty_kube: Faulty) -> None:
    """A connection that died without a word is noticed."""
    faulty_kube.add(Silence())
    began = time.monotonic()
    error = refused(lambda: list(api.watch(SERVICE, api.list(SERVICE).resource_version, timeout_s=1)))

    assert Reason.UNREACHABLE is error.reason
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("direct", [True, False])
def test_a_watch_is_ended_from_another_thread(api: Api, kube: ControlPlane, *, direct: bool) -> None:
    """Whoever reads it goes on at once, with TLS and without."""
    client = Api(Access(api.namespace, kube.kubeconfig(ADMIN))) if direct else api
    try:
        stream = client.watch(SERVICE, client.list(SERVICE).resource_version)
        threading.Timer(0.5, stream.close).start()
        began = time.monotonic()
        told = list(stream)
    finally:
        client.close()

    assert [] == told
    assert time.monotonic() - began < 5


def _unless_there(there: Object, release: str) -> Object | None:
    return None if there["spec"]["selector"] == {"release": release} else selector(release)
