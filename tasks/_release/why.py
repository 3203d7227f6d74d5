"""Which release and which commit served: at a moment, or one request.

A moment is looked up in the ledger and the record.  Traffic moves in the steps ``shift`` and ``move_back``, between
their intent and their proof; both releases may have answered then, so both are named.

A request is looked up by its id, which says it: the payload puts the release in front (``chat-r7-3f2b...``), in the
header ``x-slipway-request`` of every answer and, behind vLLM's own ``chatcmpl-``, in the ``id`` of every completion
(``serve.edge``).  Nothing is kept of each request, so an id from elsewhere (a client's own ``x-request-id`` alone, as
Serve echoes it) cannot be looked up; the time of the request can.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tasks._clock import Clock
from tasks._release import ledger as _ledger
from tasks._release.step_result import spec_of
from tasks._stores.store import Store
from tasks.errors import BadInput, NotFound
from tasks.records import Progress, Release, ServiceRecord, Step, StepName, StepState, Value

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
AGO = re.compile(r"(\d{1,6}(?:\.\d+)?)\s*([smhd]) ago")
CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
MOVES = (StepName.SHIFT, StepName.MOVE_BACK)


class Switch(Value):
    """One move of live traffic, between ``begun`` and ``ended``; that is None where nothing proved that it happened.

    ``to`` is None where the address led nowhere; ``detail`` is what the step said of itself.
    """

    before: Release | None
    to: Release | None
    begun: datetime
    ended: datetime | None
    detail: str = ""


class Served(Value):
    """A release that answered, and the commit that it serves."""

    release: str
    model: str
    commit: str


class Answer(Value):
    """Who served.  Two of ``served`` mean that either did; none, that nothing was live.  ``why`` says from what."""

    version: int = 1
    asked: str
    at: datetime | None = None
    served: tuple[Served, ...]
    why: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """Return it for a person."""
        found = [f"{one.release}: {one.model} commit {one.commit}" for one in self.served]
        return (*(found or ["nothing was live"]), *self.why)


def why(store: Store, record: ServiceRecord, asked: str, now: datetime | None = None) -> Answer:
    """Return who served ``asked``: a time (ISO 8601, ``10:32`` of today in UTC, ``5m ago``) or the id of a request.

    ``now`` is this moment unless it is given.
    Raises ``BadInput`` for what is neither or lies ahead, ``NotFound`` for a release that the service never had, and
    ``IntegrityError`` for a ledger that cannot be read.
    """
    past = history(record, (entry.release for entry in _ledger.entries(store, record.service)))
    moment = parse_moment(asked, now or Clock().now())
    if moment is not None:
        return at_moment(past, record, asked, moment)
    name = release_in(asked, record.service)
    if name is None:
        raise BadInput(
            f"{asked!r} is neither a time nor the id of a request to {record.service}.",
            remedy=f"Write 2026-01-31T10:32:05Z, 10:32, `5m ago`, or an id like {record.service}-r7-...",
        )
    return of_request(past, record, asked, name)


def history(record: ServiceRecord, ledger: Iterable[Progress]) -> tuple[Progress, ...]:
    """Return every release that is known, the oldest first: the ledger's, and what the record has beyond it."""
    current = (record.current,) if record.current else ()
    known = {(one.release.name, one.opened_at): one for one in (*current, *record.past, *ledger)}
    return tuple(sorted(known.values(), key=lambda one: one.opened_at))


def switches(past: Iterable[Progress], live: Release | None) -> tuple[Switch, ...]:
    """Return every move of live traffic, in order; the last one that ended led to ``live``, as the record has it."""
    found: list[Switch] = []
    for progress in past:
        was = found[-1].to if found else None
        for step in (step for name in MOVES if (step := progress.step(name)) is not None):
            to = progress.release if step.name is StepName.SHIFT else was
            found.append(_switch(found[-1].to if found else None, to, step))
    if found and found[-1].ended is not None:
        found[-1] = found[-1].model_copy(update={"to": live})
    return tuple(found)


