"""Reads back what a run has stored, byte by byte, and looks for what it left lying about."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tasks.settings import StoreSettings
from tests.bench.data import Content, Published
from tests.fakes.s3 import s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READERS = 4
PIECE_BYTES = 2**20
_OURS = frozenset({"hash", ".manifest.json"})
_SERVERS_OWN = frozenset({"ready"})
"""What the starter of SeaweedFS puts there to see that it takes writes."""


@dataclass(frozen=True)
class Findings:
    """What is ``wrong`` (by path), and what is ``left`` over: open uploads, claims, objects nobody asked for."""

    wrong: tuple[str, ...]
    left: tuple[str, ...]


def verify(settings: StoreSettings, stored: Mapping[str, Published]) -> Findings:
    """Compare the sha256 of every file of the commits with what lies under their prefixes, then list the bucket."""
    bucket = settings.url.removeprefix("s3://")
    files = [(keys + file.path, file) for keys, published in stored.items() for file in published.files]
    with s3_client(settings) as client, ThreadPoolExecutor(READERS) as pool:
        right = list(pool.map(lambda pair: _is_right(client, bucket, *pair), files))
        wrong = tuple(key for (key, _), good in zip(files, right, strict=True) if not good)
        return Findings(wrong, tuple(_left(client, bucket, stored)))


def _left(client: "S3Client", bucket: str, stored: Mapping[str, Published]) -> Iterator[str]:
    """Yield what has no name that a commit's folder, or a ref beside it, may have."""
    expected = {
        keys + name for keys, published in stored.items() for name in {f.path for f in published.files} | _OURS
    }
    refs = tuple(f"{keys.removesuffix(f'{published.commit}/')}refs/" for keys, published in stored.items())
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = {item["Key"] for item in page.get("Contents", [])} - expected - _SERVERS_OWN
        yield from sorted(key for key in keys if not key.startswith(refs))
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        yield f"open upload of {upload['Key']}"


def _is_right(client: "S3Client", bucket: str, key: str, file: Content) -> bool:
    digest = hashlib.sha256()
    try:
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
    except ClientError:
        return False
    for piece in body.iter_chunks(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest() == file.sha256
