"""What becomes of a pinned commit at its Hub is noticed, and what cannot be asked is no finding."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import stamina

from tasks._stores.store import Store
from tasks._weights.hub import Hub, RepositoryFacts
from tasks._weights.layout import manifest_key
from tasks._weights.references import Reference
from tasks._weights.upstream import Finding, FindingKind, Pin, Seen, judge, pins, watch
from tasks.local import ports
from tasks.local.hub.publishing import set_ref
from tasks.local.hub.repositories import repository_folder
from tasks.records import Manifest
from tests.fakes.commits import put_commit
from tests.fakes.hubs import MODEL, RunningHub, write_model

A, B = ("a" * 40, "b" * 40)
PIN = Pin(model=MODEL, commit=A, ref="main", hub="http://hub.invalid", used=("live in chat",))
MANIFEST = Manifest(
    model=MODEL, commit=A, source=PIN.hub, created_at=datetime.now(UTC), files=(), license="apache-2.0"
)


def facts(
    commit: str = A, *, model: str = MODEL, licence: str | None = "apache-2.0", gated: bool = False
) -> RepositoryFacts:
    """Return what a Hub says of the repository."""
    return RepositoryFacts(model=model, commit=commit, license=licence, gated=gated)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(Seen(facts(), facts()), [], id="nothing new"),
        pytest.param(Seen(None, None), [FindingKind.VANISHED], id="repository gone"),
        pytest.param(Seen(None, facts(B)), [FindingKind.VANISHED], id="commit gone"),
        pytest.param(Seen(facts(), None), [FindingKind.VANISHED], id="ref gone"),
        pytest.param(Seen(facts(), facts(B)), [FindingKind.AHEAD], id="ref went on"),
        pytest.param(Seen(facts(), facts(B), is_ancestor=False), [FindingKind.FORCE_PUSHED], id="ref rewritten"),
        pytest.param(
            Seen(facts(model="acme/new"), facts(model="acme/new")), [FindingKind.MOVED], id="repository renamed"
        ),
        pytest.param(Seen(facts(model="Acme/Tiny"), facts(model="Acme/Tiny")), [], id="other case is no other name"),
        pytest.param(Seen(facts(gated=True), facts(gated=True)), [FindingKind.GATED], id="gated"),
        pytest.param(Seen(facts(), facts(licence="mit")), [FindingKind.LICENCE_CHANGED], id="licence changed"),
        pytest.param(Seen(facts(), facts(licence=None)), [FindingKind.LICENCE_CHANGED], id="licence gone"),
        pytest.param(
            Seen(facts(), facts(B, licence="mit", gated=True)),
            [FindingKind.AHEAD, FindingKind.GATED, FindingKind.LICENCE_CHANGED],
            id="several at once",
        ),
    ],
)
def test_each_change_is_one_finding(seen: Seen, expected: list[FindingKind]) -> None:
    """The commit, its ref, the name, and the terms are compared with what was mirrored."""
    assert expected == [kind for kind, _ in judge(PIN, MANIFEST, seen)]


@pytest.mark.parametrize(
    "manifest", [None, MANIFEST.model_copy(update={"version": 1, "license": None})], ids=["none", "version 1"]
)
def test_terms_that_were_not_recorded_have_not_changed(manifest: Manifest | None) -> None:
    """Without a manifest, or with one that knew no licence, there is nothing to compare with."""
    assert [] == list(judge(PIN, manifest, Seen(facts(gated=True), facts(licence="mit", gated=True))))


def test_terms_that_were_so_when_mirrored_are_no_news() -> None:
    """A repository that was gated then, and is now, is left alone."""
    manifest = MANIFEST.model_copy(update={"gated": True})
    assert [] == list(judge(PIN, manifest, Seen(facts(gated=True), facts(gated=True))))


def test_a_commit_in_use_twice_is_one_pin() -> None:
    """Uses of one commit by one ref of one Hub are told together; another ref or Hub is another pin."""
    wanted = [
        Reference(model=MODEL, commit=A, ref=ref, hub=hub, why=why)
        for ref, hub, why in (
            ("main", "http://one", "live in chat"),
            ("main", "http://one", "previous in search"),
            ("dev", "http://one", "live in draft"),
            ("main", "http://two", "live in other"),
        )
    ]

    assert [
        ("dev", "http://one", ("live in draft",)),
        ("main", "http://one", ("live in chat", "previous in search")),
        ("main", "http://two", ("live in other",)),
    ] == [(pin.ref, pin.hub, pin.used) for pin in pins(wanted)]


@pytest.fixture
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=2):
        yield


class Upstream:
    """A model with two commits on a real Hub, the first of which is pinned."""

    def __init__(self, server: RunningHub, store: Store, folder: Path) -> None:
        self.server, self.store, self._folder = server, store, folder
        self.first = server.publish(write_model(folder, seed=1, sizes=(200,)))
        put_commit(store, self.first)

    def go_on(self, **options: bool) -> str:
        """Publish another commit."""
        return self.server.publish(write_model(self._folder, seed=2, sizes=(200,)), **options)

    def watch(self, commit: str = "", ref: str = "main") -> tuple[Finding, ...]:
        """Return what is found of a pin, the first commit's by default."""
        pin = Pin(model=MODEL, commit=commit or self.first, ref=ref, hub=self.server.endpoint, used=("live in chat",))
        return watch(Hub, self.store, [pin])

    def kinds(self, commit: str = "", ref: str = "main") -> list[FindingKind]:
        """Return the kinds of what is found of a pin."""
        return [one.kind for one in self.watch(commit, ref)]


