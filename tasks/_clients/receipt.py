"""The receipt: what clients saw while a release happened, counted from every request of the probe.

It is a pure function of the requests, so that it can be made again from the probe's journal and judged by
another process.  Nothing is left out: each request that was started is in it exactly once, those in flight at
the end included, and ``requests`` is the sum of ``by_release`` and of ``seconds``.

A journal may come from several processes, one after the other, and outlive a restart of the machine.  So moments lie
on the wall clock's line, as each request's start was read from it, and durations are those of the monotonic clock.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field

from tasks._clients.requests import Beat, Kind, Outcome, Request
from tasks._clients.switches import Switch, switches, wall
from tasks._clients.turns import Hole, Turn, judged
from tasks.records import Value, Verdict

SLOW_S = 10.0
LOSSES_SHOWN = 20
LEAST_ACHIEVED = 0.95
UNANSWERED = "(none)"
MOMENTS = ("started", "answered", "first", "last", "ended")


class Second(Value):
    """What ended in one second, counted from the first request.  Seconds without an end are left out.

    ``failed`` were lost, truncated or wrong; ``slow`` ones were not.
    """

    second: int
    by_release: dict[str, int]
    failed: int = 0
    slow: int = 0


class Loss(Value):
    """One request that was lost, truncated or answered by the wrong release."""

    id: int
    kind: Kind
    outcome: Outcome
    release: str | None
    after_s: float
    note: str


class Gap(Value):
    """A time in which no probe ran, in seconds from the first request; ``moving`` when traffic moved meanwhile."""

    from_s: float
    to_s: float
    moving: bool


class ProbeReport(Value):
    """What the probe itself did: whether it asked what it was told to, and what it cost.

    The sums of its beats, and the longest stall; see ``tasks._clients.requests.Beat``.
    """

    due: int = 0
    made: int = 0
    asked_s: float
    open_s: float
    cpu_s: float
    wall_s: float
    stall_s: float

    @property
    def achieved(self) -> float:
        """Return the share of what was asked that was achieved, of requests or of streams; 1 when nothing was."""
        of_plain = self.made / self.due if self.due else 1.0
        of_streams = self.open_s / self.asked_s if self.asked_s else 1.0
        return min(of_plain, of_streams)


class Receipt(Value):
    """The proof.  Times are seconds unless they are named ``at``.

    ``wrong`` answers were whole, by a release that was not live then.  ``slow`` ones were good, but their first
    token, their end where they are plain, or a gap inside took longer than ``slow_s``.  ``faults`` counts them all by
    release.  ``may_answer`` are those that were live at some time, where that is known; ``broken`` says what ended
    the probe before its time.  Version 2 added all of these, ``gaps``, and the plain requests in ``probe``.
    """

    version: Annotated[int, Field(ge=1, le=2)] = 2
    started_at: datetime | None
    ended_at: datetime | None
    requests: int
    streams: int
    plain: int
    lost: int
    truncated: int
    wrong: int = 0
    slow: int = 0
    slow_s: float = SLOW_S
    by_release: dict[str, int]
    faults: dict[str, dict[str, int]] = Field(default_factory=dict)
    switches: tuple[Switch, ...]
    gaps: tuple[Gap, ...] = ()
    slowest_gap_s: float
    slowest_first_token_s: float
    odd: dict[str, int]
    seconds: tuple[Second, ...]
    losses: tuple[Loss, ...]
    probe: ProbeReport | None
    may_answer: tuple[str, ...] | None = None
    broken: str = ""

    @property
    def verdict(self) -> Verdict:
        """Return fail where a request failed, inconclusive where too little was seen, else pass.

        A hole in which traffic moved hides what the receipt is for; one elsewhere is only told.
        """
        if self.failed:
            return Verdict.FAIL
        kept_rate = self.probe is None or self.probe.achieved >= LEAST_ACHIEVED
        unseen = self.broken or any(gap.moving for gap in self.gaps)
        if not self.requests or not kept_rate or unseen:
            return Verdict.INCONCLUSIVE
        return Verdict.PASS

    @property
    def failed(self) -> int:
        """Return how many requests were lost, truncated or answered by the wrong release."""
        return self.lost + self.truncated + self.wrong

    @property
    def streams_open_across(self) -> int:
        """Return how many streams were open across a switch, over all switches."""
        return sum(switch.streams_open for switch in self.switches)


class Seen(Value):
    """What ended so far of the requests that started since a moment; ``slow`` ones were good, as in ``Receipt``."""

    requests: int
    failed: int
    slow: int


def seen_since(requests: Iterable[Request], since: datetime, *, slow_s: float = SLOW_S) -> Seen:
    """Count the requests that started at ``since`` or later."""
    every = [request for request in requests if request.at >= since]
    return Seen(
        requests=len(every),
        failed=sum(request.outcome is not Outcome.OK for request in every),
        slow=sum(_is_slow(request, slow_s) for request in every),
    )


def report_of(beats: Sequence[Beat]) -> ProbeReport:
    """Return what the probes of these beats did together."""
    return ProbeReport(
        due=sum(beat.due for beat in beats),
        made=sum(beat.made for beat in beats),
        asked_s=round(sum(beat.asked_s for beat in beats), 3),
        open_s=round(sum(beat.open_s for beat in beats), 3),
        cpu_s=round(sum(beat.cpu_s for beat in beats), 3),
        wall_s=round(sum(beat.wall_s for beat in beats), 3),
        stall_s=max((beat.stall_s for beat in beats), default=0.0),
    )


def receipt(
    requests: Iterable[Request],
    probe: ProbeReport | None = None,
    *,
    turns: Collection[Turn] | None = None,
    holes: Sequence[Hole] = (),
    slow_s: float = SLOW_S,
    broken: str = "",
) -> Receipt:
    """Count ``requests``, in any order, into a receipt.

    ``turns`` say which release may answer when, ``holes`` when no probe ran; what took longer than ``slow_s``
    seconds is slow, and ``broken`` names what ended the probe before its time.
    """
    every = [_on_the_wall(judged(request, turns)) for request in requests]
    every.sort(key=lambda request: (request.started, request.id))
    zero = every[0].started if every else holes[0].since.timestamp() if holes else 0.0
    failed = [request for request in every if request.outcome is not Outcome.OK]
    failed.sort(key=lambda request: (request.ended, request.id))
    streams = [request for request in every if request.kind is Kind.STREAM]
    outcomes = Counter(request.outcome for request in every)
    last = max(every, key=lambda request: request.ended, default=None)
    return Receipt(
        started_at=every[0].at if every else None,
        ended_at=wall(last, last.ended) if last else None,
        requests=len(every),
        streams=len(streams),
        plain=len(every) - len(streams),
        lost=outcomes[Outcome.LOST],
        truncated=outcomes[Outcome.TRUNCATED],
        wrong=outcomes[Outcome.WRONG],
        slow=sum(_is_slow(request, slow_s) for request in every),
        slow_s=slow_s,
        by_release=_by_release(every),
        faults=_faults(every, slow_s),
        switches=switches(every, zero),
        gaps=tuple(_gap(hole, zero) for hole in holes),
        slowest_gap_s=round(max((r.longest_gap_s for r in streams), default=0.0), 3),
        slowest_first_token_s=round(
            max((r.first - r.started for r in streams if r.first is not None), default=0.0), 3
        ),
        odd=dict(sorted(Counter(r.note for r in every if r.note and r.outcome is Outcome.OK).items())),
        seconds=_seconds(every, zero, slow_s),
        losses=tuple(_loss(request, zero) for request in failed[:LOSSES_SHOWN]),
        probe=probe,
        may_answer=None if turns is None else tuple(sorted({turn.release for turn in turns})),
        broken=broken,
    )


def _on_the_wall(request: Request) -> Request:
    """Return ``request`` with its moments in seconds since 1970 instead of one machine's monotonic clock."""
    offset = request.at.timestamp() - request.started
    moments = {name: getattr(request, name) for name in MOMENTS}
    return request.model_copy(update={name: at + offset for name, at in moments.items() if at is not None})


