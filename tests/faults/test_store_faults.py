"""What a store can do to a mirror: fail, stall, lose a reply it had acted on, take wrong bytes, and lose its own."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import stamina

from tasks._stores.store import open_store
from tasks._weights import claims
from tasks._weights.collect import collect
from tasks._weights.layout import weights_key
from tasks._weights.verify import Verification, verify
from tasks.errors import AccessDenied, SlipwayError, Unreachable
from tests.fakes.hubs import MODEL
from tests.fakes.s3 import s3_client
from tests.fakes.s3_faults import Answer, Damage, LoseReply, Reset, Shorten, Stall
from tests.faults.road import FILES, PART, SHARD, SIZES, SMALLER, Road, assert_sound, sweep

pytestmark = pytest.mark.slow

FINISH = "finish"
"""After the manifest: nothing that fails there undoes what is published."""

OPERATIONS = {
    "look for the manifest": ("GET", "/.manifest.json", 0),
    "look for a claim": ("GET", "/mirroring/", 0),
    "claim": ("PUT", "/mirroring/", 0),
    "renew the claim": ("PUT", "/mirroring/", 1),
    "list": ("GET", "list-type=2", 0),
    "list uploads": ("GET", "?uploads", 0),
    "put": ("PUT", SMALLER, 0),
    "begin": ("POST", "?uploads", 0),
    "first part": ("PUT", "partNumber=1", 0),
    "part": ("PUT", "partNumber=2", 0),
    "complete": ("POST", "?uploadId=", 0),
    "hash": ("PUT", "/hash", 0),
    "publish": ("PUT", "/.manifest.json", 0),
    FINISH: ("DELETE", "/mirroring/", 0),
}
EVERY = pytest.mark.parametrize("operation", OPERATIONS)
BEFORE_THE_END = pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation != FINISH])
PASSING = (
    Answer(500, "InternalError"),
    Answer(503, "SlowDown", (("Retry-After", "0"),)),
    Reset(request=0),
    Reset(reply=0),
    LoseReply(),
)
TRIES = len(PASSING) + 1


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try as often as needed without waits, and take a claim over that its holder could not let go of."""
    monkeypatch.setattr(claims, "LIFETIME_S", 0.5)
    with stamina.set_testing(testing=True, attempts=TRIES):
        yield


@EVERY
def test_faults_that_pass_are_not_seen(road: Road, operation: str) -> None:
    """One request after another fails, is refused, is reset before and after it was done, and loses its reply."""
    method, part, skip = OPERATIONS[operation]
    commit = road.publish()
    for fault in PASSING:
        road.s3.add(fault, method, part, skip=skip if fault is PASSING[0] else 0)

    assert {file.path for file in road.mirror(commit).manifest.files} == FILES
    assert {seen.fault for seen in road.s3.asked(method, part)} >= set(PASSING)
    assert road.fetched(SHARD) == [""]
    assert_sound(road, published=commit)


@pytest.mark.parametrize("operation", ["look for the manifest", "look for a claim", "list", "begin", "complete"])
def test_a_reply_that_breaks_off_is_asked_for_again(road: Road, operation: str) -> None:
    """Half an answer is none, whether it says yes or no."""
    method, part, _ = OPERATIONS[operation]
    commit = road.publish()
    road.s3.add(Reset(reply=20), method, part)
    road.s3.add(Shorten(reply=20), method, part)

    road.mirror(commit)

    assert len(road.s3.asked(method, part)) >= 2
    sweep(road)
    assert_sound(road, published=commit)


@BEFORE_THE_END
def test_a_fault_that_stays_ends_the_mirror(road: Road, operation: str) -> None:
    """Tries are bounded; when the store is well again the next mirror completes."""
    method, part, skip = OPERATIONS[operation]
    commit = road.publish()
    road.s3.add(Answer(503, "SlowDown"), method, part, skip=skip, times=None)
    with pytest.raises(Unreachable, match="SlowDown"):
        road.mirror(commit)
    assert len(road.s3.asked(method, part)) <= 5 * TRIES
    if "claim" not in operation:
        assert_sound(road, unpublished=commit)

    road.s3.clear()
    time.sleep(0.5)  # until a claim is over that could not be given back
    road.mirror(commit)
    assert_sound(road, published=commit)


