"""The faults in front of S3 are the ones that were ordered; what is not broken is a real server's."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import exceptions
from botocore.config import Config

from tasks.settings import StoreSettings
from tests.fakes.s3 import BUCKET, seaweed
from tests.fakes.s3_faults import Answer, Damage, Delay, LoseReply, Reset, S3Faults, Shorten, Stall, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Return the settings of a bucket in a running SeaweedFS."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture(scope="module")
def proxy(server: StoreSettings) -> Iterator[tuple[StoreSettings, S3Faults]]:
    """Return the settings that lead through the proxy, and its faults."""
    with s3_faults(server) as running:
        yield running


@pytest.fixture
def faults(proxy: tuple[StoreSettings, S3Faults]) -> Iterator[S3Faults]:
    """Return the faults; there are none before and after a test."""
    proxy[1].clear()
    yield proxy[1]
    proxy[1].clear()


@pytest.fixture
def client(proxy: tuple[StoreSettings, S3Faults]) -> "Iterator[S3Client]":
    """Return a client that goes through the proxy, tries once and waits a second."""
    with connected(proxy[0]) as client:
        yield client


def connected(settings: StoreSettings) -> "AbstractContextManager[S3Client]":
    """Return a client as the store makes them."""
    assert settings.access_key
    assert settings.secret_key
    return closing(
        boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=1,
                read_timeout=1,
                response_checksum_validation="when_required",  # the store reads bytes as they come, too
                s3={"addressing_style": "path"},
            ),
        )
    )


def put(client: "S3Client", key: str, data: bytes = DATA) -> None:
    """Store an object."""
    client.put_object(Bucket=BUCKET, Key=key, Body=data)


def got(client: "S3Client", key: str) -> bytes:
    """Return an object's bytes."""
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def is_there(client: "S3Client", key: str) -> bool:
    """Say whether the bucket lists an object."""
    return client.list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] == 1


def test_requests_pass_with_their_signatures(client: "S3Client", faults: S3Faults) -> None:
    """Writes, reads, listings, uploads in parts and conditions work through the proxy, and it counts them."""
    put(client, "plain/a b+ü.bin")
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="plain/parts")["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key="plain/parts", UploadId=upload, PartNumber=1, Body=DATA)
    parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(Bucket=BUCKET, Key="plain/parts", UploadId=upload, MultipartUpload=parts)
    with pytest.raises(exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=BUCKET, Key="plain/parts", Body=b"", IfNoneMatch="*")

    assert got(client, "plain/a b+ü.bin") == got(client, "plain/parts") == DATA
    assert client.head_object(Bucket=BUCKET, Key="plain/parts")["ContentLength"] == len(DATA)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="plain/").get("Contents", [])
    assert [item["Key"] for item in listed] == ["plain/a b+ü.bin", "plain/parts"]
    client.delete_object(Bucket=BUCKET, Key="plain/parts")
    assert not is_there(client, "plain/parts")
    (sent,) = faults.asked("PUT", "partNumber=1")
    assert (sent.sent, sent.status) == (len(DATA), 200)
    assert [seen.received for seen in faults.asked("GET", "plain/parts")] == [len(DATA)]
    assert [seen.status for seen in faults.asked("PUT", "/plain/parts")] == [200, 412]


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (403, "AccessDenied")])
def test_answers_in_s3s_words(client: "S3Client", faults: S3Faults, status: int, code: str) -> None:
    """The client sees status, code and headers; the server sees no request; the connection lives on."""
    faults.add(Answer(status, code, (("Retry-After", "7"),)), "PUT", f"answer-{status}")
    with pytest.raises(exceptions.ClientError) as caught:
        put(client, f"answer-{status}")

    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    assert not is_there(client, f"answer-{status}")


def test_a_completion_fails_with_status_200(client: "S3Client", faults: S3Faults) -> None:
    """An error within a good status is one to the client too, and the upload is still open."""
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="late")["UploadId"]
    faults.add(Answer(200, "InternalError"), "POST", "uploadId")
    with pytest.raises(exceptions.ClientError, match="InternalError"):
        client.complete_multipart_upload(Bucket=BUCKET, Key="late", UploadId=upload)

    assert [u["UploadId"] for u in client.list_multipart_uploads(Bucket=BUCKET, Prefix="late")["Uploads"]] == [upload]
    client.abort_multipart_upload(Bucket=BUCKET, Key="late", UploadId=upload)


def test_rules_skip_count_and_follow_each_other(client: "S3Client", faults: S3Faults) -> None:
    """A rule lets some pass, breaks some, and then gives way to the next."""
    faults.add(Answer(500, "InternalError"), "HEAD", "rules", times=2, skip=1)
    faults.add(Answer(403, "AccessDenied"), "HEAD", "rules", times=None)
    statuses = []
    for _ in range(5):
        try:
            client.head_object(Bucket=BUCKET, Key="rules")
        except exceptions.ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])

    assert statuses == [403, 500, 500, 403, 403]
    assert statuses == [seen.status for seen in faults.asked("HEAD")]