def _is_slow(request: Request, slow_s: float) -> bool:
    if request.outcome is not Outcome.OK:
        return False
    arrived = request.first if request.kind is Kind.STREAM and request.first is not None else request.ended
    return max(arrived - request.started, request.longest_gap_s) > slow_s


def _faults(requests: Iterable[Request], slow_s: float) -> dict[str, dict[str, int]]:
    """Return how many requests of each release failed, and how; a release without any is left out."""
    found: dict[str, Counter[str]] = {}
    for request in requests:
        fault = "slow" if _is_slow(request, slow_s) else request.outcome.value
        if fault != Outcome.OK.value:
            found.setdefault(request.release or UNANSWERED, Counter())[fault] += 1
    return {release: dict(sorted(counts.items())) for release, counts in sorted(found.items())}


def _gap(hole: Hole, zero: float) -> Gap:
    since, until = (round(moment.timestamp() - zero, 3) for moment in (hole.since, hole.until))
    return Gap(from_s=since, to_s=until, moving=hole.moving)


def _by_release(requests: Iterable[Request]) -> dict[str, int]:
    return dict(sorted(Counter(request.release or UNANSWERED for request in requests).items()))


def _seconds(requests: Sequence[Request], zero: float, slow_s: float) -> tuple[Second, ...]:
    ended: dict[int, list[Request]] = {}
    for request in requests:
        ended.setdefault(int(request.ended - zero), []).append(request)
    return tuple(
        Second(
            second=second,
            by_release=_by_release(members),
            failed=sum(member.outcome is not Outcome.OK for member in members),
            slow=sum(_is_slow(member, slow_s) for member in members),
        )
        for second, members in sorted(ended.items())
    )


def _loss(request: Request, zero: float) -> Loss:
    return Loss(
        id=request.id,
        kind=request.kind,
        outcome=request.outcome,
        release=request.release,
        after_s=round(request.ended - zero, 3),
        note=request.note,
    )
