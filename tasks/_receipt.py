"""The receipt: what clients saw while a release happened, counted from every request of the probe.

It is a pure function of the requests, so that it can be made again from the probe's journal and judged by
another process.  Nothing is left out: each request that was started is in it exactly once, those in flight at
the end included, and ``requests`` is the sum of ``by_release`` and of ``seconds``.

A switch is the moment at which newly started requests meet another release.  It is read from the requests on
new connections, because a kept-alive connection stays on the release it met first until that one drains.
While a switch spreads over several proxies, answers alternate for some tenths of a second (0.4 s on a real
cluster); a stay shorter than ``SETTLE_S`` between two stays on one other release is therefore no switch.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise

from pydantic import ConfigDict, Field

from tasks._requests import Kind, Outcome, Request
from tasks.records import Value, Verdict

SETTLE_S = 1.0
LOSSES_SHOWN = 20
LEAST_ACHIEVED = 0.95
UNANSWERED = "(none)"


class Switch(Value):
    """One change of the live release; ``at`` is UTC, ``after_s`` counts from the first request."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    at: datetime
    after_s: float
    from_release: str = Field(alias="from")
    to_release: str = Field(alias="to")
    streams_open: int


class Second(Value):
    """What ended in one second, counted from the first request.  Seconds without an end are left out."""

    second: int
    by_release: dict[str, int]
    failed: int = 0


class Loss(Value):
    """One request that was lost or truncated."""

    id: int
    kind: Kind
    outcome: Outcome
    release: str | None
    after_s: float
    note: str


class ProbeReport(Value):
    """What the probe itself did: whether it asked what it was told to, and what it cost.

    ``asked_s`` is the time that its clients should have had a request open, summed over them, and ``open_s``
    the time they had.  ``stall_s`` is the longest time that the probe's own loop was late: a gap no longer
    than that may be the probe's, not the server's.
    """

    asked_s: float
    open_s: float
    cpu_s: float
    wall_s: float
    stall_s: float

    @property
    def achieved(self) -> float:
        """Return the share of the asked time that was achieved; 1 when nothing was asked."""
        return self.open_s / self.asked_s if self.asked_s else 1.0


class Receipt(Value):
    """The proof.  Times are seconds unless they are named ``at``."""

    version: int = 1
    started_at: datetime | None
    ended_at: datetime | None
    requests: int
    streams: int
    plain: int
    lost: int
    truncated: int
    by_release: dict[str, int]
    switches: tuple[Switch, ...]
    slowest_gap_s: float
    slowest_first_token_s: float
    odd: dict[str, int]
    seconds: tuple[Second, ...]
    losses: tuple[Loss, ...]
    probe: ProbeReport | None

    @property
    def verdict(self) -> Verdict:
        """Return fail where a request was lost or cut, inconclusive where too little was seen, else pass."""
        if self.lost or self.truncated:
            return Verdict.FAIL
        if not self.requests or (self.probe and self.probe.achieved < LEAST_ACHIEVED):
            return Verdict.INCONCLUSIVE
        return Verdict.PASS

    @property
    def streams_open_across(self) -> int:
        """Return how many streams were open across a switch, over all switches."""
        return sum(switch.streams_open for switch in self.switches)


