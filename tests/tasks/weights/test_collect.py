"""Garbage goes, and nothing that is wanted ever does, whatever happens meanwhile."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks._clock import Clock
from tasks._release.journal import read_records
from tasks._stores.store import Store, open_store
from tasks._weights.channels import move_channel
from tasks._weights.claims import Claim, HeldClaim, read_claim, take_claim
from tasks._weights.collect import collect
from tasks._weights.garbage import Action, Marks
from tasks._weights.hub import Hub
from tasks._weights.layout import MARKS, MIRRORING, claim_key, manifest_key, weights_key
from tasks._weights.manifests import read_manifest
from tasks._weights.mirror import mirror
from tasks._weights.verify import verify
from tasks.errors import Conflict, IntegrityError
from tasks.settings import StoreSettings
from tasks.spec import Limits
from tests.fakes.commits import (
    FILES,
    MODEL,
    begin_upload,
    on_its_way,
    put_commit,
    put_files,
    release,
    write_record,
)
from tests.fakes.hubs import RunningHub, write_model

A, B, C, D, E = ("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
SIZE = sum(len(data) for data in FILES.values())
KILL_DEADLINE_S = 30


class Later(Clock):
    """A clock that is days ahead."""

    def __init__(self, days: float) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        """Return the time then."""
        return super().now() + self._ahead


def swept(store: Store, days: float, *, delete: bool = True) -> dict[str, Action]:
    """Collect ``days`` from now and return what became of each commit."""
    found = collect(store, delete=delete, clock=Later(days))
    return {decision.commit: decision.action for decision in found.decisions}


def keys(store: Store, folder: str = "") -> set[str]:
    """Return the keys of all objects."""
    return {item.key for item in store.list(folder)}


def test_an_unwanted_commit_is_marked_and_after_the_grace_deleted(any_store: Store) -> None:
    """Two collections, the grace apart; in between it can still be wanted again, which begins the grace anew."""
    put_commit(any_store, A)

    assert {A: Action.MARK} == swept(any_store, 0)
    assert {A: Action.KEEP} == swept(any_store, 6.9)
    write_record(any_store, live=release(A))
    assert {A: Action.KEEP} == swept(any_store, 8)
    write_record(any_store)
    assert {A: Action.MARK} == swept(any_store, 9)
    assert {A: Action.KEEP} == swept(any_store, 15)
    assert {A: Action.DELETE} == swept(any_store, 16.1)

    assert {MARKS, "services/chat/record.json"} == keys(any_store)
    assert {} == swept(any_store, 30)
    assert Marks() == Marks.from_json((any_store.get(MARKS) or (b"", ""))[0])


def test_what_is_wanted_stays_for_ever(any_store: Store) -> None:
    """Live, previous, on its way, kept warm, or what a ref points to, in any service."""
    manifests = {commit: put_commit(any_store, commit) for commit in (A, B, C, D, E)}
    write_record(any_store, live=release(A), previous=release(B))
    write_record(any_store, "search", current=on_its_way(C, kept_warm=release(D, service="search")))
    move_channel(any_store, "main", manifests[E], resolved_at=NOW)

    for days in (0, 10, 20, 400):
        assert dict.fromkeys((A, B, C, D, E), Action.KEEP) == swept(any_store, days)

    assert all(verify(any_store, MODEL, commit, deep=True).whole for commit in manifests)
    assert ["chat", "search"] == [record.service for record in read_records(any_store)]


def test_a_dry_run_says_what_would_go_and_touches_nothing(any_store: Store) -> None:
    """Without `delete` neither marks are written nor anything deleted, and the bytes are told."""
    put_commit(any_store, A)
    put_files(any_store, B)
    before = keys(any_store)

    found = collect(any_store, delete=False, clock=Later(10))

    assert {A: Action.MARK, B: Action.DELETE} == {one.commit: one.action for one in found.decisions}
    assert (True, SIZE) == (found.dry, found.deleted_bytes)
    assert found.kept_bytes > SIZE
    assert SIZE == json.loads(found.to_json())["deleted_bytes"]
    assert before == keys(any_store)


def test_an_unfinished_mirror_is_swept_whole(any_store: Store) -> None:
    """Objects, open uploads and the claim go together, once nobody has gone on with it for the grace."""
    put_files(any_store, A)
    held = take_claim(any_store, MODEL, A)
    assert isinstance(held, HeldClaim)
    begin_upload(any_store, f"{weights_key(MODEL, A)}/large")

    assert {A: Action.KEEP} == swept(any_store, 8), "its holder lives"
    let_go(any_store)
    assert {A: Action.KEEP} == swept(any_store, 6)
    assert {A: Action.DELETE} == swept(any_store, 8)

    assert {MARKS} >= keys(any_store)
    assert [] == list(any_store.open_uploads("models"))


def let_go(store: Store) -> None:
    """Let the claim of ``A`` look as one whose holder has died."""
    found = store.get(claim_key(MODEL, A))
    assert found
    store.put_if(
        claim_key(MODEL, A),
        Claim.from_json(found[0]).model_copy(update={"held": False}).to_json(),
        expect=found[1],
    )


def test_leftovers_beside_a_published_commit_are_swept(any_store: Store) -> None:
    """An upload that was never completed and a claim that nobody finished go; the commit stays whole."""
    put_commit(any_store, A)
    write_record(any_store, live=release(A))
    begin_upload(any_store, f"{weights_key(MODEL, A)}/model.safetensors")
    take_claim(any_store, MODEL, A)
    let_go(any_store)

    assert {A: Action.KEEP} == swept(any_store, 6)
    assert [f"{weights_key(MODEL, A)}/model.safetensors"] == [one.key for one in any_store.open_uploads("models")]
    assert {A: Action.KEEP} == swept(any_store, 8)

    assert [] == list(any_store.open_uploads("models"))
    assert set() == keys(any_store, MIRRORING)
    assert verify(any_store, MODEL, A, deep=True).whole


@pytest.mark.slow
@pytest.mark.parametrize("key", ["services/chat/record.json", "models/acme/tiny/refs/main.json", MARKS])
def test_nothing_is_deleted_while_something_cannot_be_read(store: Store, key: str) -> None:
    """A record, pointer or mark of which nobody knows what it says may be the one that matters; it is named."""
    put_commit(store, A)
    swept(store, 0)
    present = store.get(key)
    store.put_if(key, b'{"version": 99}', expect=present[1] if present else None)
    before = keys(store)

    with pytest.raises(IntegrityError, match=key):
        collect(store, delete=True, clock=Later(10))

    assert before == keys(store)
    assert verify(store, MODEL, A, deep=True).whole


def test_commits_do_not_hurt_each_other(any_store: Store) -> None:
    """A file that was copied from a commit stays whole when that commit is deleted."""
    put_commit(any_store, A)
    manifest = put_files(any_store, B, {})
    entries = []
    for file in read(any_store, A).files:
        source = any_store.head(f"{weights_key(MODEL, A)}/{file.path}")
        assert source
        copied = any_store.copy(source, f"{weights_key(MODEL, B)}/{file.path}")
        assert copied
        entries.append(file.model_copy(update={"etag": copied.version}))
    manifest = manifest.model_copy(update={"files": tuple(entries), "version": 1})
    any_store.put_if(manifest_key(MODEL, B), manifest.to_json(), expect=None)
    write_record(any_store, live=release(B))

    swept(any_store, 0)
    assert {A: Action.DELETE, B: Action.KEEP} == swept(any_store, 8)

    assert verify(any_store, MODEL, B, deep=True).whole


def read(store: Store, commit: str) -> Any:
    """Return the manifest of a published commit."""
    manifest = read_manifest(store, MODEL, commit)
    assert manifest
    return manifest


class Raced:
    """A store in which something happens once: just before or after a call that ``fits``."""

    def __init__(self, store: Store, fits: tuple[str, str], happening: Callable[[], object], *, after: bool) -> None:
        self._store, self._fits, self._happening, self._after = store, fits, happening, after
        self.happened = False

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._store, name)
        if name != self._fits[0]:
            return inner

        def call(key: str, *args: Any, **options: Any) -> Any:
            due = not self.happened and key.startswith(self._fits[1])
            self.happened |= due
            if due and not self._after:
                self._happening()
            result = inner(key, *args, **options)
            if due and self._after:
                self._happening()
            return result

        return call


AT_REMOVAL = ("remove", manifest_key(MODEL, A))
AT_CLAIM = ("put_if", claim_key(MODEL, A))


@pytest.mark.parametrize("moment", [AT_CLAIM, AT_REMOVAL], ids=["when it is claimed", "when it is unpublished"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("by", ["record", "pointer"])
def test_what_becomes_wanted_meanwhile_is_kept(
    any_store: Store, moment: tuple[str, str], after: bool, by: str
) -> None:
    """Wherever a release or a pointer comes between decision and deletion, the commit stays whole and published."""
    manifest = put_commit(any_store, A)
    swept(any_store, 0)

    def want() -> None:
        if by == "record":
            write_record(any_store, current=on_its_way(A))
        else:
            with suppress(Conflict):  # it is unpublished at this moment, so who moves it has to mirror again
                move_channel(any_store, "main", manifest, resolved_at=NOW)

    raced = Raced(any_store, moment, want, after=after)

    assert {A: Action.KEEP} == swept(raced, 8)
    assert raced.happened
    assert verify(any_store, MODEL, A, deep=True).whole
    assert read_claim(any_store, MODEL, A) is None
    assert Marks() == Marks.from_json((any_store.get(MARKS) or (b"", ""))[0])


@pytest.mark.slow
def test_a_release_that_comes_too_late_finds_nothing(store: Store) -> None:
    """After the second reading a record is written: the commit is gone by its manifest first, so it is mirrored."""
    put_commit(store, A)
    swept(store, 0)
    seen: list[bool] = []

    def want() -> None:
        write_record(store, current=on_its_way(A))
        seen.append(read_manifest(store, MODEL, A) is not None)

    raced = Raced(store, ("open_uploads", weights_key(MODEL, A)), want, after=False)

    assert {A: Action.DELETE} == swept(raced, 8)
    assert [False] == seen
    assert set() == keys(store, "models")


@pytest.mark.slow
def test_trouble_in_the_middle_puts_the_manifest_back(store: Store) -> None:
    """When the second reading fails the commit is published as before, and the next collection goes on."""
    put_commit(store, A)
    swept(store, 0)
    record = write_record(store)

    def break_record() -> None:
        found = store.get("services/chat/record.json")
        assert found
        store.put_if("services/chat/record.json", b"{}", expect=found[1])

    with pytest.raises(IntegrityError, match="record"):
        collect(Raced(store, AT_REMOVAL, break_record, after=True), delete=True, clock=Later(8))

    assert verify(store, MODEL, A, deep=True).whole
    assert read_claim(store, MODEL, A) is None
    found = store.get("services/chat/record.json")
    assert found
    store.put_if("services/chat/record.json", record.to_json(), expect=found[1])
    assert {A: Action.DELETE} == swept(store, 8)


def test_a_collection_that_lost_its_claim_stops(any_store: Store) -> None:
    """Woken after another took over, it removes not one object more, and leaves the other's claim alone."""
    put_commit(any_store, A, {f"{number}.json": b"{}" for number in range(5)})
    swept(any_store, 0)

    def take_over() -> None:
        found = any_store.get(claim_key(MODEL, A))
        assert found
        any_store.put_if(
            claim_key(MODEL, A),
            Claim.from_json(found[0]).model_copy(update={"owner": "another"}).to_json(),
            expect=found[1],
        )

    raced = Raced(any_store, ("remove", f"{weights_key(MODEL, A)}/2.json"), take_over, after=False)

    assert {A: Action.KEEP} == swept(raced, 8)
    left = {key.rpartition("/")[2] for key in keys(any_store, weights_key(MODEL, A))}
    assert {"3.json", "4.json", "hash"} == left
    found = read_claim(any_store, MODEL, A)
    assert found
    assert "another" == found.owner


