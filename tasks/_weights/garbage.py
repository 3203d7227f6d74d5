"""What in a store is garbage: pure decisions, one for each commit, with their reasons.

A published commit goes in two phases.  The first collection that finds nothing referring to it marks it; one that
finds the same at least the grace later, and nothing written to it since, deletes it.  So a commit that lost its last
reference by mistake can still be released anew for as long as the grace.  What an unfinished mirror left behind
needs no mark: nobody can use it, and its own age says how long nobody has gone on with it.  It stays or goes as a
whole, so a mirror of a wanted commit finds its claim and uploads again; beside a published commit they are swept.

What refers to a commit is said in ``tasks._weights.references``; whoever holds its claim keeps it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tasks._stores.store import OpenUpload, StoredObject
from tasks._weights.claims import Claim, is_free
from tasks._weights.layout import MANIFEST
from tasks._weights.references import Reference
from tasks.records import Commit, Value

GRACE_S = 7 * 86_400.0
"""Seconds, a week: time enough for a person to come back and miss something, and for any mirror to be taken up again.

One number for commits, claims and uploads; a bucket's own rule for unfinished uploads (AWS's examples: 7 days) may
come first, which costs a mirror bytes but harms nothing.
"""

CommitName = tuple[str, str]
"""Model and commit."""


class Mark(Value):
    """A commit that nothing referred to at ``since``.

    ``manifest`` is the text of its manifest from the moment that its deletion begins: should it turn out to be wanted
    after all, that is put back, by the next collection if this one is killed.
    """

    model: str
    commit: Commit
    since: datetime
    manifest: str | None = None


class Marks(Value):
    """All marks of a store, as ``gc.json`` holds them."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    marks: tuple[Mark, ...] = ()

    def of(self, name: CommitName) -> Mark | None:
        """Return the mark of a commit, if it has one."""
        return next((mark for mark in self.marks if (mark.model, mark.commit) == name), None)

    def without(self, *names: CommitName) -> "Marks":
        """Return the marks less those of ``names``."""
        kept = (mark for mark in self.marks if (mark.model, mark.commit) not in names)
        return self.model_copy(update={"marks": tuple(kept)})

    def having(self, mark: Mark) -> "Marks":
        """Return the marks with ``mark`` in place of an earlier one of its commit."""
        others = self.without((mark.model, mark.commit)).marks
        ordered = sorted((*others, mark), key=lambda one: (one.model, one.commit))
        return self.model_copy(update={"marks": tuple(ordered)})


@dataclass(frozen=True)
class Found:
    """What a store holds of one commit; ``touched`` is when any of it was last written."""

    touched: datetime
    published: bool = False
    objects: int = 0
    bytes: int = 0
    claim: Claim | None = None
    uploads: tuple[OpenUpload, ...] = ()

    def with_object(self, item: StoredObject, path: str) -> "Found":
        """Add an object of the commit's folder."""
        return replace(
            self,
            touched=max(self.touched, item.modified),
            published=self.published or path == MANIFEST,
            objects=self.objects + 1,
            bytes=self.bytes + item.size,
        )

    def with_upload(self, upload: OpenUpload) -> "Found":
        """Add an upload into the commit's folder."""
        return replace(self, touched=max(self.touched, upload.begun_at), uploads=(*self.uploads, upload))

    def with_claim(self, claim: Claim | None, written: datetime) -> "Found":
        """Add the commit's claim, None when it cannot be read."""
        return replace(self, touched=max(self.touched, written), claim=claim)


class Action(StrEnum):
    """What becomes of a commit; ``put back`` publishes again what a killed collection had begun to delete."""

    KEEP = "keep"
    MARK = "mark"
    DELETE = "delete"
    PUT_BACK = "put back"


