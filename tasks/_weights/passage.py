"""The road of one file: read, hashed in order, and sent in parts while the next ones are read.

The hash is compared with what the Hub declares *before* the upload is completed, so wrong bytes never become
visible.  Wrong bytes are fetched once more from the beginning, because copies of a Hub's servers may differ.  What
another process needs to go on from the last part that the store holds can be asked for at any moment.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock

from tasks._stores.store import OpenUpload, Store, Upload
from tasks._weights.buffers import Buffers
from tasks._weights.claims import FileState, UploadState
from tasks._weights.digest import Digest, DigestState
from tasks._weights.hub import Hub, HubFile
from tasks._weights.layout import weights_key
from tasks._weights.source import Source
from tasks.errors import IntegrityError, NotFound, TerminalError, TransientError
from tasks.records import FileEntry


class Stopped(TerminalError):
    """Another file failed, or a person interrupted; this one is given up."""


@dataclass
class Road:
    """What the files of one mirror share.

    ``advance`` is told of bytes that were read (or, negative, are to be read again); ``save`` writes the journal;
    ``read`` holds small files that were read already; once ``stop`` is set, files on their way end, and keep what
    they sent if ``keep``.
    """

    hub: Hub
    store: Store
    model: str
    commit: str
    buffers: Buffers
    advance: Callable[[int], None]
    save: Callable[[], None]
    read: Mapping[str, bytes] = field(default_factory=dict)
    stop: Event = field(default_factory=Event)
    keep: bool = True


class Passage:
    """One file on ``road``; ``run`` by one thread, while others may ask for its ``state``."""

    def __init__(self, road: Road, file: HubFile, begun: UploadState | None = None) -> None:
        self._road, self._file, self._begun = road, file, begun
        self._upload: Upload | None = None
        self._marks: deque[DigestState] = deque()
        self._reached: DigestState | None = None
        self._entry: FileEntry | None = None
        self._asking = Lock()

    def run(self) -> FileEntry:
        """Bring the file over and return the manifest's line for it.

        Raises ``IntegrityError`` for bytes that differ from the declared twice in a row, ``Stopped``, and what the
        Hub and the store raise.
        """
        try:
            self._entry = self._pour(self._begun)
        except IntegrityError:
            self._entry = self._pour(None)
        return self._entry

    def state(self) -> FileState:
        """Return what another process would have to know to go on."""
        path, upload = self._file.path, self._upload
        if self._entry is not None:
            return FileState(path=path, entry=self._entry)
        if upload is None or not upload.id or not self._file.sha256:
            return FileState(path=path)
        stored = upload.stored
        with self._asking:
            while self._marks and self._marks[0].size <= stored:
                self._reached = self._marks.popleft()
            reached = self._reached
        if reached is None or not reached.sha256:
            return FileState(path=path)
        begun = UploadState(
            id=upload.id,
            part_size=upload.part_size,
            stored=reached.size,
            hash_state=reached.sha256.hex(),
            crc64nvme=reached.crc64nvme,
        )
        return FileState(path=path, upload=begun)

    def _pour(self, begun: UploadState | None) -> FileEntry:
        upload, digest = self._open(begun)
        self._upload = upload
        self._road.advance(digest.size)
        try:
            self._send(upload, digest)
            digest.check()
            if upload.id:
                upload.flush()
                self._road.save()  # so that whoever finds the object without a word of it knows whose it is
            stored = upload.complete(digest.crc64nvme)
        except BaseException as error:
            self._end(upload, keep=self._road.keep and isinstance(error, TransientError | Stopped))
            self._road.advance(-digest.size)
            raise
        return digest.entry(stored)

    def _end(self, upload: Upload, *, keep: bool) -> None:
        """Leave the upload open for another process, if that will know enough of it to go on."""
        if keep:
            upload.suspend()
        if not keep or self.state().upload is None:
            upload.abort()
            self._upload = None

    def _open(self, begun: UploadState | None) -> tuple[Upload, Digest]:
        """Return the upload to go on with, or a new one."""
        road, file = self._road, self._file
        key = f"{weights_key(road.model, road.commit)}/{file.path}"
        metadata = {"sha256": file.sha256} if file.sha256 else {"git-sha1": file.git_sha1 or ""}
        self._marks.clear()
        self._reached = None
        if begun is not None:
            state = DigestState(begun.stored, bytes.fromhex(begun.hash_state), begun.crc64nvme)
            try:
                digest = Digest(file, state)
                upload = road.store.open_upload(key, file.size, metadata=metadata, resume=(begun.id, begun.stored))
            except (NotFound, ValueError):
                road.store.drop_upload(OpenUpload(key, begun.id, datetime.now(UTC)))
            else:
                self._reached = state
                return upload, digest
        return road.store.open_upload(key, file.size, metadata=metadata), Digest(file)

    def _send(self, upload: Upload, digest: Digest) -> None:
        road, file = self._road, self._file
        if (data := road.read.get(file.path)) is not None:
            self._send_part(upload, digest, bytearray(data))
            return
        with Source(road.hub, road.model, road.commit, file, digest.size) as source:
            while digest.size < file.size:
                buffer = road.buffers.take(min(upload.part_size, file.size - digest.size))
                try:
                    self._fill(buffer, source, digest)
                except BaseException:
                    road.buffers.give(buffer)
                    raise
                self._hand_over(upload, digest, buffer)
            source.end()

    def _send_part(self, upload: Upload, digest: Digest, part: bytearray) -> None:
        digest.update(memoryview(part))
        self._road.advance(len(part))
        upload.write(part, digest.end_part(part), lambda: None)

    def _fill(self, buffer: bytearray, source: Source, digest: Digest) -> None:
        view, filled = memoryview(buffer), 0
        while filled < len(view):
            if self._road.stop.is_set():
                raise Stopped("Another file failed.")
            taken = source.read_into(view[filled:])
            digest.update(view[filled : filled + taken])
            filled += taken
            self._road.advance(taken)

    def _hand_over(self, upload: Upload, digest: Digest, buffer: bytearray) -> None:
        crc = digest.end_part(buffer)
        self._marks.append(digest.state())
        upload.write(buffer, crc, lambda: self._road.buffers.give(buffer))