@pytest.mark.slow
def test_two_collections_at_once_agree(store: Store, store_settings: StoreSettings) -> None:
    """Neither fails, the unwanted commits are gone, the wanted one is whole, and no mark or claim is left."""
    for commit in (A, B, C, D):
        put_commit(store, commit)
    write_record(store, live=release(D))
    swept(store, 0)
    other = open_store(store_settings)
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(collect, each, delete=True, clock=Later(8)) for each in (store, other)]
            outcomes = [job.result() for job in jobs]
    finally:
        other.close()

    deleted = [one.commit for outcome in outcomes for one in outcome.decisions if one.action is Action.DELETE]
    assert {A, B, C} == set(deleted)
    assert verify(store, MODEL, D, deep=True).whole
    swept(store, 8)
    assert {MARKS, "services/chat/record.json"} == {key for key in keys(store) if D not in key}
    assert Marks() == Marks.from_json((store.get(MARKS) or (b"", ""))[0])


@pytest.mark.slow
def test_marks_that_changed_meanwhile_are_written_anew(store: Store) -> None:
    """Who finds that another collection wrote the marks first writes its own into those."""
    put_commit(store, A)
    put_commit(store, B)
    raced = Raced(store, ("put_if", MARKS), lambda: swept(store, 0), after=False)

    assert {A: Action.MARK, B: Action.MARK} == swept(raced, 0)

    assert raced.happened
    assert [A, B] == [mark.commit for mark in Marks.from_json((store.get(MARKS) or (b"", ""))[0]).marks]


