"""One verified copy of a commit in the store: Hub to store in one pass, without a disk.

The order is what makes it safe.  Whatever can be refused is refused before the first large byte.  One process at a
time works on a commit's folder, and whoever comes second waits and returns the first one's manifest.  Files that an
earlier commit has are copied within the store, files that an earlier mirror left are kept, and the rest is fetched.
The manifest is written last and only if there is none: no manifest means not there.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tasks._clock import Clock
from tasks._stores.store import Store
from tasks._weights.carrying import Carrier, Progress
from tasks._weights.claims import Claim, HeldClaim, read_claim, take_claim
from tasks._weights.hub import Hub, HubFile, Listing
from tasks._weights.inspection import Commit, Inspection, inspect
from tasks._weights.layout import HASH, SIGNATURE, manifest_key, weights_key
from tasks._weights.leftovers import completed, donors
from tasks._weights.manifests import read_manifest
from tasks._weights.planning import CopyJob, Plan, plan
from tasks._weights.safety import admit, refuse_licence
from tasks._weights.verify import verify
from tasks.errors import Conflict, IntegrityError, SlipwayError, Unreachable
from tasks.records import FileEntry, Manifest, Value
from tasks.spec import Limits

log = logging.getLogger(__name__)

COPIES_AT_ONCE = 4
LOOK_S = 0.5
"""Seconds between two looks at a claim that another process holds."""

PATIENCE_S = 24 * 3600.0
"""The longest wait for another mirror of the same commit, which renews its claim as long as it lives."""

_UNREAD = FileEntry(path="none", size=0, sha256="0" * 64)


class Mirrored(Value):
    """A published commit, and what this call moved for it: bytes from the Hub, and bytes copied in the store.

    ``unchanged`` says that another call had published it, and nothing had to be mended.
    """

    manifest: Manifest
    unchanged: bool = False
    from_hub: int = 0
    copied: int = 0


def mirror(
    hub: Hub,
    store: Store,
    model: str,
    commit: str,
    limits: Limits,
    *,
    repair: bool = False,
    progress: Progress = lambda *_: None,
    announce: Callable[[Plan], None] = lambda _: None,
    sign: Callable[[Manifest], bytes] | None = None,
    clock: Clock | None = None,
) -> Mirrored:
    """Bring ``commit`` of ``model`` into ``store`` if it is not there, and return its manifest.

    A published commit costs one request; with ``repair`` its objects are looked at as well, and those that are gone
    or damaged are fetched again.  ``announce`` is told what will move before anything does.  ``sign`` makes the
    signature that is stored beside the manifest.

    Raises ``Refused`` before the first large byte, ``IntegrityError`` for a file that differs from what the Hub
    declares twice in a row, and whatever ``Hub`` and ``Store`` raise.  Nothing is published then.
    """
    published = read_manifest(store, model, commit)
    if published:
        refuse_licence(published.license, limits.licences)
    damaged = _damaged(store, published) if published and repair else frozenset()
    if published and not damaged:
        return Mirrored(manifest=published, unchanged=True)
    for claim in _claims(store, model, commit, clock or Clock()):
        found = read_manifest(store, model, commit)
        if isinstance(claim, HeldClaim):
            with claim.kept():
                if found and not damaged:
                    claim.finish()
                    return Mirrored(manifest=found, unchanged=True)
                work = _Work(hub, store, model, commit, claim, progress, announce)
                return work.mend(found, damaged) if found else work.publish(limits, sign)
        if found and not damaged:
            return Mirrored(manifest=found, unchanged=True)
    raise Unreachable(f"Another mirror of {model}@{commit} does not end.", remedy="Look at the machine it runs on.")


def survey(hub: Hub, store: Store, model: str, commit: str, limits: Limits) -> Plan:
    """Return what ``mirror`` would move now, judged by names and sizes alone; nothing is written."""
    published = read_manifest(store, model, commit)
    if published is not None:
        return Plan(whole=published.files, copies=(), fetches=())
    wanted = _admitted(hub.listing(model, commit), limits)
    claim, stored = read_claim(store, model, commit), tuple(store.list(weights_key(model, commit)))
    return plan(model, commit, wanted, stored, claim.files if claim else (), donors(store, model, commit))


def _claims(store: Store, model: str, commit: str, clock: Clock) -> Iterator[HeldClaim | Claim]:
    """Yield the claim that another process holds, again and again, and at last our own."""
    waiting_for = ""
    for _ in clock.ticks(PATIENCE_S, LOOK_S):
        claim = take_claim(store, model, commit)
        if isinstance(claim, Claim) and claim.process != waiting_for:
            log.warning("Waiting for another mirror of %s@%s (process %s).", model, commit, claim.process)
            waiting_for = claim.process
        yield claim
        if isinstance(claim, HeldClaim):
            return


class _Work:
    """What is done under a held claim."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        model: str,
        commit: str,
        claim: HeldClaim,
        progress: Progress,
        announce: Callable[[Plan], None],
    ) -> None:
        self._hub, self._store, self._model, self._commit = hub, store, model, commit
        self._claim, self._progress, self._announce = claim, progress, announce
        self._folder = weights_key(model, commit)
        self._begun, self._received, self._copied = time.monotonic(), hub.received, 0

    def publish(self, limits: Limits, sign: Callable[[Manifest], bytes] | None) -> Mirrored:
        """Bring all files over and write the manifest."""
        listing = self._hub.listing(self._model, self._commit)
        wanted = _admitted(listing, limits)
        planned = self._plan(wanted)
        stored = {entry.path: f"{self._folder}/{entry.path}" for entry in planned.whole}
        stored |= {job.file.path: job.source.key for job in planned.copies}
        found = inspect(Commit(self._hub, self._store, self._model, self._commit, stored), wanted)
        if sign is not None:
            sign(self._manifest(listing, (_UNREAD,), found))  # a key that cannot sign is found out before the bytes
        entries = self._bring(planned, found)
        manifest = self._manifest(listing, entries, found)
        if sign is not None:
            self._store.put_if(f"{self._folder}/{SIGNATURE}", sign(manifest), expect=None)
        return self._finish(manifest)

    def mend(self, published: Manifest, damaged: frozenset[str]) -> Mirrored:
        """Fetch the damaged files of a published commit again, and write down how the store calls them now."""
        files = tuple(
            HubFile(path=file.path, size=file.size, sha256=file.sha256, git_sha1=None)
            for file in published.files
            if file.path in damaged
        )
        for path in damaged:
            self._store.remove(f"{self._folder}/{path}")
        if HASH in damaged:
            self._store.put_if(f"{self._folder}/{HASH}", self._commit.encode(), expect=None)
        planned = Plan(whole=(), copies=(), fetches=files)
        mended = {entry.path: entry for entry in self._bring(planned, Inspection())}
        entries = tuple(_called(file, mended.get(file.path, file)) for file in published.files)
        found = self._store.get(manifest_key(self._model, self._commit))
        manifest = published.model_copy(update={"files": entries})
        self._store.put_if(
            manifest_key(self._model, self._commit), manifest.to_json(), expect=found[1] if found else None
        )
        self._claim.finish()
        return self._mirrored(manifest)

    def _plan(self, wanted: tuple[HubFile, ...]) -> Plan:
        stored = tuple(self._store.list(self._folder))
        self._claim.note(completed(self._store, self._folder, wanted, stored, self._claim.files))
        others = donors(self._store, self._model, self._commit)
        planned = plan(self._model, self._commit, wanted, stored, self._claim.files, others)
        fetched = {file.path for file in planned.fetches}
        known = {state.upload.id for state in self._claim.files if state.upload and state.path in fetched}
        for upload in self._store.open_uploads(self._folder):
            if upload.id not in known:
                self._store.drop_upload(upload)
        for key in planned.foreign:
            self._store.remove(key)
        return planned

    def _bring(self, planned: Plan, found: Inspection) -> tuple[FileEntry, ...]:
        self._announce(planned)
        self._store.require_room(planned.to_fetch)
        with ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="copy") as pool:
            copies = list(pool.map(self._copy, planned.copies))
        pairs = zip(planned.copies, copies, strict=True)
        missed = tuple(job.file for job, entry in pairs if entry is None)
        copied = tuple(entry for entry in copies if entry is not None)
        self._copied = sum(entry.size for entry in copied)
        carrier = Carrier(
            self._hub, self._store, self._model, self._commit, self._claim, read=found.read, progress=self._progress
        )
        entries = carrier.carry((*planned.fetches, *missed), (*planned.whole, *copied))
        return tuple(sorted(entries, key=lambda entry: entry.path))

    def _copy(self, job: CopyJob) -> FileEntry | None:
        """Copy a file from another commit; None when it is no longer there as it was."""
        copied = self._store.copy(job.source, f"{self._folder}/{job.file.path}")
        if copied is None:
            return None
        same = copied.crc64nvme is None or job.entry.crc64nvme in (None, copied.crc64nvme)
        if copied.size != job.file.size or not same:
            raise IntegrityError(f"The store copied {job.source.key} to other bytes.", remedy="Check the store.")
        return FileEntry(
            path=job.file.path,
            size=job.file.size,
            sha256=job.entry.sha256,
            git_sha1=job.file.git_sha1,
            crc64nvme=job.entry.crc64nvme,
            etag=copied.version,
        )

    def _manifest(self, listing: Listing, entries: tuple[FileEntry, ...], found: Inspection) -> Manifest:
        facts = listing.facts
        return Manifest(
            model=self._model,
            commit=self._commit,
            source=self._hub.endpoint,
            created_at=datetime.now(UTC),
            files=entries,
            license=facts.license,
            gated=facts.gated,
            tags=facts.tags,
            parameters=found.parameters,
            dtypes=found.dtypes,
            seconds=round(time.monotonic() - self._begun, 3),
            from_hub=self._hub.received - self._received,
        )

    def _finish(self, manifest: Manifest) -> Mirrored:
        """Publish, if the claim is ours still; another writer's manifest of the same files is as good."""
        self._claim.renew()
        for upload in self._store.open_uploads(self._folder):  # whose id got lost on the way
            self._store.drop_upload(upload)
        self._store.put_if(f"{self._folder}/{HASH}", self._commit.encode(), expect=None)
        try:
            self._store.put_if(manifest_key(self._model, self._commit), manifest.to_json(), expect=None)
        except Conflict:
            winner = read_manifest(self._store, self._model, self._commit)
            if winner is None or [f.sha256 for f in winner.files] != [f.sha256 for f in manifest.files]:
                raise
            manifest = winner
        try:
            self._claim.finish()
        except SlipwayError as error:
            log.warning("The claim on %s stays until it is collected: %s", self._folder, error)
        return self._mirrored(manifest)

    def _mirrored(self, manifest: Manifest) -> Mirrored:
        return Mirrored(manifest=manifest, from_hub=self._hub.received - self._received, copied=self._copied)


def _admitted(listing: Listing, limits: Limits) -> tuple[HubFile, ...]:
    refuse_licence(listing.facts.license, limits.licences)
    return admit(listing.files, limits)


def _damaged(store: Store, published: Manifest) -> frozenset[str]:
    found = verify(store, published.model, published.commit, deep=False)
    return frozenset(damage.path for damage in found.damaged)


def _called(file: FileEntry, mended: FileEntry) -> FileEntry:
    """Return the manifest's line of a file with what the store calls its object now."""
    return file.model_copy(update={"crc64nvme": mended.crc64nvme, "etag": mended.etag})
