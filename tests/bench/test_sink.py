"""The null S3 server behaves as S3 does in everything that it does, and refuses the rest."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.bench.hub import HOST
from tests.bench.sink import KEPT_BYTES, sink_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

B = "weights"
LARGE = bytes(KEPT_BYTES + 1)


@pytest.fixture(scope="module")
def client() -> "Iterator[S3Client]":
    """A client of an empty sink in a thread of this process."""
    server = sink_server()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://{HOST}:{server.server_port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


def code_of(call: Any, **arguments: Any) -> str:
    """Return the error code that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_small_objects_are_kept_under_conditions(client: "S3Client") -> None:
    """A record is created once, replaced only by whoever knows its version, and read back with its metadata."""
    first = client.put_object(Bucket=B, Key="claim", Body=b"1", IfNoneMatch="*")["ETag"]
    again = code_of(client.put_object, Bucket=B, Key="claim", Body=b"2", IfNoneMatch="*")
    second = client.put_object(Bucket=B, Key="claim", Body=b"2", IfMatch=first, Metadata={"of": "us"})["ETag"]
    stale = code_of(client.put_object, Bucket=B, Key="claim", Body=b"3", IfMatch=first)
    read = client.get_object(Bucket=B, Key="claim")

    assert read["Metadata"] == {"of": "us"}
    assert ["PreconditionFailed"] * 2 == [again, stale]
    assert (b"2", second) == (read["Body"].read(), read["ETag"])
    assert code_of(client.get_object, Bucket=B, Key="gone") == "NoSuchKey"


def test_large_bodies_are_thrown_away_and_never_made_up(client: "S3Client") -> None:
    """Of a large object the size stays, and reading it is refused."""
    client.put_object(Bucket=B, Key="large", Body=LARGE)

    assert len(LARGE) == client.head_object(Bucket=B, Key="large")["ContentLength"]
    assert code_of(client.get_object, Bucket=B, Key="large") == "BodyWasThrownAway"


def test_an_upload_is_invisible_until_it_is_completed(client: "S3Client") -> None:
    """Parts and uploads are listed, the object appears whole, and only where nothing is."""
    begun = client.create_multipart_upload(
        Bucket=B, Key="up", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT", Metadata={"sha256": "x"}
    )["UploadId"]
    where: Any = {"Bucket": B, "Key": "up", "UploadId": begun}
    etag = client.upload_part(**where, PartNumber=1, Body=LARGE, ChecksumCRC64NVME="AAAAAAAAAAA=")["ETag"]
    parts = client.list_parts(**where)["Parts"]
    uploads = client.list_multipart_uploads(Bucket=B, Prefix="up")["Uploads"]
    before = client.list_objects_v2(Bucket=B, Prefix="up")["KeyCount"]
    whole: Any = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    done = client.complete_multipart_upload(
        **where, MultipartUpload=whole, ChecksumCRC64NVME="AAAAAAAAAAA=", IfNoneMatch="*"
    )
    head = client.head_object(Bucket=B, Key="up", ChecksumMode="ENABLED")

    assert [(1, len(LARGE), etag)] == [(part["PartNumber"], part["Size"], part["ETag"]) for part in parts]
    assert [("up", begun)] == [(upload["Key"], upload["UploadId"]) for upload in uploads]
    assert before == 0
    assert (done["ETag"], "AAAAAAAAAAA=", {"sha256": "x"}) == (
        head["ETag"],
        head["ChecksumCRC64NVME"],
        head["Metadata"],
    )
    assert code_of(client.list_parts, **where) == "NoSuchUpload"


def test_a_copy_is_of_the_version_that_was_meant(client: "S3Client") -> None:
    """Another version is refused, the right one keeps size and metadata, and a deleted object is gone."""
    etag = client.put_object(Bucket=B, Key="from", Body=b"abc", Metadata={"a": "b"})["ETag"]
    source: Any = {"Bucket": B, "Key": "from"}
    client.copy_object(Bucket=B, Key="to", CopySource=source, CopySourceIfMatch=etag, IfNoneMatch="*")
    stale = code_of(client.copy_object, Bucket=B, Key="to2", CopySource=source, CopySourceIfMatch='"other"')
    copied = client.head_object(Bucket=B, Key="to")
    client.delete_objects(Bucket=B, Delete={"Objects": [{"Key": "from"}]})

    assert (3, {"a": "b"}) == (copied["ContentLength"], copied["Metadata"])
    assert stale == "PreconditionFailed"
    assert ["to"] == [item["Key"] for item in client.list_objects_v2(Bucket=B, Prefix="to")["Contents"]]
    assert code_of(client.head_object, Bucket=B, Key="from") == "404"


def test_what_is_not_known_is_refused(client: "S3Client") -> None:
    """An operation that the sink does not have is not silently done."""
    codes = [code_of(client.get_bucket_policy, Bucket=B), code_of(client.get_object_acl, Bucket=B, Key="claim")]

    assert ["NotImplemented"] * 2 == codes