REMOVALS = len(FILES) + 3
"""Of a commit: its manifest, its files, `hash`, and the claim at last."""

KILLED = """
import os, signal, sys
from tasks import settings
from tasks._stores.store import open_store
from tasks._weights.collect import collect

store, left = open_store(settings.read_settings().store), [int(sys.argv[1])]
inner = store.remove

def remove(key):
    inner(key)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

store.remove = remove
collect(store, delete=True, grace_s=0)
"""


def kill_a_collection(settings: StoreSettings, removals: int) -> None:
    """Run a collection in a process of its own that is killed after so many removals of its first deletion."""
    assert settings.access_key
    assert settings.secret_key
    environment = {
        **os.environ,
        "SLIPWAY_STORE__URL": settings.url,
        "SLIPWAY_STORE__ENDPOINT": settings.endpoint or "",
        "SLIPWAY_STORE__ACCESS_KEY": settings.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": settings.secret_key.get_secret_value(),
    }
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(removals)], env=environment, check=False, timeout=KILL_DEADLINE_S
    )
    assert -signal.SIGKILL == run.returncode


@pytest.mark.slow
@pytest.mark.parametrize("removals", [1, 3, REMOVALS])
def test_a_killed_deletion_is_finished_by_the_next_collection(
    store: Store, store_settings: StoreSettings, removals: int
) -> None:
    """Killed after any removal, the commit is not published, and the next collection leaves nothing of it."""
    put_commit(store, A)
    swept(store, 0)

    kill_a_collection(store_settings, removals)

    assert read_manifest(store, MODEL, A) is None
    swept(store, 0)
    assert {MARKS} == keys(store)
    assert Marks() == Marks.from_json((store.get(MARKS) or (b"", ""))[0])