@pytest.mark.parametrize("status", [403, 503])
def test_a_claim_that_cannot_be_removed_undoes_nothing(road: Road, status: int) -> None:
    """The commit is published and said to be; garbage collection removes the claim when its time is over."""
    method, part, skip = OPERATIONS[FINISH]
    commit = road.publish()
    road.s3.add(Answer(status, "Whatever"), method, part, skip=skip, times=None)

    road.mirror(commit)

    road.s3.clear()
    time.sleep(claims.LIFETIME_S)
    sweep(road)
    assert_sound(road, published=commit)


@BEFORE_THE_END
def test_a_refusal_is_final(road: Road, operation: str) -> None:
    """Rights that are missing stay missing: told at once, and nothing of the failing file is left."""
    method, part, skip = OPERATIONS[operation]
    commit = road.publish()
    road.s3.add(Answer(403, "AccessDenied"), method, part, skip=skip)
    with pytest.raises(AccessDenied, match="AccessDenied") as caught:
        road.mirror(commit)

    assert caught.value.remedy
    assert [seen.status for seen in road.s3.asked(method, part)].count(403) == 1
    assert_sound(road)


def test_a_store_that_asks_to_wait_is_obeyed(road: Road) -> None:
    """The second that a SlowDown asks for passes before the next try."""
    commit = road.publish()
    road.s3.add(Answer(503, "SlowDown", (("Retry-After", "1"),)), "PUT", "partNumber=1")
    begun = time.monotonic()
    with stamina.set_testing(testing=False):
        road.mirror(commit)

    assert time.monotonic() - begun >= 1
    assert_sound(road, published=commit)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("operation", ["claim", "part", "complete", "publish"])
def test_a_silent_store_is_asked_again(road: Road, operation: str, applied: bool) -> None:
    """A request that is never answered, done or not, is repeated."""
    method, part, _ = OPERATIONS[operation]
    commit = road.publish()
    road.s3.add(Stall(applied=applied), method, part)

    road.mirror(commit)

    assert_sound(road, published=commit)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_silent_ends_the_mirror(road: Road) -> None:
    """Accepting and never answering is no way to hold a mirror for ever."""
    commit, begun = road.publish(), time.monotonic()
    road.s3.add(Stall(), "PUT", "partNumber=2", times=None)
    with stamina.set_testing(testing=True, attempts=2), pytest.raises(Unreachable):
        road.mirror(commit)

    assert time.monotonic() - begun < 5
    assert_sound(road, unpublished=commit)


@pytest.mark.parametrize("operation", ["claim", "put", "part", "publish"])
def test_bytes_damaged_on_their_way_are_sent_again(road: Road, operation: str) -> None:
    """The store notices by checksum or signature, and what it holds at the end is right."""
    method, part, _ = OPERATIONS[operation]
    commit = road.publish()
    road.s3.add(Damage(request=7), method, part)

    road.mirror(commit)

    assert_sound(road, published=commit)


def test_a_completion_that_fails_with_status_200_is_tried_again(road: Road) -> None:
    """S3 may begin to answer 200 and then fail; that is no completion."""
    commit = road.publish()
    road.s3.add(Answer(200, "InternalError"), "POST", "?uploadId=", times=2)

    road.mirror(commit)

    assert len(road.s3.asked("POST", "?uploadId=")) == 3
    assert_sound(road, published=commit)


@pytest.mark.parametrize("fault", [Answer(200, "InternalError"), Answer(503, "SlowDown")], ids=["200", "503"])
def test_a_completion_that_never_works_keeps_the_parts(road: Road, fault: Answer) -> None:
    """There is no manifest and no object; the next mirror completes without a byte of the file from the Hub."""
    commit = road.publish()
    road.s3.add(fault, "POST", "?uploadId=", times=None)
    with pytest.raises(Unreachable):
        road.mirror(commit)
    assert [key for key, _ in road.uploads()] == [f"{weights_key(MODEL, commit)}/{SHARD}"]
    assert_sound(road, unpublished=commit)

    road.s3.clear()
    road.hub.faults.requests.clear()
    road.mirror(commit)
    assert sent_twice(road) <= SIZES[0] % PART
    assert_sound(road, published=commit)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_parts_that_the_store_lost_are_sent_again(road: Road, times: int) -> None:
    """A completion that finds other parts than were sent is wrong bytes: fetched once more, then an error."""
    commit = road.publish()
    road.s3.add(Answer(400, "BadDigest"), "POST", "?uploadId=", times=times)
    if times == 1:
        road.mirror(commit)
        assert_sound(road, published=commit)
        return
    with pytest.raises(SlipwayError, match=SHARD):
        road.mirror(commit)
    assert road.uploads() == []
    assert_sound(road, unpublished=commit)