class Decision(Value):
    """What becomes of one commit and ``why``; beside it, what is swept of a commit that stays.

    ``bytes`` counts a file once for each commit that holds it, also where a folder's commits share it by a hard link.
    """

    model: str
    commit: Commit
    action: Action
    why: tuple[str, ...]
    wanted: bool
    """Whether it stays for what refers to it, and so needs no mark."""
    published: bool
    objects: int
    bytes: int
    uploads: tuple[OpenUpload, ...] = ()
    stale_claim: bool = False

    @property
    def name(self) -> CommitName:
        """Return what tells the commit from all others."""
        return self.model, self.commit

    def kept(self, *why: str) -> "Decision":
        """Return the decision that it came to at a second look."""
        return self.model_copy(update={"action": Action.KEEP, "why": why, "uploads": ()})


def plan(
    found: Mapping[CommitName, Found],
    wanted: Iterable[Reference],
    marks: Marks,
    now: datetime,
    grace_s: float,
) -> tuple[Decision, ...]:
    """Return what becomes of every commit found, by name."""
    why: dict[CommitName, dict[str, None]] = {}
    for one in wanted:
        why.setdefault((one.model, one.commit), {})[one.why] = None
    return tuple(
        decide(name, found[name], tuple(why.get(name, ())), marks.of(name), now, timedelta(seconds=grace_s))
        for name in sorted(found)
    )


def decide(
    name: CommitName, found: Found, wanted: tuple[str, ...], mark: Mark | None, now: datetime, grace: timedelta
) -> Decision:
    """Return what becomes of one commit; ``wanted`` is what refers to it."""
    held = found.claim is not None and not is_free(found.claim, now)
    action, why = (Action.KEEP, ("somebody is at work on it",)) if held else _fate(found, wanted, mark, now, grace)
    settled = found.published and not held
    idle = tuple(upload for upload in found.uploads if settled and _last_work(found, upload) + grace <= now)
    return Decision(
        model=name[0],
        commit=name[1],
        action=action,
        why=why,
        wanted=action is Action.KEEP and not held and bool(wanted),
        published=found.published,
        objects=found.objects,
        bytes=found.bytes,
        uploads=found.uploads if action is Action.DELETE else idle,
        stale_claim=settled and found.claim is not None and found.claim.renewed_at + grace <= now,
    )


def marked(marks: Marks, decisions: Iterable[Decision], now: datetime) -> Marks:
    """Return the marks after ``decisions``: without commits that are wanted or gone, with those newly unwanted."""
    of_all = {decision.name: decision for decision in decisions}
    names = ((mark.model, mark.commit) for mark in marks.marks)
    kept = marks.without(*(name for name in names if name not in of_all or of_all[name].wanted))
    for decision in of_all.values():
        if decision.action is Action.MARK and kept.of(decision.name) is None:
            kept = kept.having(Mark(model=decision.model, commit=decision.commit, since=now))
    return kept


def _fate(
    found: Found, wanted: tuple[str, ...], mark: Mark | None, now: datetime, grace: timedelta
) -> tuple[Action, tuple[str, ...]]:
    begun = mark is not None and mark.manifest is not None
    if wanted:
        return (Action.PUT_BACK if begun and not found.published else Action.KEEP), wanted
    if not found.published:
        return _fate_of_a_rest(found.touched + grace, now, begun=begun)
    if mark is None:
        return Action.MARK, (f"nothing refers to it: deleted after {_day(now + grace)}",)
    due = max(mark.since, found.touched) + grace
    if now < due:
        return Action.KEEP, (f"nothing refers to it: deleted after {_day(due)}",)
    return Action.DELETE, (f"nothing has referred to it since {_day(mark.since)}",)


def _fate_of_a_rest(due: datetime, now: datetime, *, begun: bool) -> tuple[Action, tuple[str, ...]]:
    if begun:
        return Action.DELETE, ("an earlier collection began to delete it",)
    if now < due:
        return Action.KEEP, (f"an unfinished mirror: deleted after {_day(due)} if nobody goes on with it",)
    return Action.DELETE, ("an unfinished mirror that nobody went on with",)


def _last_work(found: Found, upload: OpenUpload) -> datetime:
    return max(upload.begun_at, found.claim.renewed_at) if found.claim else upload.begun_at


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
