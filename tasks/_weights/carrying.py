"""Several files on their way at once, and the journal that another process goes on from.

Whoever carries holds the commit's claim, and writes into it how far every file is: after each quarter percent of the
bytes, before a file is completed and after it, so that a killed mirror moves little twice and a large one does not
write for every part.  A claim that was lost ends the work at once, and leaves the uploads to whoever has it now.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event, Lock

from tasks._stores.store import Store
from tasks._weights.buffers import Buffers
from tasks._weights.claims import FileState, HeldClaim
from tasks._weights.hub import Hub, HubFile
from tasks._weights.passage import Passage, Road, Stopped
from tasks.errors import Conflict, TransientError
from tasks.records import FileEntry

FILES_AT_ONCE = 2
"""Files under way together; each holds one part in memory besides those in flight."""

BUFFER_BYTES = 24 * 2**20
"""All parts in memory together, being read or sent: three of the usual size.  More are not faster, and what is in
memory when the process is killed is fetched again."""

JOURNAL_SHARE = 0.0025
JOURNAL_PAUSE_S = 0.1
"""At most this often; a write is a request to the store."""

Progress = Callable[[int, int], None]
"""Called with the bytes that are in the store or on their way there, and with all bytes; from any thread."""


class Carrier:
    """Carries files of one commit under ``claim``; ``done`` are those that the store has, of ``total`` bytes."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        model: str,
        commit: str,
        claim: HeldClaim,
        *,
        read: dict[str, bytes],
        progress: Progress,
    ) -> None:
        self._claim, self._progress = claim, progress
        self._road = Road(hub, store, model, commit, Buffers(BUFFER_BYTES), self._advance, self._save, read)
        self._passages: list[Passage] = []
        self._whole: tuple[FileState, ...] = ()
        self._moved = self._total = self._unsaved = 0
        self._due, self._lock, self._saving = Event(), Lock(), Lock()

    def carry(self, files: tuple[HubFile, ...], whole: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        """Bring ``files`` over and return the manifest's lines of them and of those that were ``whole`` already.

        The first error ends all.  A transient one and an interrupt keep what was sent, for the next mirror to go on
        from; a terminal one drops the files on their way, and keeps the whole ones.  Raises ``Conflict`` when the
        claim was lost.
        """
        begun = {state.path: state.upload for state in self._claim.files}
        self._whole = tuple(FileState(path=entry.path, entry=entry) for entry in whole)
        self._total = sum(file.size for file in files) + sum(entry.size for entry in whole)
        self._passages = [Passage(self._road, file, begun.get(file.path)) for file in files]
        self._advance(sum(entry.size for entry in whole))
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="mirror") as pool:
            jobs = [pool.submit(passage.run) for passage in self._passages]
            try:
                self._attend(jobs)
            except BaseException as error:
                self._end(pool, keep=not _is_final(error))
                raise
            finally:
                self._claim.note(self._states())
        return (*whole, *(job.result() for job in jobs))

    def _attend(self, jobs: "list[Future[FileEntry]]") -> None:
        """Write the journal until all files are over; raises the first error."""
        for job in jobs:
            job.add_done_callback(lambda _: self._due.set())
        while True:
            self._due.wait(JOURNAL_PAUSE_S)
            self._due.clear()
            _raise_first(jobs)
            if all(job.done() for job in jobs):
                return
            self._save()
            wait(jobs, timeout=JOURNAL_PAUSE_S, return_when=FIRST_EXCEPTION)

    def _save(self) -> None:
        self._unsaved = 0
        with self._saving:
            states = self._states()
            if states != self._claim.files:
                self._claim.note(states)
                self._claim.renew()

    def _states(self) -> tuple[FileState, ...]:
        states = (passage.state() for passage in self._passages)
        return (*self._whole, *(state for state in states if state.entry or state.upload))

    def _end(self, pool: ThreadPoolExecutor, *, keep: bool) -> None:
        """Stop all files and wait for them; ``keep`` leaves their uploads open."""
        self._road.keep = keep
        self._road.stop.set()
        self._road.hub.interrupt()
        pool.shutdown(wait=True, cancel_futures=True)

    def _advance(self, size: int) -> None:
        with self._lock:
            self._moved += size
            self._unsaved += size
            if self._unsaved > JOURNAL_SHARE * self._total:
                self._due.set()
            self._progress(self._moved, self._total)


def _raise_first(jobs: "list[Future[FileEntry]]") -> None:
    errors = [job.exception() for job in jobs if job.done() and not job.cancelled()]
    first = next((error for error in errors if error and not isinstance(error, Stopped)), None)
    if first is not None:
        raise first


def _is_final(error: BaseException) -> bool:
    """Say whether the next mirror would meet the same error; a lost claim's uploads are somebody else's."""
    return not isinstance(error, TransientError | KeyboardInterrupt | Conflict)
