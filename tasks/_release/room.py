"""Room for a release: looked for before the first byte moves, and made where the spec consents to an outage.

A candidate without room would hang until its deadline and hold what it got of the cluster meanwhile.  So it is
refused in seconds, with what is lacking; or the spec says to wait for an autoscaler that cannot be seen; or to take
the live release away first, which clients feel.  What cannot be known stops nothing.
"""

from collections.abc import Callable
from enum import Enum, auto

from k8s.spec import WhenShort
from tasks._release.step_result import StepResult, spec_of
from tasks._release.target import Room
from tasks._release.world import World
from tasks._weights.layout import weights_url
from tasks.errors import Refused
from tasks.records import Progress, Release, ServiceRecord


class Way(Enum):
    """What becomes of a release, as far as room goes."""

    BESIDE = auto()
    """It starts beside the live one: there is room, or it is not known that there is none."""
    WAIT = auto()
    """It starts, and waits for room until its deadline."""
    RECREATE = auto()
    """The live release is removed first."""
    REFUSE = auto()
    REFUSE_EVEN_ALONE = auto()
    """It is refused, and would be without the live release."""


def way(when_short: WhenShort, beside: bool | None, alone: bool | None, live: Release | None) -> Way:
    """Return what becomes of a release with room ``beside`` the live one, or ``alone``; None: it is not known.

    ``live`` is the release that would go first, None where no other one is live.
    """
    if beside is not False:
        return Way.BESIDE
    match when_short:
        case WhenShort.WAIT:
            return Way.WAIT
        case WhenShort.RECREATE if live is not None:
            return Way.REFUSE_EVEN_ALONE if alone is False else Way.RECREATE
    return Way.REFUSE


def look_for_room(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Say whether the release finds room; raises ``Refused`` where it does not and nothing may be done about it."""
    release = progress.release
    if release.name in world.target.observe(release.service).placements:
        return StepResult("it is there already")
    section, live = spec_of(release).kubernetes, None if record.live == release else record.live
    beside = _room(world, release)
    alone = _room(world, release, without=live.name) if live and beside.enough is False else beside
    match way(section.when_short if section else WhenShort.REFUSE, beside.enough, alone.enough, live):
        case Way.BESIDE:
            return StepResult(beside.sentence or "the target does not say how much room it has")
        case Way.WAIT:
            return StepResult(f"no room yet, which the spec says to wait for: {beside.sentence}")
        case Way.RECREATE if live:
            return StepResult(
                f"OUTAGE ahead: no room beside {live.name}, so it will go first. {beside.sentence}", outage=True
            )
        case Way.REFUSE_EVEN_ALONE if live:
            lacking = f"There is no room for {release.name}, not even without {live.name}. {alone.sentence}"
        case _:
            lacking = f"There is no room for {release.name}. {beside.sentence}"
    raise Refused(lacking, remedy=_REMEDY)


def make_room(world: World, progress: Progress, live: Release | None, remove: Callable[[Release], None]) -> str:
    """Take the live release away where the outage was agreed to; return what was done, or nothing."""
    if not progress.outage or live is None or live == progress.release:
        return ""
    _take_away(world, live, remove)
    return f"OUTAGE since {live.name} was removed to make room; "


def give_room_back(world: World, progress: Progress, old: Release, remove: Callable[[Release], None]) -> None:
    """Take the candidate away where ``old`` was removed for it and has to come back: both find no room at once."""
    if progress.outage and old.name not in world.target.observe(old.service).placements:
        _take_away(world, progress.release, remove)


def _take_away(world: World, release: Release, remove: Callable[[Release], None]) -> None:
    if release.name in world.target.observe(release.service).placements:
        world.target.shift(release.service, None)
        remove(release)


def _room(world: World, release: Release, without: str | None = None) -> Room:
    weights = weights_url(world.store.url, release.model, release.commit)
    return world.target.room(release, weights, without=without)


_REMEDY = "Free or add what is lacking, or set `kubernetes.when_short` in the spec to `wait` or `recreate`."
