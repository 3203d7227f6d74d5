"""What a Hub can do to a mirror: refuse, fail, stall, break off, and send or list other bytes than it declared."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from tasks import _retry
from tasks._weights import download
from tasks._weights import hub as hub_module
from tasks.errors import AccessDenied, IntegrityError, NotFound, SlipwayError, TerminalError, Unreachable
from tasks.local.hub import repositories
from tests.fakes.hubs import MODEL, write_model
from tests.faults.road import FILES, SHARD, SIZES, SMALLER, Road, assert_sound

pytestmark = pytest.mark.slow

WHERE = pytest.mark.parametrize("where", ["GET /api/", f"/{SHARD} whole", "/lfs/"], ids=["listing", "link", "bytes"])
TRIES = 4


@pytest.fixture
def _no_waits() -> Iterator[None]:
    """Try four times in all, without waits between."""
    with stamina.set_testing(testing=True, attempts=TRIES):
        yield


@pytest.mark.parametrize("header", [{"retry-after": "1"}, {"ratelimit": '"api";r=0;t=1'}], ids=["plain", "hub"])
def test_a_hub_that_asks_to_wait_is_obeyed(road: Road, header: dict[str, str]) -> None:
    """A 429 of the listing and one of a link each cost the second that they ask for, and nothing else."""
    commit, begun = road.publish(), time.monotonic()
    road.hub.faults.answers["GET /api/"] = deque([(429, header)])
    road.hub.faults.answers[f"/{SHARD} whole"] = deque([(429, header)])

    road.mirror(commit)

    assert 2 <= time.monotonic() - begun < 6
    assert_sound(road, published=commit)


def test_a_hub_that_asks_to_wait_for_ever_ends_the_mirror(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is believed until the budget is spent, and the sentence says what it answered."""
    monkeypatch.setattr(_retry, "BUDGET_S", 2.5)
    commit, begun = road.publish(), time.monotonic()
    road.hub.faults.refusals["/lfs/"] = (429, {"retry-after": "1"})

    with pytest.raises(Unreachable, match="429"):
        road.mirror(commit)

    assert 1 <= time.monotonic() - begun < 5
    assert_sound(road, unpublished=commit)