@pytest.fixture
def upstream(server: RunningHub, store: Store, tmp_path: Path, _no_waits: None) -> Upstream:
    """Return a model whose only commit is mirrored."""
    return Upstream(server, store, tmp_path / "model")


@pytest.mark.slow
def test_a_ref_that_goes_on_or_back_is_told_apart(upstream: Upstream) -> None:
    """A new commit is news; a branch that was set back no longer leads to what it led to."""
    assert [] == upstream.kinds()
    second = upstream.go_on()
    assert [FindingKind.AHEAD] == upstream.kinds()
    assert [] == upstream.kinds(second)
    assert [] == upstream.kinds(ref=upstream.first)

    set_ref(upstream.server.root, MODEL, "main", upstream.first)

    (found,) = upstream.watch(second)
    assert FindingKind.FORCE_PUSHED is found.kind
    assert second[:12] in found.what


@pytest.mark.slow
def test_what_is_gone_is_told_as_far_as_it_is_gone(upstream: Upstream) -> None:
    """The branch, the commit, or the whole repository."""
    assert [FindingKind.VANISHED] == upstream.kinds(ref="dev")
    upstream.go_on()
    gone = (404, {"x-error-code": "RevisionNotFound"})
    upstream.server.faults.refusals[f"/revision/{upstream.first}"] = gone
    (found,) = upstream.watch()
    assert (FindingKind.VANISHED, True) == (found.kind, upstream.first[:12] in found.what)

    shutil.rmtree(repository_folder(upstream.server.root, MODEL))

    (found,) = upstream.watch()
    assert (FindingKind.VANISHED, True) == (found.kind, MODEL in found.what)


@pytest.mark.slow
def test_other_terms_and_names_are_told(upstream: Upstream) -> None:
    """A repository that is gated now, or called otherwise, is still the one that was mirrored."""
    upstream.go_on(gated=True)
    assert [FindingKind.AHEAD, FindingKind.GATED] == upstream.kinds()

    upstream.server.faults.renamed["acme/old"] = MODEL
    pin = Pin(model="acme/old", commit=upstream.first, ref=upstream.first, hub=upstream.server.endpoint, used=())
    (found,) = watch(Hub, upstream.store, [pin])
    assert FindingKind.MOVED is found.kind
    assert MODEL in found.what


@pytest.mark.slow
def test_what_cannot_be_asked_is_unknown_and_hinders_nothing(upstream: Upstream, store: Store) -> None:
    """A Hub that is down, or a manifest that cannot be read, is told of its own pin; the others are looked at."""
    lost, dead = "e" * 40, f"http://{ports.HOST}:{ports.choose()}"
    store.put_if(manifest_key(MODEL, lost), b"{}", expect=None)
    upstream.go_on()
    watched = [
        Pin(model=MODEL, commit=commit, ref="main", hub=hub, used=("live in chat",))
        for commit, hub in (
            (upstream.first, dead),
            (lost, upstream.server.endpoint),
            (upstream.first, upstream.server.endpoint),
        )
    ]

    found = watch(Hub, store, watched)

    assert [FindingKind.UNKNOWN, FindingKind.UNKNOWN, FindingKind.AHEAD] == [one.kind for one in found]
    assert dead in found[0].what
    assert watched == [one.pin for one in found]
