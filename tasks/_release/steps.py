"""How each step of a release is done: weights, candidate, approval, removal; judging and traffic have own modules.

A step looks first and then does only what is missing, so that doing it again after a crash is harmless.  It
returns a sentence for the record and, where it judges, the verdicts; what they mean is not decided here.
"""

import logging
from collections.abc import Callable

from tasks._clients.completions import ask
from tasks._release.judging import judge_answers, judge_own, judge_paired, judge_protocol, judge_speed
from tasks._release.machine import LEADS_BACK, Health, Placement
from tasks._release.room import give_room_back, look_for_room, make_room
from tasks._release.step_result import StepResult, spec_of
from tasks._release.traffic import SHIFT_DEADLINE, bake, is_given_up, move_back, shift
from tasks._release.world import World
from tasks._weights.layout import SIGNATURE, weights_key, weights_url
from tasks._weights.mirror import mirror
from tasks._weights.signatures import check_signature
from tasks.errors import CandidateFailed, TerminalError, TransientError
from tasks.records import CheckResult, Progress, Release, ServiceRecord, StepName, Verdict
from tasks.spec import Policy

LOOK_EVERY = 0.5
"""Seconds between two looks at a target that is changing."""
TELL_EVERY = 5.0
"""Seconds after which a target is told again to remove a release that it still shows."""

log = logging.getLogger(__name__)