def test_a_wait_beyond_the_budget_is_not_begun(road: Road) -> None:
    """A Hub that asks for an hour gets no second request, and the caller an answer now."""
    commit, begun = road.publish(), time.monotonic()
    road.hub.faults.refusals["GET /api/"] = (429, {"retry-after": "3600"})

    with pytest.raises(Unreachable, match="429") as caught:
        road.mirror(commit)

    assert caught.value.retry_after == 3600
    assert len(road.hub.faults.asked("/api/")) == 1
    assert time.monotonic() - begun < 2


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("times", [1, TRIES - 1])
@WHERE
def test_errors_that_pass_are_not_seen(road: Road, where: str, times: int) -> None:
    """A server in trouble, once or three times in a row, costs repeated requests only."""
    commit = road.publish()
    road.hub.faults.answers[where] = deque([(500, {}), (502, {}), (503, {})][:times])

    assert {file.path for file in road.mirror(commit).manifest.files} == FILES
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
@WHERE
def test_errors_that_stay_end_the_mirror(road: Road, where: str) -> None:
    """Tries are bounded; when the Hub is well again, the next mirror completes."""
    commit = road.publish()
    road.hub.faults.refusals[where] = (503, {})
    with pytest.raises(Unreachable, match="503"):
        road.mirror(commit)
    assert_sound(road, unpublished=commit)
    assert len(road.hub.faults.requests) <= 40

    road.hub.faults.refusals.clear()
    road.mirror(commit)
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("after", [0, 3_000_000], ids=["before", "within"])
def test_a_silent_hub_is_asked_again(road: Road, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Bytes that stop coming are asked for again from there."""
    monkeypatch.setattr(download, "SILENCE_S", 0.5)
    commit = road.publish()
    road.hub.faults.stalls[f"{road.link(SHARD)} whole"] = deque([after])

    road.mirror(commit)

    assert road.fetched(SHARD) == ["", f"bytes={after}-" if after else ""]
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
@WHERE
def test_a_hub_that_stays_silent_ends_the_mirror(road: Road, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Accepting and never answering is no way to hold a mirror for ever; what had arrived is not fetched again."""
    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    monkeypatch.setattr(hub_module, "API_TIMEOUT_S", 0.2)
    commit, begun = road.publish(), time.monotonic()
    where = where.replace("/lfs/", f"{road.link(SHARD)} whole")
    road.hub.faults.stalls[where] = deque([0] * 100)
    with pytest.raises(Unreachable):
        road.mirror(commit)
    assert time.monotonic() - begun < 5
    assert_sound(road, unpublished=commit)

    whole = set(road.objects())
    road.hub.faults.stalls.clear()
    road.hub.faults.requests.clear()
    road.mirror(commit)
    assert bool(road.fetched(SMALLER)) is not any(key.endswith(SMALLER) for key in whole)
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_trickle_is_left_for_another_connection(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that brings almost nothing has stalled, and is taken up where it was."""
    monkeypatch.setattr(download, "WATCH_S", 0.4)
    commit = road.publish()
    road.hub.faults.rates[f"{road.link(SHARD)} whole"] = 1000.0

    road.mirror(commit)

    first, second = road.fetched(SHARD)
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) < 10_000
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_hub_that_only_trickles_ends_the_mirror(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of new connections makes a gigabyte of a few bytes a second."""
    monkeypatch.setattr(download, "WATCH_S", 0.2)
    commit, begun = road.publish(), time.monotonic()
    for spans in ("whole", *(f"bytes={digit}" for digit in range(1, 10))):
        road.hub.faults.rates[f"{road.link(SHARD)} {spans}"] = 1000.0
    mercy = threading.Timer(8, road.hub.faults.rates.clear)
    mercy.start()
    try:
        with pytest.raises(Unreachable):
            road.mirror(commit)
    finally:
        mercy.cancel()

    assert time.monotonic() - begun < 5
    assert_sound(road, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("rangeless", [False, True])
def test_a_stream_that_breaks_is_taken_up_where_it_broke(road: Road, rangeless: bool) -> None:
    """A file that breaks more often than one request may be tried arrives; a range that is ignored costs bytes."""
    commit, cuts = road.publish(), [1_000_000] * (TRIES + 1)
    if rangeless:
        road.hub.faults.rangeless.add(f"{road.link(SHARD)} bytes=1")
        cuts = [1_000_000, 4_000_000]
    road.hub.faults.cuts[f"{road.link(SHARD)}"] = deque([SIZES[0], *cuts])

    road.mirror(commit)

    assert len(road.fetched(SHARD)) == len(cuts) + 1
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_body_that_is_shorter_than_the_file_is_gone_on_with(road: Road) -> None:
    """An answer that ends in good order before the file does is no end of the file."""
    commit = road.publish()
    road.hub.faults.shortened[f"{road.link(SHARD)} whole"] = deque([3_000_000])

    road.mirror(commit)

    assert road.fetched(SHARD) == ["", "bytes=3000000-"]
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("change", [-1, 1], ids=["short", "long"])
def test_a_file_of_another_size_is_never_published(road: Road, change: int) -> None:
    """A byte less or more than declared is told as such, and no object of the file can be seen."""
    commit = road.publish()
    blob = road.hub.blob(road.folder / SHARD)
    blob.write_bytes((blob.read_bytes() + b"x")[: SIZES[0] + change])

    with pytest.raises(IntegrityError, match=SHARD):
        road.mirror(commit)

    assert not [key for key in road.objects() if key.endswith(SHARD)]
    assert_sound(road, unpublished=commit)


DAMAGE = pytest.mark.parametrize(
    ("file", "at"), [(SHARD, 5_500_000), (SHARD, 100), (SMALLER, 200_000), ("tokenizer.json", 5)]
)


@pytest.mark.usefixtures("_no_waits")
@DAMAGE
def test_a_wrong_byte_is_fetched_again(road: Road, file: str, at: int) -> None:
    """Same size, other bytes, in one answer only: found before anything is published, and mended by a second look."""
    commit = road.publish()
    where = f"/{file} whole" if file.endswith("json") else f"{road.link(file)} whole"
    road.hub.faults.damage[where] = deque([at])

    road.mirror(commit)

    assert road.fetched(file) == ["", ""]
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
@DAMAGE
def test_wrong_bytes_that_stay_are_never_published(road: Road, file: str, at: int) -> None:
    """After one more look it is an error that names the file; the other files and the other commits stay."""
    first = road.publish()
    road.mirror(first)
    write_model(road.folder, seed=1, sizes=SIZES)
    commit = road.publish()
    road.hub.faults.requests.clear()
    where = f"/{file} whole" if file.endswith("json") else f"{road.link(file)} whole"
    road.hub.faults.damage[where] = deque([at] * 10)

    with pytest.raises(IntegrityError, match=file):
        road.mirror(commit)

    assert road.fetched(file) == ["", ""]
    assert not [key for key in road.objects() if commit in key and key.endswith(file)]
    assert_sound(road, published=first, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_wrong_byte_in_a_header_is_fetched_again(road: Road) -> None:
    """What a first look finds wrong is looked at again before the commit is refused for it."""
    commit = road.publish()
    road.hub.faults.damage[f"{road.link(SHARD)} bytes=0-"] = deque([30])

    road.mirror(commit)

    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_branch_that_moves_does_not_mix_commits(road: Road) -> None:
    """Whatever happens to the branch after it was resolved, all files are of the commit that it meant."""
    commit = road.publish()
    with road.connected() as hub:
        assert hub.resolve(MODEL, "main").commit == commit
    originals = dict(road.sources)
    road.hub.faults.before["GET /api/"] = deque([lambda: write_model(road.folder, seed=1, sizes=SIZES)])
    road.hub.faults.before[f"/{SHARD} "] = deque([road.publish])

    road.mirror(commit)

    assert len(road.sources) == 2
    road.sources = originals
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_commit_that_vanishes_is_not_published(road: Road) -> None:
    """A force-push in the middle ends the mirror with a sentence about the commit."""
    commit = road.publish()

    def vanish() -> None:
        repositories.commit_path(road.hub.root, MODEL, commit).unlink()
        repositories.read_commit.cache_clear()

    road.hub.faults.before[f"/{SHARD} whole"] = deque([vanish])

    with pytest.raises(NotFound, match=MODEL):
        road.mirror(commit)

    assert_sound(road, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_file_that_vanishes_is_not_published(road: Road) -> None:
    """A file of the listing that the Hub no longer has is named."""
    commit = road.publish()
    road.hub.faults.refusals[f"/{SMALLER} whole"] = (404, {"x-error-code": "EntryNotFound"})

    with pytest.raises(NotFound, match=SMALLER):
        road.mirror(commit)

    assert_sound(road, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
def test_an_answer_for_another_commit_is_not_taken(road: Road) -> None:
    """A Hub that serves a file of another commit than the one asked for is not believed."""
    commit = road.publish()
    road.hub.faults.refusals[f"/{SHARD} whole"] = (200, {"x-repo-commit": "f" * 40})

    with pytest.raises(IntegrityError, match="f" * 40):
        road.mirror(commit)

    assert_sound(road, unpublished=commit)


REFUSALS = [
    pytest.param(401, {}, AccessDenied, "does not accept the token", id="401"),
    pytest.param(401, {"x-error-code": "GatedRepo"}, AccessDenied, "gated", id="401 gated"),
    pytest.param(403, {"x-error-code": "GatedRepo"}, AccessDenied, "gated", id="403 gated"),
    pytest.param(403, {}, AccessDenied, "forbids", id="403"),
    pytest.param(404, {"x-error-code": "RepoNotFound"}, NotFound, "does not exist", id="404"),
    pytest.param(404, {"x-error-code": "RevisionNotFound"}, NotFound, "does not exist", id="404 revision"),
    pytest.param(410, {}, TerminalError, "410", id="410"),
]


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("where", ["GET /api/", f"/{SHARD} whole"], ids=["listing", "bytes"])
@pytest.mark.parametrize(("status", "headers", "kind", "sentence"), REFUSALS)
def test_refusals_are_final(
    road: Road, where: str, status: int, headers: dict[str, str], kind: type[SlipwayError], sentence: str
) -> None:
    """Each is asked for once, and told in words that name the model and what to do."""
    commit = road.publish()
    road.hub.faults.refusals[where] = (status, headers)

    with pytest.raises(kind, match=sentence) as caught:
        road.mirror(commit)

    assert not isinstance(caught.value, Unreachable)
    assert MODEL in str(caught.value) or "token" in str(caught.value)
    assert caught.value.remedy or kind is TerminalError
    assert len(road.fetched(SHARD) if "whole" in where else road.hub.faults.asked("/api/")) == 1
    assert_sound(road, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("hidden", [{"gated": True}, {"private": True}], ids=["gated", "private"])
def test_a_model_that_is_not_for_all_comes_with_a_token(road: Road, hidden: dict[str, bool]) -> None:
    """The token opens listing and bytes, and is told to nobody."""
    commit = road.publish(**hidden)
    road.mirror(commit)

    assert_sound(road, published=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_renamed_model_is_told_its_new_name(road: Road) -> None:
    """An old name leads to the new one, which is another model to whoever pinned the old."""
    road.publish()
    road.hub.faults.renamed["acme/old"] = MODEL
    with road.connected() as hub, pytest.raises(NotFound, match=f"acme/old is now called {MODEL}"):
        hub.resolve("acme/old", "main")

    assert len(road.hub.faults.asked("/api/models/acme/old")) == 1
    assert_sound(road)


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("where", ["GET /api/", f"/{SHARD} whole"], ids=["listing", "bytes"])
def test_redirects_without_end_are_final(road: Road, where: str) -> None:
    """A Hub that sends its client in a circle is left after a few turns, and not tried again."""
    commit = road.publish()
    path = f"/api/models/{MODEL}/revision/{commit}" if "api" in where else f"/{MODEL}/resolve/{commit}/{SHARD}"
    road.hub.faults.refusals[where] = (302, {"location": path})

    with pytest.raises(TerminalError, match=r"redirect|without end"):
        road.mirror(commit)

    assert len(road.hub.faults.asked(path)) <= 25
    assert_sound(road, unpublished=commit)


@pytest.mark.usefixtures("_no_waits")
def test_a_link_that_ended_is_asked_for_anew(road: Road) -> None:
    """Refused by the second host in the middle of a file: the Hub is asked for a new link, and the file goes on."""
    commit = road.publish()
    road.hub.faults.cuts[f"{road.link(SHARD)} whole"] = deque([3_000_000])
    road.hub.faults.answers[f"{road.link(SHARD)} bytes=3"] = deque([(403, {})])

    road.mirror(commit)

    assert road.fetched(SHARD) == ["", "bytes=3000000-", "bytes=3000000-"]
    assert_sound(road, published=commit)


def test_the_folder_is_as_it_was(road: Road, tmp_path: Path) -> None:
    """A mirror writes to the store alone: nothing on this machine's disk is new."""
    commit = road.publish()
    before = set(tmp_path.rglob("*"))
    road.mirror(commit)

    assert set(tmp_path.rglob("*")) == before
    assert_sound(road, published=commit)