@pytest.mark.slow
def test_a_killed_deletion_that_is_wanted_at_the_last_moment_is_put_back(
    store: Store, store_settings: StoreSettings
) -> None:
    """The next collection means to go on deleting, finds a release at its second look, and publishes again."""
    put_commit(store, A)
    swept(store, 0)
    kill_a_collection(store_settings, 1)
    raced = Raced(store, AT_CLAIM, lambda: write_record(store, current=on_its_way(A)), after=True)

    assert {A: Action.KEEP} == swept(raced, 0)

    assert verify(store, MODEL, A, deep=True).whole
    assert read_claim(store, MODEL, A) is None


@pytest.mark.slow
def test_what_was_mirrored_at_the_last_moment_is_kept(store: Store, store_settings: StoreSettings) -> None:
    """A commit whose deletion was killed is mirrored again while the next collection comes to it: it stays."""
    manifest = put_commit(store, A)
    swept(store, 0)
    kill_a_collection(store_settings, 1)

    def publish() -> None:
        store.put_if(manifest_key(MODEL, A), manifest.to_json(), expect=None)

    assert {A: Action.KEEP} == swept(Raced(store, AT_CLAIM, publish, after=True), 0)

    assert verify(store, MODEL, A, deep=True).whole
    assert {A: Action.MARK} == swept(store, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("removals", "whole"), [(1, True), (2, False)], ids=["unpublished", "a file gone"])
