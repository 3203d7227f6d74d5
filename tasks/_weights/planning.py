"""What bringing a commit over will move: files that are there, files to copy in the store, files to fetch.

Decided before anything is moved, from what the store lists and what the last holder of the claim wrote down, so
that a person sees size and cost first.  An object counts as there only if its holder hashed it and the store still
calls it by the same version; whatever else lies in the folder belongs to nobody and is removed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks._stores.store import StoredObject
from tasks._weights.claims import FileState
from tasks._weights.hub import HubFile
from tasks._weights.layout import weights_key
from tasks.records import FileEntry, Manifest

REQUESTS_PER_FETCH = 6
"""Of a file beside its parts: header and bytes at the Hub and at its host, beginning and completing its upload."""

PART_BYTES = 8 * 2**20


@dataclass(frozen=True)
class CopyJob:
    """A file that another commit has as well: ``source`` is its object there, ``entry`` its line in that manifest."""

    file: HubFile
    source: StoredObject
    entry: FileEntry


@dataclass(frozen=True)
class Plan:
    """What becomes of each file, and the objects that are in the way; ``rate`` is bytes per second, if known."""

    whole: tuple[FileEntry, ...]
    copies: tuple[CopyJob, ...]
    fetches: tuple[HubFile, ...]
    foreign: tuple[str, ...] = ()
    begun: int = 0
    rate: float | None = None

    @property
    def to_fetch(self) -> int:
        """Return the bytes that will come from the Hub."""
        return sum(file.size for file in self.fetches) - self.begun

    @property
    def to_copy(self) -> int:
        """Return the bytes that the store will copy."""
        return sum(job.file.size for job in self.copies)

    @property
    def there(self) -> int:
        """Return the bytes that an earlier mirror left in the store."""
        return sum(entry.size for entry in self.whole) + self.begun

    @property
    def requests(self) -> int:
        """Return about how many requests it will take, to the Hub and to the store together."""
        parts = sum(-(-file.size // PART_BYTES) for file in self.fetches)
        return parts + REQUESTS_PER_FETCH * len(self.fetches) + 2 * len(self.copies)

    @property
    def seconds(self) -> float | None:
        """Return how long the bytes will take at the rate of the last mirror of the model; None if there was none."""
        return self.to_fetch / self.rate if self.rate else None

    @property
    def sentence(self) -> str:
        """Return what a person reads of size and cost before anything moves."""
        time_left = f", about {self.seconds:.0f} s at the rate of the last mirror" if self.seconds else ""
        return (
            f"{self.to_fetch / 1e6:,.0f} MB in {len(self.fetches)} files to fetch, {self.to_copy / 1e6:,.0f} MB to "
            f"copy in the store, {self.there / 1e6:,.0f} MB there already; about {self.requests} requests{time_left}"
        )


def plan(
    model: str,
    commit: str,
    wanted: Iterable[HubFile],
    stored: Iterable[StoredObject],
    states: Iterable[FileState],
    donors: Iterable[Manifest],
) -> Plan:
    """Decide what becomes of each wanted file.

    ``stored`` is what lies in the commit's folder, ``states`` what its claim tells, ``donors`` the manifests of
    other commits of the model, best first.
    """
    folder = weights_key(model, commit)
    objects = {item.key.removeprefix(f"{folder}/"): item for item in stored}
    known = {state.path: state for state in states}
    manifests = tuple(donors)
    sources = _sources(manifests)
    whole: list[FileEntry] = []
    copies: list[CopyJob] = []
    fetches: list[HubFile] = []
    for file in wanted:
        entry = known[file.path].entry if file.path in known else None
        if entry is not None and _is_file(entry, file) and _is_object(entry, objects.get(file.path)):
            whole.append(entry)
        elif (source := sources.get(file.sha256 or file.git_sha1 or "")) is not None and source[0].size == file.size:
            copies.append(CopyJob(file, *source))
        else:
            fetches.append(file)
    kept = {entry.path for entry in whole}
    begun = (known[file.path].upload for file in fetches if file.path in known)
    return Plan(
        whole=tuple(whole),
        copies=tuple(copies),
        fetches=tuple(fetches),
        foreign=tuple(f"{folder}/{path}" for path in objects if path not in kept),
        begun=sum(upload.stored for upload in begun if upload),
        rate=next((m.from_hub / m.seconds for m in manifests if m.from_hub and m.seconds), None),
    )


def _sources(donors: Iterable[Manifest]) -> Mapping[str, tuple[StoredObject, FileEntry]]:
    """Return, by declared hash, an object that has it; only of manifests that tell an object's version."""
    found: dict[str, tuple[StoredObject, FileEntry]] = {}
    for manifest in donors:
        folder = weights_key(manifest.model, manifest.commit)
        for entry in manifest.files:
            if entry.etag is None:
                continue
            metadata = {"git-sha1": entry.git_sha1} if entry.git_sha1 else {"sha256": entry.sha256}
            key = f"{folder}/{entry.path}"
            source = StoredObject(key, entry.size, entry.etag, manifest.created_at, entry.crc64nvme, metadata)
            found.setdefault(entry.git_sha1 or entry.sha256, (source, entry))
    return found


def _is_file(entry: FileEntry, file: HubFile) -> bool:
    return (entry.size, entry.git_sha1) == (file.size, file.git_sha1) and file.sha256 in (None, entry.sha256)


def _is_object(entry: FileEntry, stored: StoredObject | None) -> bool:
    return stored is not None and (stored.size, stored.version) == (entry.size, entry.etag)
