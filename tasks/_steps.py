"""How each step of a release is done.

A step looks first and then does only what is missing, so that doing it again after a crash is harmless.  It
returns a sentence for the record and, where it judges, the verdicts; what they mean is not decided here.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from tasks._bake import look
from tasks._clock import Clock
from tasks._completions import ask
from tasks._machine import Health, Placement
from tasks._prompts import Prompts, load_prompts
from tasks._quality import ask_all, quality
from tasks._smoke import smoke
from tasks._stores.store import Store
from tasks._target import Target
from tasks._weights.carrying import Progress as Moved
from tasks._weights.hub import Hub
from tasks._weights.layout import SIGNATURE, weights_key
from tasks._weights.mirror import mirror
from tasks._weights.signatures import check_signature
from tasks.errors import CandidateFailed, TerminalError, TransientError
from tasks.records import CheckResult, Manifest, Progress, Release, ServiceRecord, StepName, Verdict
from tasks.spec import ServiceSpec

LOOK_EVERY = 0.5
"""Seconds between two looks at a target that is changing."""
SHIFT_DEADLINE = 60.0
"""Seconds that a target may take to move traffic or to remove a release, beside the longest request."""
IN_A_ROW = 5
"""Answers of the right release, one after the other and each on a new connection, that prove a shift."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """What the steps work on; leaving it as a context lets go of its connections.

    ``shown`` shows the bytes of a mirror, by its title, while a block runs; ``sign`` signs what is mirrored.
    """

    hub: Callable[[str], Hub]
    store: Store
    target: Target
    services: Path
    clock: Clock = field(default_factory=Clock)
    shown: Callable[[str], AbstractContextManager[Moved]] = lambda _: nullcontext(lambda *_: None)
    sign: Callable[[Manifest], bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.target.close()
        self.store.close()


@dataclass(frozen=True)
class StepResult:
    """What a step did, in one sentence, and the verdicts it gave; ``dark`` when nothing takes the traffic now."""

    detail: str
    checks: tuple[CheckResult, ...] = ()
    dark: bool = False


def do(step: StepName, world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Do ``step``; raises ``SlipwayError`` when it cannot be done."""
    return _STEPS[step](world, progress, record)


