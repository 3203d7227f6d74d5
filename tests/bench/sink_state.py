"""What the null S3 server knows: objects without most of their bytes, uploads, and S3's conditions on writes."""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

_numbers = itertools.count(1)


class Refusal(Exception):
    """S3's answer to a request that cannot be done."""

    def __init__(self, status: HTTPStatus, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def _new_etag() -> str:
    return f'"{next(_numbers):032x}"'


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Kept:
    """An object or a part: ``size`` in bytes, ``body`` where it is kept, ``facts`` its checksums and metadata.

    ETags are numbers that never come again, not hashes: a client must not tell content by them.
    """

    size: int
    body: bytes | None
    facts: Mapping[str, str]
    etag: str = field(default_factory=_new_etag)
    modified: str = field(default_factory=_now)

    @property
    def checksums(self) -> dict[str, str]:
        """Return the headers that tell the checksums."""
        return {name: value for name, value in self.facts.items() if name.startswith("x-amz-checksum-")}

    def described(self) -> dict[str, str]:
        """Return the headers of an answer to GET and HEAD."""
        modified = datetime.fromisoformat(self.modified).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return {"ETag": self.etag, "Last-Modified": modified, **self.facts}


@dataclass
class _Upload:
    key: str
    facts: Mapping[str, str]
    begun: str = field(default_factory=_now)
    parts: dict[int, Kept] = field(default_factory=dict)


class Bucket:
    """The objects and uploads of the one bucket; every method may be called from any thread."""

    def __init__(self) -> None:
        self._objects: dict[str, Kept] = {}
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Kept:
        """Return an object; raises ``Refusal``, as all methods do, where there is none."""
        kept = self._objects.get(key)
        if kept is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "NoSuchKey")
        return kept

    def put(self, key: str, kept: Kept, headers: Mapping[str, str]) -> str:
        """Put an object where the conditions of ``headers`` hold, and return its ETag."""
        with self._lock:
            self._demand(key, headers)
            self._objects[key] = kept
        return kept.etag

    def copy(self, source: str, key: str, headers: Mapping[str, str]) -> str:
        """Copy an object that still is the version asked for, and return the new ETag."""
        return self.put(key, replace(self.source(source, headers), etag=_new_etag(), modified=_now()), headers)

    def source(self, key: str, headers: Mapping[str, str]) -> Kept:
        """Return an object that is to be copied, if it still is the version asked for."""
        found = self.get(key)
        if headers.get("x-amz-copy-source-if-match", found.etag) != found.etag:
            raise Refusal(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        return found

    def delete(self, key: str) -> None:
        """Remove an object; there may be none."""
        with self._lock:
            self._objects.pop(key, None)

    def under(self, prefix: str) -> list[tuple[str, Kept]]:
        """Return the objects whose keys begin with ``prefix``, in order."""
        with self._lock:
            return sorted((key, kept) for key, kept in self._objects.items() if key.startswith(prefix))

    def begin(self, key: str, facts: Mapping[str, str]) -> str:
        """Begin an upload and return its id."""
        with self._lock:
            upload = f"upload-{next(_numbers)}"
            self._uploads[upload] = _Upload(key, facts)
        return upload

    def add_part(self, key: str, upload: str, number: int, part: Kept) -> str:
        """Add or replace a part and return its ETag."""
        with self._lock:
            self._upload(key, upload).parts[number] = part
        return part.etag

    def parts(self, key: str, upload: str) -> list[tuple[int, Kept]]:
        """Return the parts of an upload, in order."""
        with self._lock:
            return sorted(self._upload(key, upload).parts.items())

    def complete(
        self,
        key: str,
        upload: str,
        wanted: Sequence[tuple[int, str]],
        facts: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> Kept:
        """Make an upload's parts an object, whose checksum is what the client says it is."""
        with self._lock:
            begun = self._upload(key, upload)
            if wanted != [(number, part.etag) for number, part in sorted(begun.parts.items())]:
                raise Refusal(HTTPStatus.BAD_REQUEST, "InvalidPart")
            self._demand(key, headers)
            del self._uploads[upload]
            size = sum(part.size for part in begun.parts.values())
            etag = f'{_new_etag()[:-1]}-{len(wanted)}"'
            kept = self._objects[key] = Kept(size, None, {**begun.facts, **facts}, etag)
        return kept

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload."""
        with self._lock:
            self._upload(key, upload)
            del self._uploads[upload]

    def open_uploads(self, prefix: str) -> Iterator[tuple[str, str, str]]:
        """Yield key, id and beginning of the uploads of keys with ``prefix``."""
        with self._lock:
            found = sorted((open_.key, upload, open_.begun) for upload, open_ in self._uploads.items())
        return (entry for entry in found if entry[0].startswith(prefix))

    def _upload(self, key: str, upload: str) -> _Upload:
        found = self._uploads.get(upload)
        if found is None or found.key != key:
            raise Refusal(HTTPStatus.NOT_FOUND, "NoSuchUpload")
        return found

    def _demand(self, key: str, headers: Mapping[str, str]) -> None:
        """Refuse a write whose conditions do not hold."""
        present = self._objects.get(key)
        if headers.get("if-none-match") == "*" and present is not None:
            raise Refusal(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
        wanted = headers.get("if-match")
        if wanted is not None and present is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "NoSuchKey")
        if wanted is not None and present is not None and wanted.strip('"') != present.etag.strip('"'):
            raise Refusal(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
