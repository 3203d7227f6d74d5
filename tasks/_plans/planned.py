"""A plan as a value, and in the words that a person reads."""

from enum import StrEnum

from tasks._plans.capacity import Capacity
from tasks._plans.memory_fit import MemoryFit
from tasks._plans.plan_diff import Difference
from tasks._plans.plan_time import Expected
from tasks.records import Release, Value


class Meets(StrEnum):
    """What a request for the release would meet now."""

    NOTHING = "nothing"
    LIVE = "live"
    ON_ITS_WAY = "on_its_way"
    ASKED = "asked"
    REPLACES = "replaces"
    WAITS = "waits"


class Bytes(Value):
    """What would move, in bytes.  ``changed`` are of files that the live commit lacks; ``seconds`` is to fetch."""

    total: int
    changed: int
    to_fetch: int
    to_copy: int
    there: int
    seconds: float | None = None

    @property
    def sentence(self) -> str:
        """Return it for a person."""
        took = f", about {self.seconds:.0f} s" if self.seconds else ""
        return (
            f"{self.changed / 1e6:,.0f} of {self.total / 1e6:,.0f} MB differ from what is live; "
            f"{self.to_fetch / 1e6:,.0f} MB to fetch{took}, {self.to_copy / 1e6:,.0f} MB to copy in the store, "
            f"{self.there / 1e6:,.0f} MB there already"
        )


class Plan(Value):
    """A release that is not begun.  ``release`` has the number that it would get.

    ``moves`` and ``memory`` are None where the commit was refused before its files could be read.
    """

    version: int = 1
    release: Release
    ref: str
    live: Release | None
    meets: Meets
    other: str = ""
    """Name of the release, or id of the request, that it meets."""
    moves: Bytes | None = None
    changes: tuple[Difference, ...] = ()
    spec_changes: tuple[Difference, ...] = ()
    memory: MemoryFit | None = None
    capacity: Capacity
    traffic: str
    checks: tuple[str, ...]
    policy: str
    receipt: bool
    expected: Expected
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Return whether nothing is known that would make it fail."""
        return not self.refusals

    @property
    def is_needed(self) -> bool:
        """Return whether asking for it would do anything."""
        return self.meets not in {Meets.LIVE, Meets.ON_ITS_WAY, Meets.ASKED}

    def lines(self) -> tuple[str, ...]:
        """Return the plan for a person, what forbids it last."""
        release, live = self.release, self.live
        parts = (
            f"{release.name}: {release.model}@{self.ref}, commit {release.commit[:12]} at {release.hub}",
            f"live: {f'{live.name}, {live.model} commit {live.commit[:12]}' if live else 'nothing'}",
            f"asked for now: {_MET[self.meets].format(self.other)}",
            f"bytes: {self.moves.sentence}" if self.moves else "bytes: not known",
            *(f"changes {one.line}" for one in (*self.changes, *self.spec_changes)),
            f"memory: {self.memory.sentence}" if self.memory else "memory: not known",
            f"capacity: {self.capacity.sentence}",
            f"traffic: {self.traffic}",
            *(f"check {line}" for line in self.checks),
            f"policy {self.policy}",
            f"receipt: {'from the first step to the last, part of the verdict' if self.receipt else 'none'}",
            f"time: {self.expected.sentence}",
        )
        return (*parts, *(f"warning: {one}" for one in self.warnings), *(f"refused: {one}" for one in self.refusals))


_MET = {
    Meets.NOTHING: "it would begin at once",
    Meets.LIVE: "nothing would happen, {} is live already",
    Meets.ON_ITS_WAY: "nothing more would happen, {} is on its way already",
    Meets.ASKED: "nothing more would happen, request {} asks for the same",
    Meets.REPLACES: "it would take the place of {}, which has not shifted traffic yet",
    Meets.WAITS: "it would wait until {} has ended",
}
