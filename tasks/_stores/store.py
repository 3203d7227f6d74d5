"""The store: where weights and records live, named by URL.

One protocol for every kind of store.  Keys are relative to the store's URL.  Two things make the rest of Slipway
safe and are therefore part of the protocol, not of one store: a write that happens only if the object is still
the version that was read (``put_if``), and an upload that nobody sees before ``complete``.

Stores retry their own requests.  A ``version`` is opaque and changes with every write.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from tasks.errors import BadInput
from tasks.settings import StoreSettings


@dataclass(frozen=True)
class StoredObject:
    """An object as the store knows it; ``metadata`` is known from ``head`` only, not from ``list``."""

    key: str
    size: int
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Upload(Protocol):
    """An object on its way into the store, invisible until ``complete``."""

    part_size: int
    """Bytes of every part but the last."""

    def write(self, part: bytes | bytearray) -> None:
        """Hand over the next part, which may still be on its way when this returns."""

    def complete(self) -> None:
        """Publish the object; raises ``Conflict`` when it is no longer the version given at the start."""

    def abort(self) -> None:
        """Drop what was sent; does nothing after ``complete``.  Never raises an error of the store."""


class Store(Protocol):
    """A bucket or folder.  Every method raises ``Unreachable``, ``AccessDenied`` or, without it, ``NotFound``."""

    url: str
    """Where it is, without a slash at the end."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return the bytes and the version of a small object, or None when there is none."""

    def put_if(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write a small object if its version is still ``expect`` (None: if there is none), and return the new one.

        Raises ``Conflict`` when somebody else came first.  A repeated request whose first reply was lost is known
        by its content, so two writers that must not both win never write equal bytes.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return what the store knows of an object, or None."""

    def list(self, folder: str) -> Iterator[StoredObject]:
        """Yield the objects of ``folder`` and of the folders in it."""

    def delete(self, folder: str) -> int:
        """Remove all objects of ``folder`` and return how many there were."""

    def open_upload(self, key: str, size: int, *, expect: str | None, metadata: Mapping[str, str]) -> Upload:
        """Begin an object of ``size`` bytes that is to take the place of version ``expect`` (None: of nothing)."""

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
        case _:
            raise BadInput(
                f"{settings.url!r} is not the URL of a store.",
                remedy="Set SLIPWAY_STORE__URL to s3://bucket/prefix.",
            )