def test_what_a_killed_deletion_left_is_put_back_if_it_is_wanted(
    store: Store, store_settings: StoreSettings, removals: int, whole: bool
) -> None:
    """The manifest returns only over files that are all there; what is left otherwise stays for a mirror."""
    manifest = put_commit(store, A)
    swept(store, 0)
    kill_a_collection(store_settings, removals)
    write_record(store, current=on_its_way(A))
    before = keys(store, weights_key(MODEL, A))

    assert {A: Action.PUT_BACK if whole else Action.KEEP} == swept(store, 0)

    assert (manifest if whole else None) == read_manifest(store, MODEL, A)
    assert before <= keys(store, weights_key(MODEL, A))
    assert read_claim(store, MODEL, A) is None
    assert {A: Action.KEEP} == swept(store, 30)


@pytest.fixture
def published(server: RunningHub, hub: Hub, store: Store, tmp_path: Path) -> str:
    """Mirror a commit from a real Hub, let a collection mark it, and return it."""
    commit = server.publish(write_model(tmp_path / "model", sizes=(300_000, 70_000)))
    mirror(hub, store, MODEL, commit, Limits())
    assert {commit: Action.MARK} == swept(store, 0)
    return commit


@pytest.mark.slow
@pytest.mark.parametrize("removals", [1, 3])
def test_a_killed_deletion_is_mended_by_a_mirror(
    hub: Hub, store: Store, store_settings: StoreSettings, published: str, removals: int
) -> None:
    """What is gone comes from the Hub again, and the next collection finds a commit like any other."""
    kill_a_collection(store_settings, removals)

    mirror(hub, store, MODEL, published, Limits())

    found = verify(store, MODEL, published, deep=True)
    assert (True, ()) == (found.whole, found.unlisted)
    write_record(store, live=release(published))
    assert {published: Action.KEEP} == swept(store, 8)
    assert Marks() == Marks.from_json((store.get(MARKS) or (b"", ""))[0])


@pytest.mark.slow
def test_a_mirror_that_meets_a_deletion_waits_and_brings_the_commit_anew(
    hub: Hub, store: Store, published: str
) -> None:
    """A release that begins after the last look finds no manifest, waits for the claim, and ends with all files."""
    with ThreadPoolExecutor(1) as pool:
        jobs = []

        def release_it() -> None:
            write_record(store, current=on_its_way(published))
            jobs.append(pool.submit(mirror, hub, store, MODEL, published, Limits()))

        raced = Raced(store, ("open_uploads", weights_key(MODEL, published)), release_it, after=False)
        assert {published: Action.DELETE} == swept(raced, 8)
        jobs[0].result()

    found = verify(store, MODEL, published, deep=True)
    assert (True, ()) == (found.whole, found.unlisted)
    assert {published: Action.KEEP} == swept(store, 30)