def test_uploads_that_nobody_knows_are_dropped(road: Road) -> None:
    """What a process left that died before it wrote anything down goes with the next mirror of the commit."""
    commit = road.publish()
    begin_upload(road, f"{weights_key(MODEL, commit)}/{SHARD}")

    road.mirror(commit)

    assert_sound(road, published=commit)


def test_uploads_that_nobody_goes_on_with_are_swept(road: Road) -> None:
    """Of a commit that is never mirrored again, garbage collection drops what is older than its grace."""
    commit = road.publish()
    begin_upload(road, f"{weights_key(MODEL, '1' * 40)}/{SHARD}")
    road.mirror(commit)
    with closing(open_store(road.settings)) as store:
        assert collect(store, delete=False, grace_s=3600).dropped_uploads == 0
    assert len(road.uploads()) == 1
    sweep(road)

    assert road.uploads() == []
    assert_sound(road, published=commit)


def test_an_upload_that_another_commit_made_needless_is_dropped(road: Road) -> None:
    """A file on its way may arrive with another commit first: it is copied from there, and its upload goes."""
    first = road.publish()
    road.s3.add(Answer(503, "SlowDown"), "POST", "?uploadId=", times=None)
    with pytest.raises(Unreachable):
        road.mirror(first)
    road.s3.clear()
    (road.folder / "README.md").write_text("Changed.")
    second = road.publish()
    road.mirror(second)
    road.hub.faults.requests.clear()

    road.mirror(first)

    assert road.fetched(SHARD) == []
    assert_sound(road, published=first)


DAMAGES: dict[str, Any] = {"gone": None, "short": b"short", "wrong": b"x" * SIZES[1]}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_after_publication_is_found_and_mended(road: Road, damage: str) -> None:
    """An object that was deleted, cut or written over is found by the quick look, and brought back."""
    commit = road.publish()
    road.mirror(commit)
    bucket, _, prefix = road.direct.url.removeprefix("s3://").partition("/")
    key = f"{prefix}/{weights_key(MODEL, commit)}/{SMALLER}"
    with s3_client(road.direct) as client:
        if (data := DAMAGES[damage]) is None:
            client.delete_object(Bucket=bucket, Key=key)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=data)
    road.hub.faults.requests.clear()

    assert [found.path for found in looked(road, commit, deep=False).damaged] == [SMALLER]
    road.mirror(commit, repair=True)

    assert road.fetched(SHARD) == []
    assert looked(road, commit, deep=True).whole
    assert_sound(road, published=commit)


@pytest.mark.parametrize("fault", [Damage(reply=200_000), Shorten(reply=200_000), Reset(reply=200_000)])
def test_a_reading_that_goes_wrong_is_no_damage(road: Road, fault: Damage | Shorten | Reset) -> None:
    """Bytes that were damaged or cut off on their way back are read again before the object is called damaged."""
    commit = road.publish()
    road.mirror(commit)
    road.s3.add(fault, "GET", SMALLER)

    assert looked(road, commit, deep=True).whole
    assert len(road.s3.asked("GET", SMALLER)) == 2
    assert_sound(road, published=commit)


def test_a_store_that_cannot_be_read_is_no_damage(road: Road) -> None:
    """What could not be looked at is an error, and never a verdict."""
    commit = road.publish()
    road.mirror(commit)
    road.s3.add(Answer(503, "SlowDown"), "HEAD", SMALLER, times=None)

    with pytest.raises(Unreachable):
        looked(road, commit, deep=False)
    assert_sound(road, published=commit)


def looked(road: Road, commit: str, *, deep: bool) -> Verification:
    """Return what the verification before a release finds."""
    with closing(open_store(road.settings)) as store:
        return verify(store, MODEL, commit, deep=deep)


def begin_upload(road: Road, key: str) -> None:
    """Leave an upload open that no claim knows."""
    bucket, _, prefix = road.direct.url.removeprefix("s3://").partition("/")
    with s3_client(road.direct) as client:
        client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{key}")


def sent_twice(road: Road) -> int:
    """Return the bytes of the larger shard that the last mirror asked the Hub for."""
    starts = [int(span.removeprefix("bytes=").rstrip("-") or 0) for span in road.fetched(SHARD)]
    return sum(SIZES[0] - start for start in starts)
