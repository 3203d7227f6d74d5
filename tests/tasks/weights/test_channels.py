"""A ref's pointer says what the Hub said last, whoever writes when, and never points to nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks._stores.store import Store
from tasks._weights.channels import TRIES, Channel, move_channel, moved, read_channel, read_channels
from tasks._weights.layout import channel_key, manifest_key
from tasks.errors import Conflict, IntegrityError
from tasks.records import Manifest
from tests.fakes.commits import HUB, MODEL, put_commit

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER, EARLIER = NOON + timedelta(hours=1), NOON - timedelta(hours=1)


class Meddled:
    """A store in which something happens just before a pointer is written."""

    def __init__(self, store: Store, happening: Callable[[], object], times: int = 1) -> None:
        self._store, self._happening, self._left = store, happening, times

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write, but too late."""
        if self._left:
            self._left -= 1
            self._happening()
        return self._store.put_if(key, data, expect=expect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def manifest(commit: str) -> Manifest:
    """Return a manifest without files."""
    return Manifest(model=MODEL, commit=commit, source=HUB, created_at=NOON, files=())


def channel(commit: str, moved_at: datetime = NOON) -> Channel:
    """Return the pointer of ``main``."""
    made = moved(None, "main", manifest(commit), moved_at)
    assert made
    return made


@pytest.mark.parametrize(
    ("present", "resolved_at", "expected"),
    [
        pytest.param(None, NOON, (A, None), id="first"),
        pytest.param(channel(B), LATER, (A, B), id="newer"),
        pytest.param(channel(B), EARLIER, None, id="older"),
        pytest.param(channel(A), LATER, None, id="same commit"),
    ],
)
def test_a_pointer_follows_what_the_hub_said_last(
    present: Channel | None, resolved_at: datetime, expected: tuple[str, str | None] | None
) -> None:
    """It moves to a commit that the Hub named later, and remembers where it was."""
    found = moved(present, "main", manifest(A), resolved_at)

    assert expected == (found and (found.commit, found.previous))


@pytest.mark.slow
def test_a_pointer_is_read_as_it_was_written(store: Store) -> None:
    """It holds the commit, its size, the key of its manifest and its Hub; a ref may hold a slash."""
    published = put_commit(store, A)
    assert read_channel(store, MODEL, "refs/pr/1") is None

    assert move_channel(store, "refs/pr/1", published, resolved_at=NOON)

    expected = Channel(
        model=MODEL,
        ref="refs/pr/1",
        commit=A,
        moved_at=NOON,
        source=HUB,
        bytes=published.total_bytes,
        manifest=manifest_key(MODEL, A),
    )
    assert expected == read_channel(store, MODEL, "refs/pr/1")
    assert not move_channel(store, "refs/pr/1", published, resolved_at=LATER)


@pytest.mark.slow
def test_pointers_are_listed_by_model(store: Store) -> None:
    """All of the store, or those of one model; other objects are none, and a model may be called `refs`."""
    for model in (MODEL, "acme/refs"):
        move_channel(store, "main", put_commit(store, A, model=model), resolved_at=NOON)
    move_channel(store, "v1", put_commit(store, B), resolved_at=NOON)

    every = {(one.model, one.ref, one.commit) for one in read_channels(store)}

    assert {(MODEL, "main", A), (MODEL, "v1", B), ("acme/refs", "main", A)} == every
    assert [("acme/refs", "main")] == [(one.model, one.ref) for one in read_channels(store, "acme/refs")]
    assert () == read_channels(store, "acme/other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others_look", "expected"), [(LATER, (B, None, False)), (EARLIER, (A, B, True))], ids=["newer", "older"]
)
def test_of_two_moves_at_once_the_later_look_wins(
    store: Store, others_look: datetime, expected: tuple[str, str | None, bool]
) -> None:
    """Who finds the pointer moved decides anew: a newer one stays, an older one is moved on."""
    mine, other = put_commit(store, A), put_commit(store, B)
    meddled = Meddled(store, lambda: move_channel(store, "main", other, resolved_at=others_look))

    did_move = move_channel(meddled, "main", mine, resolved_at=NOON)

    found = read_channel(store, MODEL, "main")
    assert found
    assert expected == (found.commit, found.previous, did_move)


@pytest.mark.slow
def test_a_pointer_that_never_rests_ends_in_a_conflict(store: Store) -> None:
    """Tries are bounded, and the pointer stays what the others made of it."""
    mine, others = put_commit(store, A), [put_commit(store, B), put_commit(store, C)]
    hours = iter(range(100))

    def meddle() -> None:
        number = next(hours)
        move_channel(store, "main", others[number % 2], resolved_at=EARLIER + timedelta(seconds=number))

    with pytest.raises(Conflict, match="again and again"):
        move_channel(Meddled(store, meddle, times=TRIES), "main", mine, resolved_at=NOON)

    found = read_channel(store, MODEL, "main")
    assert found
    assert found.commit != A


@pytest.mark.slow
def test_a_commit_collected_while_the_pointer_moved_is_told(store: Store) -> None:
    """The pointer is written and the manifest gone: whoever moved it has to mirror again."""
    published = put_commit(store, A)
    meddled = Meddled(store, lambda: store.remove(manifest_key(MODEL, A)))

    with pytest.raises(Conflict, match="collected") as error:
        move_channel(meddled, "main", published, resolved_at=NOON)

    assert "Mirror it again." == error.value.remedy


@pytest.mark.slow
def test_a_pointer_that_cannot_be_read_is_an_integrity_error(store: Store) -> None:
    """It is neither nothing nor overwritten, and the message names it."""
    store.put_if(channel_key(MODEL, "main"), b"{}", expect=None)

    for look in (
        lambda: read_channel(store, MODEL, "main"),
        lambda: read_channels(store),
        lambda: move_channel(store, "main", manifest(A), resolved_at=NOON),
    ):
        with pytest.raises(IntegrityError, match=r"refs/main\.json"):
            look()