def do(step: StepName, world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Do ``step``; raises ``SlipwayError`` when it cannot be done."""
    return _STEPS[step](world, progress, record)


def start_again(world: World, release: Release) -> None:
    """Start ``release`` if the target does not show it, and wait for its first answer; raises ``CandidateFailed``."""
    _start_over(world, release)
    await_ready(world, release)


def _start_over(world: World, release: Release) -> None:
    """Start a release that was live before; one that is there needs no more than that.

    What the target has against its surroundings, a field or a right that somebody took, must not end a way back.
    """
    try:
        world.target.start(release, _weights(world, release))
    except TerminalError as error:
        if release.name not in world.target.observe(release.service).placements:
            raise
        log.warning("%s is there, and what surrounds it stays as it is: %s", release.name, error)


def await_ready(world: World, release: Release, given_up: Callable[[], bool] = lambda: False) -> float | None:
    """Return the seconds until ``release`` answered, at the live address where that is its own.

    None when it was ``given_up`` before; raises ``CandidateFailed``.
    """
    deadline, lacking = spec_of(release).deadlines.ready, ""
    for passed in world.clock.ticks(deadline, LOOK_EVERY):
        if given_up():
            return None
        lacking = _lacking(world, release)
        if not lacking:
            return passed
    raise CandidateFailed(
        f"{release.name} did not answer within {deadline:.0f} s: {lacking.rstrip('.')}.",
        remedy="Its log shows why; `deadlines.ready` in the spec allows it more time.",
    )


def _mirror(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release, spec = progress.release, spec_of(progress.release)
    with world.hub(release.hub) as hub, world.shown(f"{release.name}: mirror") as moved:
        mirrored = mirror(
            hub,
            world.store,
            release.model,
            release.commit,
            spec.limits,
            repair=True,
            progress=moved,
            sign=world.sign,
        )
    if spec.signature is not None:
        found = world.store.get(f"{weights_key(release.model, release.commit)}/{SIGNATURE}")
        key = world.services / spec.signature.public_key
        check_signature(mirrored.manifest, found[0] if found else None, key)
    files, size = len(mirrored.manifest.files), mirrored.manifest.total_bytes
    return StepResult(
        f"{files} files, {size / 1e6:.0f} MB, every byte checked; "
        f"{mirrored.from_hub / 1e6:.0f} MB from the Hub, {mirrored.copied / 1e6:.0f} MB copied in the store"
    )


def _start(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    release = progress.release
    outage = make_room(world, progress, record.live, lambda live: _remove_release(world, live))
    if progress.kind in LEADS_BACK:
        _start_over(world, release)
    else:
        world.target.start(release, _weights(world, release))
    return StepResult(f"{outage}at {world.target.endpoint(release)}")


def _ready(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    seconds = await_ready(world, progress.release, lambda: is_given_up(world, progress))
    return StepResult("given up while it started" if seconds is None else f"first answer after {seconds:.0f} s")


def _lacking(world: World, release: Release) -> str:
    """Return what the release lacks, nothing once it has answered; raises ``CandidateFailed`` when it never will."""
    try:
        placement = _coming(world, release)
        if placement.health is not Health.HEALTHY:
            return placement.message or "it is starting"
        base = world.target.address(release.service) if placement.live else world.target.endpoint(release)
    except TransientError as error:
        log.warning("%s", error)
        return str(error)
    timeout_s = spec_of(release).deadlines.request
    answer = ask(base, release.service, "Hello", max_tokens=1, timeout_s=timeout_s)
    if answer.error is None and answer.release == release.name:
        return ""
    why = answer.error or f"{answer.release or 'something else'} answers in its place"
    log.info("%s is healthy but does not answer yet: %s", release.name, why)
    return f"it is healthy, but {why}"


def _coming(world: World, release: Release) -> Placement:
    """Return how the target shows the release; raises ``CandidateFailed`` when it cannot be healthy any more."""
    placement = world.target.observe(release.service).placements.get(release.name)
    if placement is None or placement.health is Health.REMOVING:
        raise CandidateFailed(f"{release.name} is gone: somebody else removed it.")
    if placement.health is Health.FAILED:
        raise CandidateFailed(f"{release.name} could not start: {placement.message}")
    return placement


def _approve(_world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    if spec_of(progress.release).policy is not Policy.APPROVE:
        return StepResult("the policy asks nobody")
    release = progress.release
    return StepResult(
        "every check has passed", question=f"Shall {release.name}, {release.commit[:12]}, take live traffic?"
    )


def _tidy(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    keep = {release.name for release in (record.live, record.previous) if release}
    service = progress.release.service
    old = sorted(set(world.target.observe(service).placements) - keep)
    known = {past.release.name: past.release for past in record.past}
    for name in old:
        _remove_named(world, service, name, known.get(name, progress.release))
    return StepResult(f"removed {', '.join(old)}" if old else "nothing to remove")


def _receipt(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    check = world.witness.testify(progress) if world.witness else None
    if check is None and spec_of(progress.release).probe.enabled:
        check = CheckResult(name="receipt", verdict=Verdict.INCONCLUSIVE, summary="nobody watched what clients saw")
    return StepResult(check.summary, (check,)) if check else StepResult("the spec asks for no probe")


def _move_back(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    def revive(old: Release) -> None:
        give_room_back(world, progress, old, lambda release: _remove_release(world, release))
        start_again(world, old)

    return move_back(world, progress, record, revive)


def _remove(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    _remove_release(world, progress.release)
    return StepResult(f"removed {progress.release.name}")


def _remove_release(world: World, release: Release) -> None:
    _remove_named(world, release.service, release.name, release)


def _remove_named(world: World, service: str, name: str, release: Release) -> None:
    """Remove the release called ``name`` and wait until it is gone, the longest request of ``release`` included."""
    deadline, tell_at = spec_of(release).deadlines.request + SHIFT_DEADLINE, 0.0
    for passed in world.clock.ticks(deadline, LOOK_EVERY):
        if passed >= tell_at:
            world.target.remove(service, name)
            tell_at = passed + TELL_EVERY
        if name not in world.target.observe(service).placements:
            return
    raise CandidateFailed(f"{name} is still there {deadline:.0f} s after its removal.")


def _weights(world: World, release: Release) -> str:
    return weights_url(world.store.url, release.model, release.commit)


_STEPS: dict[StepName, Callable[[World, Progress, ServiceRecord], StepResult]] = {
    StepName.ROOM: look_for_room,
    StepName.MIRROR: _mirror,
    StepName.START: _start,
    StepName.READY: _ready,
    StepName.SMOKE: judge_protocol,
    StepName.QUALITY: judge_answers,
    StepName.PAIRED: judge_paired,
    StepName.PERFORMANCE: judge_speed,
    StepName.OWN: judge_own,
    StepName.APPROVE: _approve,
    StepName.SHIFT: shift,
    StepName.BAKE: bake,
    StepName.TIDY: _tidy,
    StepName.RECEIPT: _receipt,
    StepName.MOVE_BACK: _move_back,
    StepName.REMOVE: _remove,
}
