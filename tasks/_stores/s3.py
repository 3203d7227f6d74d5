"""The store in a bucket of S3, or of a server that speaks its protocol.

Low-level requests only: s3transfer, on which boto3's upload functions rest, refuses conditional writes.  boto3's own
retries are off: ``tasks._retry`` is the one place that repeats.  No ACL is ever sent, as buckets refuse them by
default.  The server must know conditional writes and CRC64NVME over whole objects, as AWS and SeaweedFS do.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, cast

from botocore import exceptions

from tasks._retry import attempts
from tasks._stores.s3_bucket import Bucket, create_only
from tasks._stores.s3_copy import copy
from tasks._stores.s3_errors import status_of
from tasks._stores.s3_upload import S3Upload
from tasks._stores.store import OpenUpload, StoredObject, Upload
from tasks.errors import Conflict, NotFound, TerminalError
from tasks.settings import StoreSettings

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

DELETED_AT_ONCE = 1000
"""Keys of one request to delete; S3's most."""


class S3Store:
    """``s3://bucket/prefix`` at AWS or, with ``settings.endpoint``, elsewhere; see ``Store`` for every method."""

    def __init__(self, settings: StoreSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._bucket = Bucket(settings)

    @property
    def requests(self) -> int:
        """Return how many requests were sent so far, repeated ones included."""
        return self._bucket.requests

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

    @contextmanager
    def open(self, key: str, *, size: int | None = None) -> Iterator[IO[bytes]]:
        """See ``Store``."""
        bucket = self._bucket
        span: Any = {"Range": f"bytes=0-{size - 1}"} if size else {}

        def ask() -> "StreamingBody":
            try:
                return bucket.client.get_object(**bucket.at(key), **span)["Body"]
            except bucket.client.exceptions.NoSuchKey as error:
                raise NotFound(f"There is no {key} in {self.url}.") from error

        # `with body` would give the stream beneath, which does not notice that it ends early.
        with closing(bucket.asked(ask)) as body, bucket.place.translated():
            yield cast("IO[bytes]", body)

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """See ``Store``."""
        bucket = self._bucket
        condition: dict[str, Any] = create_only() if expect is None else {"IfMatch": expect}
        for attempt in attempts():
            with attempt:
                try:
                    return bucket.once(
                        lambda: bucket.client.put_object(
                            **bucket.at(key), Body=data, **bucket.encryption, **condition
                        )["ETag"]
                    )
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
                return _described(key, bucket.client.head_object(**bucket.at(key), ChecksumMode="ENABLED"))
            except exceptions.ClientError as error:
                if status_of(error) == 404:  # noqa: PLR2004 - an answer to HEAD has no body with a code
                    return None
                raise

        return bucket.asked(ask)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See ``Store``."""
        bucket = self._bucket
        listing = bucket.client.get_paginator("list_objects_v2")
        under = self._under(folder)
        for page in bucket.asked(lambda: tuple(listing.paginate(Bucket=bucket.name, Prefix=under))):
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(bucket.prefix)
                yield StoredObject(key, item["Size"], item["ETag"], item["LastModified"].astimezone(UTC))

    def delete(self, folder: str) -> int:
        """See ``Store``."""
        keys = [item.key for item in self.list(folder)]
        for start in range(0, len(keys), DELETED_AT_ONCE):
            self._delete(keys[start : start + DELETED_AT_ONCE])
        return len(keys)

    def remove(self, key: str) -> None:
        """See ``Store``."""
        bucket = self._bucket
        bucket.asked(lambda: bucket.client.delete_object(**bucket.at(key)))

    def copy(self, source: StoredObject, key: str) -> StoredObject | None:
        """See ``Store``."""
        if not copy(self._bucket, source, key):
            if self.head(key) is not None:
                raise Conflict(f"There is an object at {key} already.", remedy="Look at it, then decide anew.")
            return None
        return self.head(key)

    def open_upload(
        self, key: str, size: int, *, metadata: Mapping[str, str], resume: tuple[str, int] | None = None
    ) -> Upload:
        """See ``Store``."""
        upload = S3Upload(self._bucket, key, size, metadata, self.head)
        if resume is not None:
            upload.go_on(*resume)
        return upload

    def require_room(self, size: int) -> None:
        """See ``Store``."""

    def open_uploads(self, folder: str) -> Iterator[OpenUpload]:
        """See ``Store``."""
        bucket = self._bucket
        listing = bucket.client.get_paginator("list_multipart_uploads")
        under = self._under(folder)
        for page in bucket.asked(lambda: tuple(listing.paginate(Bucket=bucket.name, Prefix=under))):
            for item in page.get("Uploads", []):
                key = item["Key"].removeprefix(bucket.prefix)
                yield OpenUpload(key, item["UploadId"], item["Initiated"].astimezone(UTC))

    def drop_upload(self, upload: OpenUpload) -> None:
        """See ``Store``."""
        bucket = self._bucket

        def ask() -> None:
            try:
                bucket.client.abort_multipart_upload(**bucket.at(upload.key), UploadId=upload.id)
            except bucket.client.exceptions.NoSuchUpload:
                return

        bucket.asked(ask)

    def close(self) -> None:
        """See ``Store``."""
        self._bucket.close()

    def _under(self, folder: str) -> str:
        return self._bucket.prefix + (f"{folder.strip('/')}/" if folder else "")

    def _delete(self, keys: Sequence[str]) -> None:
        bucket = self._bucket
        doomed: Any = {"Objects": [{"Key": bucket.prefix + key} for key in keys], "Quiet": True}
        answer = bucket.asked(lambda: bucket.client.delete_objects(Bucket=bucket.name, Delete=doomed))
        if errors := answer.get("Errors"):
            raise TerminalError(f"The store kept {errors[0].get('Key')} ({errors[0].get('Code')}).")


def _described(key: str, answer: "HeadObjectOutputTypeDef") -> StoredObject:
    return StoredObject(
        key,
        answer["ContentLength"],
        answer["ETag"],
        answer.get("LastModified", datetime.now(UTC)).astimezone(UTC),
        # Of an object that was uploaded in parts, a checksum may be one of the parts' checksums.
        answer.get("ChecksumCRC64NVME") if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else None,
        answer["Metadata"],
    )
