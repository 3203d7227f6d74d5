"""Room for a release: looked for before the first byte moves, and made where the spec consents to an outage.

A candidate without room would hang until its deadline and hold what it got of the cluster meanwhile.  So it is
refused in seconds, with what is lacking; or the spec says to wait for an autoscaler that cannot be seen; or to take
the live release away first, which clients feel.  What cannot be known stops nothing.
"""

from collections.abc import Callable

from k8s.spec import WhenShort
from tasks._release.step_result import StepResult, spec_of
from tasks._release.target import Room
from tasks._release.world import World
from tasks._weights.layout import weights_url
from tasks.errors import Refused
from tasks.records import Progress, Release, ServiceRecord


def look_for_room(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Say whether the release finds room; raises ``Refused`` where it does not and nothing may be done about it."""
    release = progress.release
    if release.name in world.target.observe(release.service).placements:
        return StepResult("it is there already")
    beside = _room(world, release)
    if beside.enough is not False:
        return StepResult(beside.sentence or "the target does not say how much room it has")
    section = spec_of(release).kubernetes
    match section.when_short if section else WhenShort.REFUSE:
        case WhenShort.WAIT:
            return StepResult(f"no room yet, which the spec says to wait for: {beside.sentence}")
        case WhenShort.RECREATE if record.live not in (None, release):
            return _agreed(world, release, record.live, beside)
    raise Refused(f"There is no room for {release.name}. {beside.sentence}", remedy=_REMEDY)


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


def _agreed(world: World, release: Release, live: Release | None, beside: Room) -> StepResult:
    name = live.name if live else None
    alone = _room(world, release, without=name)
    if alone.enough is False:
        raise Refused(
            f"There is no room for {release.name}, not even without {name}. {alone.sentence}", remedy=_REMEDY
        )
    return StepResult(f"OUTAGE ahead: no room beside {name}, so it will go first. {beside.sentence}", outage=True)


def _take_away(world: World, release: Release, remove: Callable[[Release], None]) -> None:
    if release.name in world.target.observe(release.service).placements:
        world.target.shift(release.service, None)
        remove(release)


def _room(world: World, release: Release, without: str | None = None) -> Room:
    weights = weights_url(world.store.url, release.model, release.commit)
    return world.target.room(release, weights, without=without)


_REMEDY = "Free or add what is lacking, or set `kubernetes.when_short` in the spec to `wait` or `recreate`."
