"""The steps that move live traffic: to a release, under watch, and back.

A switch counts only when the live address proves, on new connections, to answer with the right release and nothing
else.  Then the release that lost the traffic is told to drain: it answers as before, and parts with kept-alive
connections, whose clients would otherwise stay on it until it is removed.
"""

import logging
from collections.abc import Callable

import httpx

from tasks._checks.bake import look
from tasks._checks.prompts import Prompts
from tasks._clients.receipt import Seen
from tasks._release.journal import Journal
from tasks._release.judging import prompts_of
from tasks._release.machine import Health, gives_way
from tasks._release.step_result import StepResult, spec_of
from tasks._release.world import World
from tasks.errors import CandidateFailed, TerminalError, TransientError
from tasks.records import CheckResult, Progress, Release, ServiceRecord, StepName, Verdict

SHIFT_DEADLINE = 60.0
"""Seconds that a target may take to move traffic or to remove a release, beside the longest request."""
GIVEN_UP_EVERY = 0.5
"""Seconds, at most, between two looks at whether somebody gave a release up: one who rolls back waits for that."""
IN_A_ROW = 5
"""Answers of the right release, one after the other and each on a new connection, that prove a shift."""

log = logging.getLogger(__name__)


def shift(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Lead the live address to the release, by the shares that the spec names where the target knows shares."""
    release, spec = progress.release, spec_of(progress.release)
    old = record.previous if record.live == release else record.live
    steps = spec.shift.steps if world.target.shares(release) and old is not None else (100,)
    for percent in steps[:-1]:
        world.target.shift(release.service, release.name, percent=percent)
        _watch(world, release, spec.shift.pause)
    world.target.shift(release.service, release.name)
    seconds = _await_live(world, release)
    if old is not None:
        world.target.drain(release.service, old.name)
    return StepResult(f"the live address answers with {release.name} since {seconds:.1f} s after the switch")


def bake(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    """Watch the release live for as long as the spec says; ends at the first look that fails, and when given up."""
    release, spec = progress.release, spec_of(progress.release)
    prompts, address, looks = prompts_of(world, spec), world.target.address(release.service), 0
    check: CheckResult | None = None
    due = 0.0
    for passed in world.clock.ticks(spec.bake.seconds, min(spec.bake.interval, GIVEN_UP_EVERY)):
        if is_given_up(world, progress):
            return StepResult(f"given up after {looks} looks")
        if passed < due:
            continue
        due = passed + spec.bake.interval
        check, looks = _looked(world, release, address, prompts, _seen(world, progress)), looks + 1
        if check.verdict is Verdict.FAIL:
            break
    if check is None:
        raise CandidateFailed(f"{release.name} was not looked at once during its bake.")
    return StepResult(f"looks at it: {looks}", (check,))


def move_back(
    world: World, progress: Progress, record: ServiceRecord, revive: Callable[[Release], None]
) -> StepResult:
    """Lead traffic to the release before, brought back by ``revive`` if it is gone; to none if it cannot be.

    The candidate keeps the traffic until then.  An undoing must have an end, so that the next release can begin.
    """
    release = progress.release
    old = record.previous if record.live == release else record.live
    if old is None or not _revived(old, revive):
        world.target.shift(release.service, None)
        why = f"{old.name} could not be started again" if old else "no release was live before this one"
        return StepResult(f"{why}; the live address leads nowhere", dark=True)
    world.target.shift(release.service, old.name)
    proof = _proof_of_return(world, old)
    try:
        world.target.drain(release.service, release.name)
    except TerminalError as error:  # it is removed next, which ends its connections too
        return StepResult(f"{proof}; {release.name} could not be told to drain: {error}")
    return StepResult(proof)


def is_given_up(world: World, progress: Progress) -> bool:
    """Return whether somebody has since given the release up, or asked for something that takes its place.

    A step that waits looks for this: a person who rolls back does not wait for the end of a bake.
    """
    try:
        record = Journal(world.store, progress.release.service).record
    except TransientError as error:
        log.warning("%s", error)
        return False
    current, waiting = record.current, record.waiting
    if current is None or current.opened_at != progress.opened_at:
        return True
    return current.failure is not None or (waiting is not None and gives_way(current, waiting))


def _watch(world: World, release: Release, seconds: float) -> None:
    """Look at a release that has a share of the traffic; raises ``CandidateFailed`` at the first fault."""
    spec = spec_of(release)
    prompts, address = prompts_of(world, spec), world.target.endpoint(release)
    for _ in world.clock.ticks(seconds, spec.bake.interval):
        check = _looked(world, release, address, prompts)
        if check.verdict is Verdict.FAIL:
            raise CandidateFailed(f"{release.name} failed under a share of the traffic: {check.summary}.")


def _looked(world: World, release: Release, address: str, prompts: Prompts, seen: Seen | None = None) -> CheckResult:
    """Look at the answers of a release that has traffic, and at whether it still is what was judged.

    Somebody who edits it makes it another one, which may answer well; of one that answers ill, the target may know
    why.
    """
    check = look(address, release, prompts, spec_of(release), seen)
    try:
        placement = world.target.observe(release.service).placements.get(release.name)
    except TransientError as error:
        log.warning("%s", error)
        return check
    if placement is None or placement.health is Health.REMOVING:
        told, is_own = f"{release.name} is gone: somebody else removed it", False
    else:
        told, is_own = placement.message, not placement.edited
    if is_own and check.verdict is not Verdict.FAIL:
        return check
    said = check.summary if check.verdict is Verdict.FAIL else ""
    return check.model_copy(update={"verdict": Verdict.FAIL, "summary": "; ".join(filter(None, (said, told)))})


def _seen(world: World, progress: Progress) -> Seen | None:
    """Return what the probe's clients met since the bake began."""
    step = progress.step(StepName.BAKE)
    return world.witness.seen(progress, step.started_at) if world.witness and step else None


def _revived(old: Release, revive: Callable[[Release], None]) -> bool:
    try:
        revive(old)
    except TerminalError as error:
        log.warning("%s cannot take the traffic back: %s", old.name, error)
        return False
    return True


def _proof_of_return(world: World, old: Release) -> str:
    """Return how soon the live address answered with ``old``; a slow proof does not undo the move."""
    try:
        return f"the live address answers with {old.name} again, {_await_live(world, old):.1f} s after the switch"
    except CandidateFailed as error:
        log.warning("%s", error)
        return f"moved to {old.name}, not yet proven: {error}"


def _await_live(world: World, release: Release) -> float:
    """Return the seconds until the live address proved to answer with ``release`` and nothing else."""
    address, row = world.target.address(release.service), 0
    deadline = spec_of(release).deadlines.request + SHIFT_DEADLINE
    for passed in world.clock.ticks(deadline, 0.1):
        row = row + 1 if _answers_as(address, release) else 0
        if row == IN_A_ROW:
            return passed
    raise CandidateFailed(f"{address} does not answer with {release.name} {deadline:.0f} s after the switch.")


def _answers_as(address: str, release: Release) -> bool:
    """Return whether a new connection to the live address is answered by ``release``."""
    try:
        response = httpx.get(f"{address}/v1/models", timeout=5.0, trust_env=False)
    except httpx.TransportError:
        return False
    return response.is_success and response.headers.get("x-slipway-release") == release.name
