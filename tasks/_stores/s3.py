"""The store in a bucket of S3, or of a server that speaks its protocol.

Low-level requests only: s3transfer, on which boto3's upload functions rest, refuses conditional writes.  Objects
that fit one part take one request; larger ones go as multipart uploads, several parts at once, which a store
shows to nobody before they are completed.  A CRC32 (botocore's default) travels with every request and part, so
bytes damaged on the way are refused by the server and sent again.

boto3's own retries are off: ``tasks._retry`` is the one place that repeats.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore import exceptions
from botocore.config import Config
from pydantic import SecretStr

from tasks._retry import attempts, retried
from tasks._stores.s3_errors import Place, status_of
from tasks._stores.store import StoredObject, Upload
from tasks.errors import BadInput, Conflict, SlipwayError, TerminalError
from tasks.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")
log = logging.getLogger(__name__)

PART_SIZE = 8 * 2**20
"""Bytes of a part; S3's least is 5 MiB, and each part in flight is held in memory."""

MOST_PARTS = 9_000
"""Parts of an object; S3 allows 10,000."""

PARTS_AT_ONCE = 4
"""Parts in flight together, over all uploads of one store."""


@dataclass(frozen=True)
class _Bucket:
    """What the store and its uploads share: the client, and the threads that send parts."""

    client: "S3Client"
    name: str
    prefix: str
    place: Place
    senders: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="s3-part")
    )
    slots: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(PARTS_AT_ONCE))

    def at(self, key: str) -> dict[str, Any]:
        """Return the arguments that name the object."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    def once(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns, its exceptions translated."""
        with self.place.translated():
            return ask()

    def asked(self, ask: Callable[[], T]) -> T:
        """Do the same with retries."""
        return retried(lambda: self.once(ask))

    def put(self, key: str, data: bytes | bytearray, expect: str | None, metadata: Mapping[str, str]) -> str:
        """Write an object in one request, without retries, and return its version."""
        return self.once(
            lambda: self.client.put_object(
                **self.at(key),
                Body=data,  # type: ignore[arg-type]  # the stubs do not know that a bytearray will do
                Metadata=metadata,
                **_condition(expect),
            )["ETag"]
        )