def receipt(
    requests: Iterable[Request],
    probe: ProbeReport | None = None,
    *,
    may_answer: Collection[str] | None = None,
    settle_s: float = SETTLE_S,
) -> Receipt:
    """Count ``requests``, in any order, into a receipt.

    ``may_answer`` names the releases that were live at some time; an answer by any other is a loss.
    """
    judged = [_judged(request, may_answer) for request in requests]
    judged.sort(key=lambda request: (request.started, request.id))
    zero = judged[0].started if judged else 0.0
    failed = [request for request in judged if request.outcome is not Outcome.OK]
    failed.sort(key=lambda request: (request.ended, request.id))
    streams = [request for request in judged if request.kind is Kind.STREAM]
    outcomes = Counter(request.outcome for request in judged)
    last = max(judged, key=lambda request: request.ended, default=None)
    return Receipt(
        started_at=judged[0].at if judged else None,
        ended_at=_wall(last, last.ended) if last else None,
        requests=len(judged),
        streams=len(streams),
        plain=len(judged) - len(streams),
        lost=outcomes[Outcome.LOST],
        truncated=outcomes[Outcome.TRUNCATED],
        by_release=_by_release(judged),
        switches=_switches(judged, zero, settle_s),
        slowest_gap_s=round(max((r.longest_gap_s for r in streams), default=0.0), 3),
        slowest_first_token_s=round(
            max((r.first - r.started for r in streams if r.first is not None), default=0.0), 3
        ),
        odd=dict(sorted(Counter(r.note for r in judged if r.note and r.outcome is Outcome.OK).items())),
        seconds=_seconds(judged, zero),
        losses=tuple(_loss(request, zero) for request in failed[:LOSSES_SHOWN]),
        probe=probe,
    )


def _judged(request: Request, may_answer: Collection[str] | None) -> Request:
    if may_answer is None or request.release is None or request.release in may_answer:
        return request
    if request.outcome is not Outcome.OK:
        return request
    note = f"answered by {request.release}, which was never live"
    return request.model_copy(update={"outcome": Outcome.LOST, "note": note})


def _by_release(requests: Iterable[Request]) -> dict[str, int]:
    return dict(sorted(Counter(request.release or UNANSWERED for request in requests).items()))


def _seconds(requests: Sequence[Request], zero: float) -> tuple[Second, ...]:
    ended: dict[int, list[Request]] = {}
    for request in requests:
        ended.setdefault(int(request.ended - zero), []).append(request)
    return tuple(
        Second(
            second=second,
            by_release=_by_release(members),
            failed=sum(member.outcome is not Outcome.OK for member in members),
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


def _wall(request: Request, moment: float) -> datetime:
    """Return the wall time of a monotonic moment, by the clock of ``request``."""
    return (request.at + timedelta(seconds=moment - request.started)).astimezone(UTC)


def _stays(requests: Sequence[Request], settle_s: float) -> list[list[Request]]:
    """Return the settled stays on one release, in order; ``requests`` are answered and sorted by start."""
    raw = [list(members) for _, members in groupby(requests, key=lambda request: request.release)]
    stays: list[list[Request]] = []
    for index, stay in enumerate(raw):
        back = index + 1 < len(raw) and bool(stays) and stays[-1][0].release == raw[index + 1][0].release
        brief = stay[-1].started - stay[0].started < settle_s
        if back and brief:
            continue
        if stays and stays[-1][0].release == stay[0].release:
            stays[-1].extend(stay)
        else:
            stays.append(stay)
    return stays


def _switches(requests: Sequence[Request], zero: float, settle_s: float) -> tuple[Switch, ...]:
    answered = [request for request in requests if request.release and request.answered is not None]
    fresh = [request for request in answered if not request.kept_alive] or answered
    switches = []
    stays = _stays(fresh, settle_s)
    for before, after in pairwise(stays):
        old, new = before[0].release or "", after[0].release or ""
        first = min(
            (r for r in answered if r.release == new and r.started >= after[0].started),
            key=lambda request: request.answered or request.ended,
        )
        moment = first.answered or first.ended
        switches.append(
            Switch(
                at=_wall(first, moment),
                after_s=round(moment - zero, 3),
                from_release=old,
                to_release=new,
                streams_open=sum(_is_open_across(request, old, moment) for request in answered),
            )
        )
    return tuple(switches)


def _is_open_across(request: Request, old: str, moment: float) -> bool:
    """Return whether a stream of the old release had begun before ``moment`` and ended after it."""
    return request.kind is Kind.STREAM and request.release == old and request.started < moment < request.ended
