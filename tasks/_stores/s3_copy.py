"""Copies within one bucket: the server moves the bytes, and only of the version that was asked for."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from botocore import exceptions

from tasks._stores.s3_bucket import Bucket, create_only
from tasks._stores.s3_errors import status_of
from tasks._stores.store import StoredObject

LARGEST_AT_ONCE = 2**30
"""Bytes that one request copies.  S3 allows 5 GiB; a server that copies byte by byte needs seconds for each GiB."""

MOST_PARTS = 9_000

T = TypeVar("T")

_UNMET = frozenset({404, 412})


def copy(bucket: Bucket, source: StoredObject, key: str) -> bool:
    """Copy ``source`` to ``key``, where nothing may be; return whether it was copied.

    It is not when the source is gone or another version, or when there is an object at ``key``: S3 answers alike.
    """
    if source.size > LARGEST_AT_ONCE:
        return _copy_in_parts(bucket, source, key)
    return (
        _allowed(
            bucket,
            lambda: bucket.client.copy_object(
                **bucket.at(key),
                **_from(bucket, source),
                ChecksumAlgorithm="CRC64NVME",
                **bucket.encryption,
                **create_only(),
            ),
        )
        is not None
    )


def _copy_in_parts(bucket: Bucket, source: StoredObject, key: str) -> bool:
    upload = bucket.asked(
        lambda: bucket.client.create_multipart_upload(
            **bucket.at(key),
            Metadata=source.metadata,
            ChecksumAlgorithm="CRC64NVME",
            ChecksumType="FULL_OBJECT",
            **bucket.encryption,
        )
    )["UploadId"]
    copied = False
    try:
        parts = _copy_parts(bucket, source, key, upload)
        copied = all(parts) and _allowed(bucket, lambda: _complete(bucket, source, key, upload, parts)) is not None
    finally:
        if not copied:
            bucket.asked(lambda: bucket.client.abort_multipart_upload(**bucket.at(key), UploadId=upload))
    return copied


def _copy_parts(bucket: Bucket, source: StoredObject, key: str, upload: str) -> list[Any]:
    """Return the parts, None for each that could not be copied."""
    size = max(LARGEST_AT_ONCE, math.ceil(source.size / MOST_PARTS))

    def copy_part(number: int) -> dict[str, Any] | None:
        first = (number - 1) * size
        answer = _allowed(
            bucket,
            lambda: bucket.client.upload_part_copy(
                **bucket.at(key),
                **_from(bucket, source),
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=f"bytes={first}-{min(first + size, source.size) - 1}",
            ),
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]} if answer else None

    return list(bucket.senders.map(copy_part, range(1, math.ceil(source.size / size) + 1)))


def _complete(bucket: Bucket, source: StoredObject, key: str, upload: str, parts: list[Any]) -> object:
    checksum: dict[str, Any] = {"ChecksumCRC64NVME": source.crc64nvme} if source.crc64nvme else {}
    return bucket.client.complete_multipart_upload(
        **bucket.at(key),
        UploadId=upload,
        MultipartUpload={"Parts": parts},
        ChecksumType="FULL_OBJECT",
        **checksum,
        **create_only(),
    )


def _allowed(bucket: Bucket, ask: Callable[[], T]) -> T | None:
    """Return the answer, or None where S3 says that a condition does not hold."""

    def tried() -> T | None:
        try:
            return ask()
        except exceptions.ClientError as error:
            if status_of(error) in _UNMET and error.response["Error"].get("Code") != "NoSuchBucket":
                return None
            raise

    return bucket.asked(tried)


def _from(bucket: Bucket, source: StoredObject) -> dict[str, Any]:
    return {"CopySource": bucket.at(source.key), "CopySourceIfMatch": source.version}