class S3Store:
    """``s3://bucket/prefix`` at AWS or, with ``settings.endpoint``, elsewhere."""

    def __init__(self, settings: StoreSettings) -> None:
        url = urlsplit(settings.url)
        self.url = settings.url.rstrip("/")
        where = f"{self.url} on {settings.endpoint}" if settings.endpoint else self.url
        try:
            client = boto3.session.Session().client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region,
                aws_access_key_id=_revealed(settings.access_key),
                aws_secret_access_key=_revealed(settings.secret_key),
                config=Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=10,
                    read_timeout=60,
                    max_pool_connections=16,
                    s3={"addressing_style": "path" if settings.endpoint else "auto"},
                ),
            )
        except (exceptions.PartialCredentialsError, ValueError) as error:
            raise BadInput(
                f"The store {where} cannot be set up.",
                remedy="Check SLIPWAY_STORE__ENDPOINT, and set both keys or none.",
            ) from error
        prefix = f"{url.path.strip('/')}/".lstrip("/")
        self._bucket = _Bucket(client, url.netloc, prefix, Place(where, url.netloc))

    def get(self, key: str) -> tuple[bytes, str] | None:
        """See ``Store``."""
        bucket = self._bucket

        def ask() -> tuple[bytes, str] | None:
            try:
                answer = bucket.client.get_object(**bucket.at(key))
                return answer["Body"].read(), answer["ETag"]
            except bucket.client.exceptions.NoSuchKey:
                return None

        return bucket.asked(ask)

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """See ``Store``."""
        for attempt in attempts():
            with attempt:
                try:
                    return self._bucket.put(key, data, expect, {})
                except Conflict:
                    present = self.get(key) if attempt.num > 1 else None
                    if present is None or present[0] != data:
                        raise
                    return present[1]
        raise AssertionError  # the last attempt has returned or raised

    def head(self, key: str) -> StoredObject | None:
        """See ``Store``."""
        bucket = self._bucket

        def ask() -> StoredObject | None:
            try:
                answer = bucket.client.head_object(**bucket.at(key))
            except exceptions.ClientError as error:
                if status_of(error) == 404:  # noqa: PLR2004 - an answer to HEAD has no body with a code
                    return None
                raise
            return StoredObject(key, answer["ContentLength"], answer["ETag"], answer["Metadata"])

        return bucket.asked(ask)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See ``Store``."""
        bucket, prefix = self._bucket, f"{self._bucket.prefix}{folder.strip('/')}/"
        listing = bucket.client.get_paginator("list_objects_v2")
        for page in bucket.asked(lambda: tuple(listing.paginate(Bucket=bucket.name, Prefix=prefix))):
            for item in page.get("Contents", []):
                yield StoredObject(item["Key"].removeprefix(bucket.prefix), item["Size"], item["ETag"])

    def delete(self, folder: str) -> int:
        """See ``Store``."""
        keys = [item.key for item in self.list(folder)]
        for start in range(0, len(keys), 1000):  # S3's most in one request
            self._delete(keys[start : start + 1000])
        return len(keys)

    def open_upload(self, key: str, size: int, *, expect: str | None, metadata: Mapping[str, str]) -> Upload:
        """See ``Store``."""
        return S3Upload(self._bucket, key, size, expect, metadata)

    def close(self) -> None:
        """See ``Store``."""
        self._bucket.senders.shutdown()
        self._bucket.client.close()

    def _delete(self, keys: Sequence[str]) -> None:
        bucket = self._bucket
        doomed: Any = {"Objects": [{"Key": bucket.prefix + key} for key in keys], "Quiet": True}
        answer = bucket.asked(lambda: bucket.client.delete_objects(Bucket=bucket.name, Delete=doomed))
        if errors := answer.get("Errors"):
            raise TerminalError(f"The store kept {errors[0].get('Key')} ({errors[0].get('Code')}).")


class S3Upload:
    """One object on its way; written to by one thread, its parts sent by the store's."""

    def __init__(self, bucket: _Bucket, key: str, size: int, expect: str | None, metadata: Mapping[str, str]) -> None:
        self.part_size = max(PART_SIZE, math.ceil(size / MOST_PARTS / 2**20) * 2**20)
        self._bucket, self._key, self._size = bucket, key, size
        self._expect, self._metadata = expect, metadata
        self._whole: bytes | bytearray = b""
        self._id = ""
        self._parts: list[Future[CompletedPartTypeDef]] = []
        self._failure: BaseException | None = None

    def write(self, part: bytes | bytearray) -> None:
        """See ``Upload``; waits while as many parts as may be in flight are."""
        if self._size <= self.part_size:
            self._whole = part
            return
        if not self._id:
            self._id = self._bucket.asked(self._create)
        self._bucket.slots.acquire()
        if self._failure is not None:
            self._bucket.slots.release()
            raise self._failure
        sent = self._bucket.senders.submit(self._send, len(self._parts) + 1, part)
        self._parts.append(sent)
        sent.add_done_callback(self._settled)

    def complete(self) -> None:
        """See ``Upload``."""
        if not self._id:
            retried(lambda: self._bucket.put(self._key, self._whole, self._expect, self._metadata))
            return
        parts = [part.result() for part in self._parts]
        self._bucket.asked(
            lambda: self._bucket.client.complete_multipart_upload(
                **self._bucket.at(self._key),
                UploadId=self._id,
                MultipartUpload={"Parts": parts},
                **_condition(self._expect),
            )
        )
        self._id = ""

    def abort(self) -> None:
        """See ``Upload``; waits for parts in flight, which would outlive the upload otherwise."""
        if not self._id:
            return
        for part in self._parts:
            part.cancel()
        wait(self._parts)
        try:
            self._bucket.asked(
                lambda: self._bucket.client.abort_multipart_upload(**self._bucket.at(self._key), UploadId=self._id)
            )
        except Conflict:
            log.debug("The upload of %s had ended already.", self._key)
        except SlipwayError as error:
            log.warning("An unfinished upload of %s stays in the store: %s", self._key, error)
        self._id = ""

    def _create(self) -> str:
        return self._bucket.client.create_multipart_upload(
            **self._bucket.at(self._key), Metadata=self._metadata, ChecksumAlgorithm="CRC32"
        )["UploadId"]

    def _send(self, number: int, part: bytes | bytearray) -> "CompletedPartTypeDef":
        answer = self._bucket.asked(
            lambda: self._bucket.client.upload_part(
                **self._bucket.at(self._key),
                UploadId=self._id,
                PartNumber=number,
                Body=part,  # type: ignore[arg-type]  # the stubs do not know that a bytearray will do
                ChecksumAlgorithm="CRC32",
            )
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]}

    def _settled(self, part: "Future[CompletedPartTypeDef]") -> None:
        self._bucket.slots.release()
        if not part.cancelled() and (error := part.exception()) is not None:
            self._failure = error


def _condition(expect: str | None) -> dict[str, Any]:
    """Return the arguments that make a write depend on the present version; None means that there is none."""
    return {"IfNoneMatch": "*"} if expect is None else {"IfMatch": expect}


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
