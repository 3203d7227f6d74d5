"""One verified copy of a commit in the store: Hub to store in one pass, without a disk.

Several files travel at once, each in parts that are hashed in order while earlier ones are still being sent;
memory is bounded by the parts in flight, whatever the model's size.  A file's hash and size are compared with
what the Hub declares *before* its upload is completed, so wrong bytes never become visible.  The manifest is
written last and only if there is none: no manifest means not there, and of two mirrors at once one wins and the
other returns the winner's.

Nothing needs cleaning up before a second try: files that arrived keep their declared hash in the store, and are
not fetched again.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from threading import Event, Lock
from typing import TypeVar

from pydantic import ValidationError

from tasks._retry import attempts
from tasks._stores.store import Store
from tasks._weights.digest import Digest
from tasks._weights.hub import Hub, HubFile
from tasks._weights.safety import LARGEST_CONFIG, admit, is_config, refuse_code
from tasks.errors import Conflict, IntegrityError, TerminalError, TransientError, Unreachable
from tasks.records import FileEntry, Manifest
from tasks.spec import Limits

T = TypeVar("T")

FILES_AT_ONCE = 4
"""Files under way together; each holds one part in memory besides those in flight."""

MANIFEST = ".manifest.json"

Progress = Callable[[int, int], None]
"""Called with the bytes that are in the store or on their way there, and with all bytes; from any thread."""


def weights_key(model: str, commit: str) -> str:
    """Return the key of the folder that holds ``commit`` of ``model``; joined to the store's URL, its address."""
    return f"models/{model}/{commit}"


def read_manifest(store: Store, model: str, commit: str) -> Manifest | None:
    """Return what is published of ``commit``, or None; raises ``IntegrityError`` if it makes no sense."""
    found = store.get(f"{weights_key(model, commit)}/{MANIFEST}")
    if found is None:
        return None
    try:
        return Manifest.from_json(found[0])
    except ValidationError as error:
        raise IntegrityError(
            f"The manifest of {model}@{commit} in {store.url} cannot be read.",
            remedy="Delete that folder and mirror the commit again.",
        ) from error


def mirror(
    hub: Hub, store: Store, model: str, commit: str, limits: Limits, *, progress: Progress = lambda *_: None
) -> Manifest:
    """Bring ``commit`` of ``model`` into ``store`` if it is not there, and return its manifest.

    A published commit costs two requests; objects of it that are gone or of another size are fetched again.
    Raises ``Refused`` before the first large byte, ``IntegrityError`` for a file that differs from what the Hub
    declares twice in a row, and whatever ``Hub`` and ``Store`` raise.  Nothing is published then, and no upload
    of this call stays open.
    """
    published = read_manifest(store, model, commit)
    if published is not None:
        stored = _sizes(store, model, commit)
        gone = [file for file in published.files if stored.get(file.path) != file.size]
        wanted = tuple(HubFile(path=f.path, size=f.size, sha256=f.sha256) for f in gone)
        if wanted:
            _Carrier(hub, store, model, commit, wanted, progress).carry_all()
        return published
    wanted = admit(hub.files(model, commit), limits)
    for file in filter(lambda file: is_config(file.path), wanted):
        refuse_code(file.path, _twice(lambda: _small(hub, model, commit, file)))  # noqa: B023 - called at once
    entries = _Carrier(hub, store, model, commit, wanted, progress).carry_all()
    return _publish(
        store,
        Manifest(
            model=model,
            commit=commit,
            source=hub.endpoint,
            created_at=datetime.now(UTC),
            files=tuple(sorted(entries, key=lambda entry: entry.path)),
        ),
    )


class _Stopped(TerminalError):
    """Another file failed; this one is given up."""


