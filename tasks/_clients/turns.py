"""Who may answer when, and when nobody looked: what the record says of a release, laid beside what clients saw.

Traffic moves in two steps of a release, the shift and the way back.  From the moment that one begins either side may
answer; ``SETTLE_S`` after it has ended, new connections belong to one side alone.  A connection that was kept alive
stays where it is until that side parts with it, which the drain sees to, and is no fault.

A probe runs as long as the run that started it.  A run that was killed leaves a hole until the next one begins;
what clients met in it nobody knows.  That matters where traffic moved meanwhile.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from itertools import pairwise

from tasks._clients.requests import Beat, Outcome, Request
from tasks.records import Progress, ServiceRecord, StepName, Value

SETTLE_S = 5.0
"""Seconds after a switch until it holds for every new connection (goal C5)."""
HOLE_S = 3.0
"""Seconds between two beats of a probe, due each second, that are a hole."""


class Turn(Value):
    """A time in which a release may answer: from ``since``, and on new connections until ``until``; None is open."""

    release: str
    since: datetime | None = None
    until: datetime | None = None

    def covers(self, request: Request) -> bool:
        """Return whether the answer to ``request`` falls in this turn."""
        if request.release != self.release or request.answered is None:
            return False
        answered = request.at + timedelta(seconds=request.answered - request.started)
        in_time = self.until is None or request.kept_alive or request.at <= self.until
        return in_time and (self.since is None or answered >= self.since)


class Before(Value):
    """What was live before a release took traffic: another ``release`` or none, or (``again``) the release itself."""

    release: str | None = None
    again: bool = False


class Hole(Value):
    """A time in which no probe ran; ``moving`` when traffic moved, or may have, meanwhile."""

    since: datetime
    until: datetime
    moving: bool = False


def before(progress: Progress, record: ServiceRecord) -> Before:
    """Return what was live before ``progress`` took traffic, from the record at any time of it."""
    live, name = record.live, progress.release.name
    if live is None or live.name != name:
        return Before(release=live.name if live else None)
    if not progress.done(StepName.SHIFT):
        return Before(again=True)
    return Before(release=record.previous.name if record.previous else None)


def turns_of(progress: Progress, earlier: Before) -> tuple[Turn, ...]:
    """Return who may answer when, by the steps of ``progress`` that have begun so far."""
    name, shift, back = progress.release.name, progress.step(StepName.SHIFT), progress.step(StepName.MOVE_BACK)
    turns = []
    if earlier.again or shift is not None:
        since = shift.started_at if shift and not earlier.again else None
        turns.append(Turn(release=name, since=since, until=_settled(progress, StepName.MOVE_BACK)))
    if earlier.release is not None:
        turns.append(Turn(release=earlier.release, until=_settled(progress, StepName.SHIFT)))
        if back is not None:
            turns.append(Turn(release=earlier.release, since=back.started_at))
    return tuple(turns)


def judged(request: Request, turns: Collection[Turn] | None) -> Request:
    """Return ``request`` as wrong where a release answered it whole outside its turns; with None any may."""
    if turns is None or request.outcome is not Outcome.OK or any(turn.covers(request) for turn in turns):
        return request
    return request.model_copy(
        update={"outcome": Outcome.WRONG, "note": f"answered by {request.release}, which was not live then"}
    )


def holes(beats: Iterable[Beat], progress: Progress, now: datetime) -> tuple[Hole, ...]:
    """Return when no probe ran from the beginning of ``progress`` until ``now``.

    A probe that began anew leaves a hole however short: what was in flight at the end of the one before is unknown.
    So does the first one where traffic had moved before it: its machine carried on what another had begun.
    """
    moments = [(progress.opened_at, False), *((beat.at, beat.first) for beat in beats), (now, False)]
    anew = [number for number, (_, first) in enumerate(moments) if first][1:]
    moves = [(step.started_at, step.ended_at or now) for step in progress.steps if step.name in _MOVING]
    between = [
        Hole(since=one, until=other, moving=any(one < end and begin < other for begin, end in moves))
        for (one, _), (other, _) in pairwise(moments)
    ]
    return tuple(
        hole
        for number, hole in enumerate(between, 1)
        if (hole.until - hole.since).total_seconds() > HOLE_S
        or (number in anew and hole.until > hole.since)
        or (number == 1 and hole.moving)
    )


_MOVING = (StepName.SHIFT, StepName.MOVE_BACK)


def _settled(progress: Progress, name: StepName) -> datetime | None:
    """Return when a step that ended well has had its effect everywhere."""
    step = progress.step(name)
    if step is None or step.ended_at is None or not progress.done(name):
        return None
    return step.ended_at + timedelta(seconds=SETTLE_S)
