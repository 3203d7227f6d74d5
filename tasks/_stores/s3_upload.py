"""One object on its way into a bucket, its parts sent by the store's threads; see ``Upload``.

An object that fits one part takes one request.  A larger one is a multipart upload, which nobody sees before it is
completed: every part carries its CRC64NVME, and the server compares that of the whole on completion, so a part
that another process overwrote meanwhile cannot end up in the object.
"""

import base64
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from tasks._stores.s3_bucket import Bucket, create_only
from tasks._stores.store import StoredObject
from tasks.errors import Conflict, IntegrityError, NotFound, SlipwayError

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

log = logging.getLogger(__name__)

PART_SIZE = 8 * 2**20
"""Bytes of a part; S3's least is 5 MiB, and each part in flight is held in memory."""

MOST_PARTS = 9_000
"""Parts of an object; S3 allows 10,000."""

_WRONG = frozenset({"BadDigest", "InvalidPart", "InvalidPartOrder", "XAmzContentChecksumMismatch", "InvalidRequest"})
"""What S3 answers to a completion when the parts it holds are not those that were sent."""


class S3Upload:
    """See ``Upload``; ``head`` tells what is at a key."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        size: int,
        metadata: Mapping[str, str],
        head: Callable[[str], StoredObject | None],
    ) -> None:
        self.part_size = max(PART_SIZE, math.ceil(size / MOST_PARTS / 2**20) * 2**20)
        self.id = ""
        self._bucket, self._key, self._size, self._metadata, self._head = bucket, key, size, metadata, head
        self._whole: tuple[bytearray, Callable[[], None]] | None = None
        self._arrived: dict[int, CompletedPartTypeDef] = {}
        self._sending: set[Future[CompletedPartTypeDef]] = set()
        self._handed_over = 0
        self._failure: BaseException | None = None
        self._lock = Lock()
        self._settling = Condition(self._lock)

    @property
    def stored(self) -> int:
        """See ``Upload``."""
        with self._lock:
            missing = next(number for number in count(1) if number not in self._arrived)
        return min((missing - 1) * self.part_size, self._size)

    def go_on(self, upload: str, kept: int) -> None:
        """Take up an earlier upload of which ``kept`` bytes are to count; raises ``NotFound`` if it holds less."""
        bucket = self._bucket
        listing = bucket.client.get_paginator("list_parts")

        def ask() -> list[Any]:
            try:
                pages = listing.paginate(**bucket.at(self._key), UploadId=upload)
                return [part for page in pages for part in page.get("Parts", [])]
            except bucket.client.exceptions.NoSuchUpload:
                return []

        starts = range(0, kept, self.part_size)
        parts = bucket.asked(ask)[: len(starts)]
        found = [(part["PartNumber"], part["Size"]) for part in parts]
        wanted = [(number, min(self.part_size, self._size - start)) for number, start in enumerate(starts, 1)]
        if found != wanted or sum(size for _, size in wanted) != kept:
            raise NotFound(f"The upload of {self._key} has ended, or does not hold the parts that it should.")
        self.id = upload
        self._arrived = {
            part["PartNumber"]: {"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts
        }
        self._handed_over = len(parts)

    def write(self, part: bytearray, crc64nvme: int, sent: Callable[[], None]) -> None:
        """See ``Upload``."""
        if self._size <= self.part_size:
            self._whole = part, sent
            return
        if self._failure is not None:
            sent()
            raise self._failure
        if not self.id:
            self.id = self._bucket.asked(self._create)
        self._handed_over += 1
        sending = self._bucket.senders.submit(self._send, self._handed_over, part, crc64nvme)
        with self._lock:
            self._sending.add(sending)
        sending.add_done_callback(lambda done: self._settled(done, sent))

    def flush(self) -> None:
        """See ``Upload``; an object that takes one request is sent by ``complete``."""
        self._await_parts()
        if self._failure is not None:
            raise self._failure

    def complete(self, crc64nvme: int) -> StoredObject:
        """See ``Upload``."""
        self.flush()
        parts = [self._arrived[number] for number in sorted(self._arrived)]
        try:
            version = self._bucket.asked(lambda: self._finish(parts, crc64nvme) if self.id else self._put(crc64nvme))
        except Conflict:
            present = self._head(self._key)
            if present is None or not self._is_ours(present, crc64nvme):
                raise
            version = present.version
        self._let_go()
        self.id = ""
        return StoredObject(self._key, self._size, version, datetime.now(UTC), as_text(crc64nvme), self._metadata)

    def suspend(self) -> None:
        """See ``Upload``."""
        self._let_go()
        self._await_parts()

    def abort(self) -> None:
        """See ``Upload``; waits for parts in flight, which would outlive the upload otherwise."""
        with self._lock:
            sending = tuple(self._sending)
        for part in sending:
            part.cancel()
        self.suspend()
        if not self.id:
            return
        try:
            self._bucket.asked(
                lambda: self._bucket.client.abort_multipart_upload(**self._bucket.at(self._key), UploadId=self.id)
            )
        except Conflict:
            log.debug("The upload of %s had ended already.", self._key)
        except SlipwayError as error:
            log.warning("An unfinished upload of %s stays in the store: %s", self._key, error)
        self.id = ""

    def _create(self) -> str:
        return self._bucket.client.create_multipart_upload(
            **self._bucket.at(self._key),
            Metadata=self._metadata,
            ChecksumAlgorithm="CRC64NVME",
            ChecksumType="FULL_OBJECT",
            **self._bucket.encryption,
        )["UploadId"]

    def _send(self, number: int, part: bytearray, crc64nvme: int) -> "CompletedPartTypeDef":
        answer = self._bucket.asked(
            lambda: self._bucket.part_client.upload_part(
                **self._bucket.at(self._key),
                UploadId=self.id,
                PartNumber=number,
                Body=part,  # type: ignore[arg-type]  # the stubs do not know that a bytearray will do
                ChecksumCRC64NVME=as_text(crc64nvme),
            )
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _settled(self, part: "Future[CompletedPartTypeDef]", sent: Callable[[], None]) -> None:
        """Note what became of a part, and forget it: it holds on to its bytes."""
        error = None if part.cancelled() else part.exception()
        with self._lock:
            if error is not None:
                self._failure = error
            elif not part.cancelled():
                self._arrived[part.result()["PartNumber"]] = part.result()
            self._sending.discard(part)
            self._settling.notify_all()
        sent()

    def _await_parts(self) -> None:
        with self._settling:
            self._settling.wait_for(lambda: not self._sending)

    def _put(self, crc64nvme: int) -> str:
        body = self._whole[0] if self._whole else bytearray()
        with self._compared():
            return self._bucket.part_client.put_object(
                **self._bucket.at(self._key),
                Body=body,  # type: ignore[arg-type]  # as above
                Metadata=self._metadata,
                ChecksumCRC64NVME=as_text(crc64nvme),
                **self._bucket.encryption,
                **create_only(),
            )["ETag"]

    def _finish(self, parts: "list[CompletedPartTypeDef]", crc64nvme: int) -> str:
        with self._compared():
            return self._bucket.client.complete_multipart_upload(
                **self._bucket.at(self._key),
                UploadId=self.id,
                MultipartUpload={"Parts": parts},
                ChecksumCRC64NVME=as_text(crc64nvme),
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=self._size,
                **create_only(),
            )["ETag"]

    @contextmanager
    def _compared(self) -> Iterator[None]:
        """Raise ``IntegrityError`` where the store says that it has other bytes than were announced."""
        try:
            yield
        except exceptions.ClientError as error:
            if error.response["Error"].get("Code") in _WRONG:
                raise IntegrityError(f"The store does not hold the bytes of {self._key} that were sent.") from error
            raise

    def _is_ours(self, present: StoredObject, crc64nvme: int) -> bool:
        """Say whether the object is what this upload was to become: its reply was lost, or another came first."""
        same = (present.size, dict(present.metadata)) == (self._size, dict(self._metadata))
        return same and present.crc64nvme in (None, as_text(crc64nvme))

    def _let_go(self) -> None:
        """Give back the buffer of an object that takes one request."""
        with self._lock:
            whole, self._whole = self._whole, None
        if whole is not None:
            whole[1]()


def as_text(crc64nvme: int) -> str:
    """Return a CRC64NVME as S3 writes it: base64 of its eight bytes, most significant first."""
    return base64.b64encode(crc64nvme.to_bytes(8)).decode()