def _mirror(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release, spec = progress.release, _spec(progress.release)
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


def _start(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release = progress.release
    world.target.start(release, _weights(world, release))
    return StepResult(f"at {world.target.endpoint(release)}")


def _ready(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    return StepResult(f"first answer after {_await_ready(world, progress.release):.0f} s")


def _await_ready(world: World, release: Release) -> float:
    """Return the seconds until ``release`` answered, at the live address where that is its own."""
    spec = _spec(release)
    for passed in world.clock.ticks(spec.deadlines.ready, LOOK_EVERY):
        placement = _healthy(world, release)
        if placement is None:
            continue
        base = world.target.address(release.service) if placement.live else world.target.endpoint(release)
        answer = ask(base, release.service, "Hello", max_tokens=1, timeout_s=spec.deadlines.request)
        if answer.error is None and answer.release == release.name:
            return passed
        log.info("%s is healthy but does not answer yet: %s", release.name, answer.error)
    raise CandidateFailed(
        f"{release.name} did not answer within {spec.deadlines.ready:.0f} s.",
        remedy="Its log shows why; `deadlines.ready` in the spec allows it more time.",
    )


def _healthy(world: World, release: Release) -> Placement | None:
    """Return how the target shows the release once it is healthy; raises ``CandidateFailed`` when it cannot be."""
    try:
        placement = world.target.observe(release.service).placements.get(release.name)
    except TransientError as error:
        log.warning("%s", error)
        return None
    if placement is None or placement.health is Health.REMOVING:
        raise CandidateFailed(f"{release.name} was removed while it was starting.")
    if placement.health is Health.FAILED:
        raise CandidateFailed(f"{release.name} could not start: {placement.message}")
    return placement if placement.health is Health.HEALTHY else None


def _smoke(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release, spec = progress.release, _spec(progress.release)
    checks = smoke(world.target.endpoint(release), release, spec)
    return StepResult(_tally(checks), checks)


def _quality(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release, spec = progress.release, _spec(progress.release)
    prompts = _prompts(world, spec)
    answers = ask_all(world.target.endpoint(release), release.service, prompts, spec)
    checks = quality(answers, prompts, spec)
    return StepResult(_tally(checks), checks)


def _shift(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    release = progress.release
    old = record.previous if record.live == release else record.live
    world.target.shift(release.service, release.name)
    seconds = _await_live(world, release)
    if old is not None:
        world.target.drain(release.service, old.name)
    return StepResult(f"the live address answers with {release.name} since {seconds:.1f} s after the switch")


def _move_back(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Lead traffic to the release before, started again if it is gone; to none if it cannot be.

    The candidate keeps the traffic until then.  An undoing must have an end, so that the next release can begin.
    """
    release = progress.release
    old = record.previous if record.live == release else record.live
    if old is None or not _revived(world, old):
        world.target.shift(release.service, None)
        why = f"{old.name} could not be started again" if old else "no release was live before this one"
        return StepResult(f"{why}; the live address leads nowhere", dark=True)
    world.target.shift(release.service, old.name)
    proof = _proof_of_return(world, old)
    world.target.drain(release.service, release.name)
    return StepResult(proof)


def _revived(world: World, old: Release) -> bool:
    try:
        world.target.start(old, _weights(world, old))
        _await_ready(world, old)
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
    deadline = _spec(release).deadlines.request + SHIFT_DEADLINE
    for passed in world.clock.ticks(deadline, 0.1):
        row = row + 1 if _answers_as(address, release) else 0
        if row == IN_A_ROW:
            return passed
    raise CandidateFailed(f"{address} does not answer with {release.name} {SHIFT_DEADLINE:.0f} s after the switch.")


def _answers_as(address: str, release: Release) -> bool:
    """Return whether a new connection to the live address is answered by ``release``."""
    try:
        response = httpx.get(f"{address}/v1/models", timeout=5.0, trust_env=False)
    except httpx.TransportError:
        return False
    return response.is_success and response.headers.get("x-slipway-release") == release.name


def _bake(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release, spec = progress.release, _spec(progress.release)
    prompts, address, looks = _prompts(world, spec), world.target.address(release.service), 0
    check: CheckResult | None = None
    for _ in world.clock.ticks(spec.bake.seconds, spec.bake.interval):
        check, looks = look(address, release, prompts, spec), looks + 1
        if check.verdict is not Verdict.PASS:
            break
    if check is None:
        raise CandidateFailed(f"{release.name} was not looked at once during its bake.")
    return StepResult(f"looked at {looks} times", (check,))


def _tidy(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    keep = {release.name for release in (record.live, record.previous) if release}
    service = progress.release.service
    old = sorted(set(world.target.observe(service).placements) - keep)
    known = {past.release.name: past.release for past in record.past}
    for name in old:
        _remove_named(world, service, name, known.get(name, progress.release))
    return StepResult(f"removed {', '.join(old)}" if old else "nothing to remove")


def _remove(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    release = progress.release
    _remove_named(world, release.service, release.name, release)
    return StepResult(f"removed {release.name}")


def _remove_named(world: World, service: str, name: str, release: Release) -> None:
    """Remove the release called ``name`` and wait until it is gone, the longest request of ``release`` included."""
    world.target.remove(service, name)
    deadline = _spec(release).deadlines.request + SHIFT_DEADLINE
    for _ in world.clock.ticks(deadline, LOOK_EVERY):
        if name not in world.target.observe(service).placements:
            return
    raise CandidateFailed(f"{name} is still there {deadline:.0f} s after its removal.")


def _weights(world: World, release: Release) -> str:
    return f"{world.store.url}/{weights_key(release.model, release.commit)}"


def _spec(release: Release) -> ServiceSpec:
    return ServiceSpec.model_validate(release.spec)


def _prompts(world: World, spec: ServiceSpec) -> Prompts:
    return load_prompts(world.services / spec.checks.prompts)


def _tally(checks: tuple[CheckResult, ...]) -> str:
    passed = sum(check.verdict is Verdict.PASS for check in checks)
    return f"{passed} of {len(checks)} checks passed"


_STEPS: dict[StepName, Callable[[World, Progress, ServiceRecord], StepResult]] = {
    StepName.MIRROR: _mirror,
    StepName.START: _start,
    StepName.READY: _ready,
    StepName.SMOKE: _smoke,
    StepName.QUALITY: _quality,
    StepName.SHIFT: _shift,
    StepName.BAKE: _bake,
    StepName.TIDY: _tidy,
    StepName.MOVE_BACK: _move_back,
    StepName.REMOVE: _remove,
}