class _Carrier:
    """Carries the ``wanted`` files of one commit, several at once."""

    def __init__(
        self, hub: Hub, store: Store, model: str, commit: str, wanted: tuple[HubFile, ...], progress: Progress
    ) -> None:
        self._hub, self._store, self._model, self._commit = hub, store, model, commit
        self._wanted, self._progress = wanted, progress
        self._total = sum(file.size for file in wanted)
        self._done = 0
        self._lock = Lock()
        self._stop = Event()

    def carry_all(self) -> tuple[FileEntry, ...]:
        """Return the manifest's lines of all files once every one is in the store; the first error ends all."""
        stored = _sizes(self._store, self._model, self._commit)
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="mirror") as pool:
            jobs = [pool.submit(self._carry, file, stored.get(file.path)) for file in self._wanted]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()  # after an error or an interrupt; nobody looks once all are done
                pool.shutdown(wait=False, cancel_futures=True)
        errors = [job.exception() for job in done]
        first = next((error for error in errors if error and not isinstance(error, _Stopped)), None)
        if first is not None:
            raise first
        return tuple(job.result() for job in jobs)

    def _carry(self, file: HubFile, stored_size: int | None) -> FileEntry:
        key = f"{weights_key(self._model, self._commit)}/{file.path}"
        declared = {"sha256": file.sha256} if file.sha256 else {"git-sha1": file.git_sha1 or ""}
        present = self._store.head(key) if stored_size is not None else None
        if file.sha256 and present and (present.size, present.metadata) == (file.size, declared):
            self._advance(file.size)
            return FileEntry(path=file.path, size=file.size, sha256=file.sha256)
        version = present.version if present else None
        return _twice(lambda: self._pour(file, key, version, declared))

    def _pour(self, file: HubFile, key: str, version: str | None, declared: dict[str, str]) -> FileEntry:
        """Bring one file over; its object appears only if its bytes are the declared ones."""
        digest = Digest(file)
        upload = self._store.open_upload(key, file.size, expect=version, metadata=declared)
        try:
            with closing(_parts(self._hub, self._model, self._commit, file, upload.part_size)) as parts:
                for part in parts:
                    self._go_on()
                    digest.update(part)
                    upload.write(part)
                    self._advance(len(part))
            entry = digest.entry()
            upload.complete()
        except Conflict:
            upload.abort()
            present = self._store.head(key)
            if present is None or (present.size, present.metadata) != (file.size, declared):
                raise
        except BaseException:
            upload.abort()
            self._advance(-digest.size)
            raise
        return entry

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped("Another file failed.")

    def _advance(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress(self._done, self._total)


def _parts(hub: Hub, model: str, commit: str, file: HubFile, part_size: int) -> Generator[bytearray, None, None]:
    """Yield the file in parts of ``part_size`` bytes; a broken connection is taken up again where it broke.

    Attempts are counted per part, so that a long file may break more often than a short one.  Raises
    ``IntegrityError`` after the last part when the Hub goes on beyond the declared size.
    """
    stream: Generator[bytes, None, None] | None = None
    part, offset = bytearray(), 0
    try:
        while offset < file.size:
            want = min(part_size, file.size - offset)
            for attempt in attempts():
                with attempt:
                    stream = stream or hub.stream(model, commit, file.path, start=offset + len(part))
                    try:
                        _fill(part, want, stream)
                    except TransientError:
                        stream = None
                        raise
            rest = part[want:]
            del part[want:]
            yield part
            part, offset = rest, offset + want
        if part or (stream is not None and _goes_on(stream)):
            raise IntegrityError(f"{file.path} is longer than the {file.size:,} bytes that the Hub declares.")
    finally:
        if stream is not None:
            stream.close()


def _fill(part: bytearray, want: int, stream: Iterator[bytes]) -> None:
    while len(part) < want:
        piece = next(stream, None)
        if piece is None:
            raise Unreachable("The Hub ended a file before its declared size.", remedy="Try again later.")
        part += piece


def _goes_on(stream: Iterator[bytes]) -> bool:
    try:
        return next(stream, None) is not None
    except Unreachable:
        return False  # it broke, but behind the last byte


def _small(hub: Hub, model: str, commit: str, file: HubFile) -> bytes:
    """Return a small file whole, verified."""
    digest, data = Digest(file), bytearray()
    for part in _parts(hub, model, commit, file, LARGEST_CONFIG):
        digest.update(part)
        data += part
    digest.entry()
    return bytes(data)


def _twice(fetch: Callable[[], T]) -> T:
    """Return what ``fetch`` returns, trying once more after wrong bytes: copies of a Hub's servers may differ."""
    try:
        return fetch()
    except IntegrityError:
        return fetch()


def _sizes(store: Store, model: str, commit: str) -> dict[str, int]:
    """Return the sizes of what the commit's folder holds, by path."""
    folder = f"{weights_key(model, commit)}/"
    return {item.key.removeprefix(folder): item.size for item in store.list(folder)}


def _publish(store: Store, manifest: Manifest) -> Manifest:
    """Write the manifest, or return the one of another mirror that came first with the same files."""
    key = f"{weights_key(manifest.model, manifest.commit)}/{MANIFEST}"
    try:
        store.put_if(key, manifest.to_json(), expect=None)
    except Conflict:
        winner = read_manifest(store, manifest.model, manifest.commit)
        if winner is None or winner.files != manifest.files:
            raise
        return winner
    return manifest