def test_a_request_is_reset(client: "S3Client", faults: S3Faults) -> None:
    """The connection ends in the middle of the body, and nothing was stored."""
    faults.add(Reset(request=100_000), "PUT", "reset-request")
    with pytest.raises((exceptions.ConnectionClosedError, exceptions.EndpointConnectionError)):
        put(client, "reset-request")

    assert not is_there(client, "reset-request")


@pytest.mark.parametrize("fault", [Reset(reply=100_000), Shorten(reply=100_000)], ids=["reset", "closed"])
def test_a_reply_breaks_off(client: "S3Client", faults: S3Faults, fault: Reset | Shorten) -> None:
    """Some of the body comes, then the connection ends."""
    put(client, "broken")
    faults.add(fault, "GET", "broken")
    body = client.get_object(Bucket=BUCKET, Key="broken")["Body"]
    with pytest.raises((exceptions.ResponseStreamingError, exceptions.IncompleteReadError)):
        body.read()

    assert faults.asked("GET", "broken")[0].received == 100_000
    assert got(client, "broken") == DATA


def test_a_reply_is_lost(client: "S3Client", faults: S3Faults) -> None:
    """The write has happened although the client never hears of it."""
    faults.add(LoseReply(), "PUT", "lost")
    with pytest.raises(exceptions.ConnectionClosedError):
        put(client, "lost")

    assert got(client, "lost") == DATA


@pytest.mark.parametrize("applied", [False, True])
def test_a_request_stalls(client: "S3Client", faults: S3Faults, applied: bool) -> None:
    """Nothing is answered until the client gives up; the write has happened or not, as ordered."""
    faults.add(Stall(applied=applied), "PUT", f"stalled-{applied}")
    with pytest.raises(exceptions.ReadTimeoutError):
        put(client, f"stalled-{applied}")

    assert [seen.stalls for seen in faults.asked("PUT")] == [True]
    assert is_there(client, f"stalled-{applied}") is applied


def test_a_reply_stalls(client: "S3Client", faults: S3Faults) -> None:
    """The body begins and does not go on."""
    put(client, "half")
    faults.add(Stall(reply=1000), "GET", "half")
    body = client.get_object(Bucket=BUCKET, Key="half")["Body"]

    assert body.read(1000) == DATA[:1000]
    with pytest.raises(exceptions.ReadTimeoutError):
        body.read()


def test_a_request_is_late(client: "S3Client", faults: S3Faults) -> None:
    """It is answered as if nothing were wrong, after the delay."""
    faults.add(Delay(0.3), "PUT", "late-write")
    begun = time.monotonic()
    put(client, "late-write")

    assert time.monotonic() - begun >= 0.3


def test_a_body_is_damaged_on_its_way(client: "S3Client", faults: S3Faults) -> None:
    """The server refuses bytes that differ from what was signed; the client gets others than are stored."""
    put(client, "damaged")
    faults.add(Damage(request=1000), "PUT", "damaged")
    with pytest.raises(exceptions.ClientError):
        put(client, "damaged", DATA[::-1])
    faults.add(Damage(reply=1000), "GET", "damaged")
    wrong = got(client, "damaged")

    assert [at for at in range(len(DATA)) if wrong[at] != DATA[at]] == [1000]
    assert got(client, "damaged") == DATA


def test_many_at_once(client: "S3Client", faults: S3Faults) -> None:
    """Requests of several threads each meet their own rule once."""
    faults.add(Answer(500, "InternalError"), "PUT", "many", times=8)

    def write(number: int) -> bool:
        try:
            put(client, f"many/{number}", b"x")
        except exceptions.ClientError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(32)))

    assert written.count(False) == 8
    assert len(faults.asked("PUT", "many")) == 32


def test_nothing_is_left_behind(server: StoreSettings) -> None:
    """The proxy ends at once, with its threads, although a client still waits."""
    before, pool = threading.active_count(), ThreadPoolExecutor(1)
    with s3_faults(server) as (settings, faults), connected(settings) as client:
        faults.add(Stall(), "HEAD")
        waiting = pool.submit(client.head_bucket, Bucket=BUCKET)
        deadline = time.monotonic() + 5
        while not faults.asked("HEAD"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()

    assert time.monotonic() - begun < 2
    assert isinstance(waiting.exception(), exceptions.ConnectionClosedError)
    pool.shutdown()
    assert threading.active_count() <= before


def test_a_body_in_the_way_of_a_refusal_is_read(server: StoreSettings) -> None:
    """A server that refuses a request before it has read it is heard all the same."""
    wrong = server.model_copy(update={"access_key": server.secret_key})
    with s3_faults(wrong) as (settings, _), connected(settings) as client:
        with pytest.raises(exceptions.ClientError) as caught:
            put(client, "refused", DATA * 20)

        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
