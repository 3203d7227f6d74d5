"""When clients met another release: the switches, read from the requests alone.

A switch is the moment at which newly started requests meet another release.  It is read from the requests on
new connections, because a kept-alive connection stays on the release it met first until that one drains.
While a switch spreads over several proxies, answers alternate for some tenths of a second (0.4 s on a real
cluster); a stay shorter than ``SETTLE_S`` between two stays on one other release is therefore no switch.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise

from pydantic import ConfigDict, Field

from tasks._clients.requests import Kind, Request
from tasks.records import Value

SETTLE_S = 1.0


class Switch(Value):
    """One change of the live release; ``at`` is UTC, ``after_s`` counts from the first request."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    at: datetime
    after_s: float
    from_release: str = Field(alias="from")
    to_release: str = Field(alias="to")
    streams_open: int


def switches(requests: Sequence[Request], zero: float) -> tuple[Switch, ...]:
    """Return the switches; ``requests`` are sorted by start, and ``zero`` is the moment that they count from."""
    answered = [request for request in requests if request.release and request.answered is not None]
    fresh = [request for request in answered if not request.kept_alive] or answered
    found = []
    stays = _stays(fresh)
    for before, after in pairwise(stays):
        old, new = before[0].release or "", after[0].release or ""
        first = min(
            (r for r in answered if r.release == new and r.started >= after[0].started),
            key=lambda request: request.answered or request.ended,
        )
        moment = first.answered or first.ended
        found.append(
            Switch(
                at=wall(first, moment),
                after_s=round(moment - zero, 3),
                from_release=old,
                to_release=new,
                streams_open=sum(_is_open_across(request, old, moment) for request in answered),
            )
        )
    return tuple(found)


def wall(request: Request, moment: float) -> datetime:
    """Return the wall time of a monotonic moment, by the clock of ``request``."""
    return (request.at + timedelta(seconds=moment - request.started)).astimezone(UTC)


def _stays(requests: Sequence[Request]) -> list[list[Request]]:
    """Return the settled stays on one release, in order; ``requests`` are answered and sorted by start."""
    raw = [list(members) for _, members in groupby(requests, key=lambda request: request.release)]
    stays: list[list[Request]] = []
    for index, stay in enumerate(raw):
        back = index + 1 < len(raw) and bool(stays) and stays[-1][0].release == raw[index + 1][0].release
        brief = stay[-1].started - stay[0].started < SETTLE_S
        if back and brief:
            continue
        if stays and stays[-1][0].release == stay[0].release:
            stays[-1].extend(stay)
        else:
            stays.append(stay)
    return stays


def _is_open_across(request: Request, old: str, moment: float) -> bool:
    """Return whether a stream of the old release had begun before ``moment`` and ended after it."""
    return request.kind is Kind.STREAM and request.release == old and request.started < moment < request.ended
