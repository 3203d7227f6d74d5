"""The witness: has the probe run through a whole release, whichever runs carry it, and makes the receipt of it.

What the probe meets goes to a journal on this machine, one for each release that takes traffic.  A run that was
killed leaves a journal that the next one goes on with; the hole between them is in the receipt.  The receipt and its
drawing lie in the store, beside the record.  The witness never stands in the way: what fails here makes the
receipt inconclusive, and leaves the release alone.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from pydantic import ValidationError

from tasks._clients.probe import Probe
from tasks._clients.receipt import UNANSWERED, Receipt, Seen, receipt, report_of, seen_since
from tasks._clients.receipt_text import sentence
from tasks._clients.requests import read_journal
from tasks._clients.timeline import timeline
from tasks._clients.turns import Before, before, holes, turns_of
from tasks._release.journal import evidence_key, evidence_name
from tasks._release.step_result import spec_of
from tasks._stores.store import Store
from tasks.errors import SlipwayError
from tasks.records import CheckResult, Progress, ServiceRecord, Verdict

RECEIPT, TIMELINE = "receipt.json", "timeline.svg"
KEPT = 100
"""Files of earlier releases that stay on this machine."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Watch:
    """A probe at work for the release whose files are called ``name``."""

    name: str
    probe: Probe


class Witness:
    """Watches one release at a time; journals lie in ``folder``, receipts in ``store``.  Any thread may call it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._watch: _Watch | None = None
        self._lock = RLock()

    def watch(self, address: str, progress: Progress, record: ServiceRecord, prompts: tuple[str, ...]) -> None:
        """Have a probe ask ``address`` for ``progress`` until ``testify``; one that does so already is left alone.

        The clients ask ``prompts`` at the rate of the spec, which may also ask for no probe.
        """
        if not spec_of(progress.release).probe.enabled:
            return
        with self._lock:
            name = evidence_name(progress)
            if self._watch is not None and self._watch.name == name:
                return
            self.close()
            try:
                self._watch = _Watch(name, self._started(address, progress, record, prompts))
            except (OSError, ValidationError) as error:
                log.warning("%s goes on unwatched: %s", progress.release.name, error)

    def seen(self, progress: Progress, since: datetime) -> Seen | None:
        """Return what the clients of this process met since then; None where nobody watches ``progress`` here."""
        with self._lock:
            watch = self._watch
        if watch is None or watch.name != evidence_name(progress):
            return None
        return seen_since(watch.probe.requests, since, slow_s=spec_of(progress.release).probe.slow)

    def testify(self, progress: Progress) -> CheckResult | None:
        """End the probe, wait for its last requests, and return what clients saw; None where no probe was asked for.

        Asked again with nothing watched since, it says the same.
        """
        spec = spec_of(progress.release)
        if not spec.probe.enabled:
            return None
        with self._lock:
            watch = self._watch if self._watch is not None and self._watch.name == evidence_name(progress) else None
        broken = _ended(watch.probe, grace_s=spec.deadlines.request) if watch else ""
        with self._lock:
            if watch is not None and self._watch is not watch:
                return _no_receipt("The probe was ended before its time.")
            self._watch = None if watch is not None else self._watch
        stored = self._stored(progress)
        if stored is not None and watch is None:
            return _check(stored)
        try:
            made = self._made(progress, broken)
        except (OSError, ValidationError) as error:
            return _no_receipt(f"Nothing is proved: no journal of a probe can be read here ({type(error).__name__}).")
        if stored is not None and stored.started_at != made.started_at:
            return _check(stored)  # another machine saw the beginning
        self._write(progress, made)
        return _check(made)

    def close(self) -> None:
        """End the probe at once, without a judgement; another run may go on."""
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.probe.abandon()

    def _started(self, address: str, progress: Progress, record: ServiceRecord, prompts: tuple[str, ...]) -> Probe:
        spec, journal = spec_of(progress.release), self._path(progress, "jsonl")
        self._make_room()
        with suppress(FileExistsError), self._path(progress, "json").open("xb") as file:
            file.write(before(progress, record).to_json())
        earlier = read_journal(journal).requests if journal.exists() else ()
        return Probe(
            address,
            model=spec.service,
            prompts=prompts,
            rate=spec.probe.rate,
            streams=spec.probe.streams,
            max_tokens=spec.probe.stream_tokens,
            deadline_s=spec.deadlines.request * 2,
            seed=max((request.id + 1 for request in earlier), default=0),
            options={"ignore_eos": True},
            await_live=not any(request.release for request in earlier),
            journal=journal,
        ).start()

    def _make_room(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        files = sorted(self._folder.glob("*.json*"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[KEPT:]:
            file.unlink(missing_ok=True)

    def _path(self, progress: Progress, suffix: str) -> Path:
        return self._folder / f"{evidence_name(progress)}.{suffix}"

    def _made(self, progress: Progress, broken: str) -> Receipt:
        """Return the receipt of what the journal holds so far."""
        lines = read_journal(self._path(progress, "jsonl"))
        earlier = Before.from_json(self._path(progress, "json").read_bytes())
        return receipt(
            lines.requests,
            report_of(lines.beats),
            turns=turns_of(progress, earlier),
            holes=holes(lines.beats, progress, datetime.now(UTC)),
            slow_s=spec_of(progress.release).probe.slow,
            broken=broken,
        )

    def _stored(self, progress: Progress) -> Receipt | None:
        try:
            found = self._store.get(evidence_key(progress, RECEIPT))
            return Receipt.from_json(found[0]) if found else None
        except (SlipwayError, ValidationError) as error:
            log.warning("The receipt of %s cannot be read: %s", progress.release.name, error)
            return None

    def _write(self, progress: Progress, made: Receipt) -> None:
        drawing = timeline(made, f"{progress.release.name}: requests by release").encode()
        try:
            for name, data in ((TIMELINE, drawing), (RECEIPT, made.to_json())):
                key = evidence_key(progress, name)
                there = self._store.get(key)
                self._store.put_if(key, data, expect=there[1] if there else None)
        except SlipwayError as error:
            log.warning("The receipt of %s is not in the store: %s", progress.release.name, error)


def _ended(probe: Probe, *, grace_s: float) -> str:
    """End the probe in good order; return what broke it before, or nothing."""
    try:
        probe.stop(grace_s)
    except Exception as error:
        log.exception("The probe broke; its receipt proves nothing, and the release goes on.")
        return type(error).__name__
    return ""


def _check(made: Receipt) -> CheckResult:
    return CheckResult(
        name="receipt",
        verdict=made.verdict,
        summary=sentence(made),
        evidence=tuple(
            f"{loss.after_s:.1f} s: {loss.kind} {loss.outcome} ({loss.release or UNANSWERED}): {loss.note}"
            for loss in made.losses
        ),
        measured={
            "requests": made.requests,
            "lost": made.lost,
            "truncated": made.truncated,
            "wrong": made.wrong,
            "slow": made.slow,
            "streams_open_across": made.streams_open_across,
            "slowest_gap_s": made.slowest_gap_s,
            "slowest_first_token_s": made.slowest_first_token_s,
            **({"achieved": round(made.probe.achieved, 3)} if made.probe else {}),
        },
    )


def _no_receipt(why: str) -> CheckResult:
    return CheckResult(name="receipt", verdict=Verdict.INCONCLUSIVE, summary=why)
