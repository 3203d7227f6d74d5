"""The store: where weights and records live, named by URL.

One protocol for every kind of store.  Keys are relative to the store's URL.  Three things make the rest of Slipway
safe and are therefore part of the protocol, not of one store: a write that happens only if the object is still
the version that was read (``put_if``), an upload that nobody sees before ``complete``, and an upload that another
process can take up where this one died.

Stores retry their own requests.  A ``version`` is opaque and changes with every write.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Protocol
from urllib.parse import urlsplit

from tasks.errors import BadInput
from tasks.settings import StoreSettings


@dataclass(frozen=True)
class StoredObject:
    """An object as the store knows it: ``size`` in bytes, ``modified`` in UTC.

    ``crc64nvme`` is the checksum of the whole object where the store keeps one, in S3's notation (base64 of eight
    bytes); it and ``metadata`` are known from ``head``, ``copy`` and ``complete``, not from ``list``.
    """

    key: str
    size: int
    version: str
    modified: datetime
    crc64nvme: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenUpload:
    """An upload that was begun, by whichever process, and is neither completed nor aborted."""

    key: str
    id: str
    begun_at: datetime


class Upload(Protocol):
    """An object on its way into the store, invisible until ``complete``; written to by one thread."""

    @property
    def id(self) -> str:
        """What ``open_upload`` takes to go on with it from another process; empty while nothing was sent."""

    @property
    def part_size(self) -> int:
        """Bytes of every part but the last."""

    @property
    def stored(self) -> int:
        """Bytes from the beginning that the store holds for certain; what a later process need not send again.

        Grows while parts are on their way; parts behind a missing one do not count.
        """

    def write(self, part: bytearray, crc64nvme: int, sent: Callable[[], None]) -> None:
        """Hand over the next part, which may still be on its way when this returns.

        ``crc64nvme`` is the part's own checksum.  ``sent`` is called once, from any thread, when ``part`` is not
        needed any more, whether it arrived or not.
        """

    def flush(self) -> None:
        """Wait until all that was written is ``stored``; raises what a part on its way met."""

    def complete(self, crc64nvme: int) -> StoredObject:
        """Publish the object, whose checksum as a whole is ``crc64nvme``, and return what the store says of it.

        Raises ``IntegrityError`` when the store holds other bytes, and ``Conflict`` when there is an object at its
        key already, which stays as it is.  A reply that was lost is asked for again, not the bytes.
        """

    def suspend(self) -> None:
        """Wait for the parts on their way and leave the upload open, for ``open_upload`` with its ``id``."""

    def abort(self) -> None:
        """Drop what was sent; does nothing after ``complete``.  Never raises an error of the store."""


class Store(Protocol):
    """A bucket or folder.  Every method raises ``Unreachable``, ``AccessDenied`` or, without it, ``NotFound``."""

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""

    @property
    def requests(self) -> int:
        """How many requests were sent so far, repeated ones included; 0 for a store that needs none."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return the bytes and the version of a small object, or None when there is none."""

    def open(self, key: str, *, size: int | None = None) -> AbstractContextManager[IO[bytes]]:
        """Open an object of any size to be read once, from its beginning; raises ``NotFound`` when there is none.

        ``size`` says how many bytes are wanted; there may be more, and are less in a shorter object.

        Reading raises ``Unreachable`` when the store breaks off: it is the reader that knows how to begin again.
        """

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write a small object if its version is still ``expect`` (None: if there is none), and return the new one.

        Raises ``Conflict`` when somebody else came first.  A repeated request whose first reply was lost is known
        by its content, so two writers that must not both win never write equal bytes.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return what the store knows of an object, or None."""

    def list(self, folder: str) -> Iterator[StoredObject]:
        """Yield the objects of ``folder`` and of the folders in it; ``""`` is the whole store."""

    def delete(self, folder: str) -> int:
        """Remove all objects of ``folder`` and return how many there were."""

    def remove(self, key: str) -> None:
        """Remove one object; there may be none."""

    def copy(self, source: StoredObject, key: str) -> StoredObject | None:
        """Copy ``source`` within the store, without moving its bytes through here, and return the new object.

        None when ``source`` is gone or no longer that version; raises ``Conflict`` when there is an object at ``key``
        already.  The copy may share its bytes with the source (a hard link): objects are never written to again.
        """

    def open_upload(
        self, key: str, size: int, *, metadata: Mapping[str, str], resume: tuple[str, int] | None = None
    ) -> Upload:
        """Begin an object of ``size`` bytes; nothing may be at ``key`` when it is completed.

        ``resume`` names an earlier upload of the same object by its ``id`` and the bytes of it that are to be kept,
        whole parts.  Raises ``NotFound`` when it has ended, or holds less than that.
        """

    def require_room(self, size: int) -> None:
        """Raise ``MachineError`` when ``size`` more bytes do not fit; a bucket has no end."""

    def open_uploads(self, folder: str) -> Iterator[OpenUpload]:
        """Yield the uploads under ``folder`` that are neither completed nor aborted."""

    def drop_upload(self, upload: OpenUpload) -> None:
        """Abort an upload of whichever process; it may have ended."""

    def close(self) -> None:
        """Let go of connections and threads."""


def open_store(settings: StoreSettings) -> Store:
    """Return the store at ``settings.url``; raises ``BadInput`` for a URL that names none."""
    url = urlsplit(settings.url)
    match url.scheme:
        case "" if not settings.url:
            raise BadInput("No store is configured.", remedy="Set SLIPWAY_STORE__URL, or run `slipway up`.")
        case "s3" if url.netloc:
            from tasks._stores.s3 import S3Store  # noqa: PLC0415 - boto3 takes a third of a second to import

            return S3Store(settings)
        case "file":
            from tasks._stores.folder import FolderStore  # noqa: PLC0415 - one kind of store is loaded, not both

            return FolderStore(settings)
        case _:
            raise BadInput(
                f"{settings.url!r} is not the URL of a store.",
                remedy="Set SLIPWAY_STORE__URL to s3://bucket/prefix or file:///folder.",
            )
