"""What a promote, a roll back or a restore would do, before anything moves: of the record and the target alone."""

from tasks._plans.plan import met
from tasks._plans.planned import Meets
from tasks._release.machine import LEADS_BACK, PLANS, Health, Observed
from tasks.records import Commit, Kind, Progress, Request, ServiceRecord, StepName, Value


class Foreseen(Value):
    """A wish that nobody has asked for yet.

    ``warm`` says whether its release runs, None where the target does not tell.  ``undone`` says what would become of
    the release on its way instead, where that is what a roll back undoes.
    """

    version: int = 1
    kind: Kind
    release: str
    commit: Commit
    live: str | None
    meets: Meets
    other: str = ""
    warm: bool | None = None
    undone: str = ""
    steps: tuple[StepName, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return it for a person."""
        live = f"live: {self.live or 'nothing'}"
        if self.undone:
            return (f"{self.release} ({self.commit[:12]}) is on its way, and {self.undone}", live)
        what = f"{self.kind.value.replace('_', ' ')} to {self.release} ({self.commit[:12]})"
        return (f"{what}: {_MET[self.meets].format(self.other)}", live, self._warmth(), f"steps: {self._steps()}")

    def _warmth(self) -> str:
        if self.warm is None:
            return "the target does not tell whether it runs"
        return "it runs, so traffic moves within seconds" if self.warm else "it does not run, so it is started first"

    def _steps(self) -> str:
        return ", ".join(step.value.replace("_", " ") for step in self.steps)


def foreseen(record: ServiceRecord, wish: Request, shown: Observed | None) -> Foreseen:
    """Return what ``wish`` would do; ``shown`` is what the target shows, None where it is away."""
    release = wish.release
    placement = shown.placements.get(release.name) if shown else None
    healthy = placement is not None and placement.health is Health.HEALTHY
    so = healthy and placement is not None and placement.live and wish.kind is not Kind.ROLL_BACK
    meets, other = met(record, wish, healthy=so)
    return Foreseen(
        kind=wish.kind,
        release=release.name,
        commit=release.commit,
        live=record.live.name if record.live else None,
        meets=meets,
        other=other,
        warm=None if shown is None else healthy,
        steps=PLANS[wish.kind],
    )


def undoing(record: ServiceRecord) -> Foreseen | None:
    """Return what a roll back without a name does to the release on its way; None where nothing is."""
    current = record.current
    if current is None:
        return None
    return Foreseen(
        kind=Kind.ROLL_BACK,
        release=current.release.name,
        commit=current.release.commit,
        live=record.live.name if record.live else None,
        meets=Meets.NOTHING,
        undone=_undone(current),
    )


def _undone(current: Progress) -> str:
    if current.failure is not None:
        return "is being undone already"
    return "leads back already, which is not turned round" if current.kind in LEADS_BACK else "would be undone"


_MET = {
    Meets.NOTHING: "it would begin at once",
    Meets.LIVE: "nothing would happen, it is live already",
    Meets.ON_ITS_WAY: "nothing more would happen, {} is on its way already",
    Meets.ASKED: "nothing more would happen, request {} asks for the same",
    Meets.REPLACES: "it would take the place of {}, which has not shifted traffic yet",
    Meets.WAITS: "it would wait until {} has ended",
}