def at_moment(past: Iterable[Progress], record: ServiceRecord, asked: str, moment: datetime) -> Answer:
    """Return who served at ``moment``."""
    moves = switches(past, record.live)
    begun = [one for one in moves if one.begun <= moment]
    if not begun:
        first = f"The first one took the traffic at {_at(moves[0].begun)}." if moves else "No release ever took it."
        return Answer(asked=asked, at=moment, served=(), why=(first,))
    last = begun[-1]
    served: tuple[Release | None, ...] = (last.to,)
    reasons = [_moved(last)]
    if last.ended is None or moment <= last.ended:
        served = (last.before, last.to)
        reasons.append("Traffic was moving just then, so either may have answered.")
    elif last.before is not None and moment <= last.ended + _longest(last.before):
        reasons.append(f"An answer that had begun before {_at(last.ended)} may be by {last.before.name} to its end.")
    following = next((after for before, after in pairwise(moves) if before is last), None)
    if following is not None:
        reasons.append(f"That held until {_at(following.begun)}.")
    names = dict.fromkeys(_served(one) for one in served if one is not None)
    return Answer(asked=asked, at=moment, served=tuple(names), why=tuple(reasons))


def of_request(past: Iterable[Progress], record: ServiceRecord, asked: str, name: str) -> Answer:
    """Return what the release called ``name`` in the id of a request serves; raises ``NotFound`` for no such one."""
    kept = (record.live, record.previous)
    known = [*(one.release for one in past), *(release for release in kept if release is not None)]
    release = next((one for one in known if one.name == name), None)
    if release is None:
        raise NotFound(
            f"{record.service} has no release {name}, which the id names.", remedy="`slipway history` lists them."
        )
    return Answer(asked=asked, served=(_served(release),), why=("The id names the release that answered.",))


def release_in(request: str, service: str) -> str | None:
    """Return the release of ``service`` that the id of a request names; None where it names none."""
    match = re.fullmatch(rf"(?:(?:chat)?cmpl-)?({re.escape(service)}-r[1-9]\d*)-[\w.:-]+", request, re.ASCII)
    return match[1] if match else None


def parse_moment(text: str, now: datetime) -> datetime | None:
    """Return the moment in UTC that ``text`` names; None where it is no time.

    A time without a zone is UTC, one without a day is the last such moment.  Raises ``BadInput`` for one ahead.
    """
    ago = AGO.fullmatch(text.strip())
    if ago:
        return now - timedelta(**{UNITS[ago[2]]: float(ago[1])})
    try:
        if CLOCK.fullmatch(text.strip()):
            clock = text.strip() if text.strip()[1] != ":" else f"0{text.strip()}"
            moment = datetime.fromisoformat(f"{now:%Y-%m-%d}T{clock}").replace(tzinfo=UTC)
            return moment if moment <= now else moment - timedelta(days=1)
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment > now:
        raise BadInput(f"{_at(moment)} has not come yet.", remedy="Ask for a moment that has passed.")
    return moment


def _switch(before: Release | None, to: Release | None, step: Step) -> Switch:
    ended = step.ended_at if step.state is StepState.DONE else None
    return Switch(before=before, to=to, begun=step.started_at, ended=ended, detail=step.detail)


def _moved(switch: Switch) -> str:
    to = switch.to.name if switch.to else "nowhere"
    before = f" from {switch.before.name}" if switch.before else ""
    when = f"between {_at(switch.begun)} and {_at(switch.ended)}" if switch.ended else f"from {_at(switch.begun)} on"
    unproven = "" if switch.ended else ", not proven"
    detail = f" ({switch.detail})" if switch.detail else ""
    return f"Traffic moved{before} to {to} {when}{unproven}{detail}."


def _longest(release: Release) -> timedelta:
    """Return how long an answer of the release may take."""
    return timedelta(seconds=spec_of(release).deadlines.request)


def _served(release: Release) -> Served:
    return Served(release=release.name, model=release.model, commit=release.commit)


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
