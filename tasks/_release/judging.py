"""The steps that judge a candidate: its protocol, its answers, both against the live release, and checks of the user.

They only find the addresses to ask and count the verdicts; what is asked and what it means is in the checks.
"""

import logging
from collections.abc import Callable

from tasks._checks.paired import paired
from tasks._checks.performance import performance
from tasks._checks.plugins import run_plugins
from tasks._checks.prompts import Prompts, load_prompts
from tasks._checks.quality import ask_all
from tasks._checks.smoke import smoke
from tasks._release.machine import Health, Observed
from tasks._release.step_result import StepResult, spec_of
from tasks._release.world import World
from tasks.errors import TransientError
from tasks.records import CheckResult, Progress, Release, ServiceRecord, Verdict
from tasks.spec import ServiceSpec

AWAY_S = 60.0

log = logging.getLogger(__name__)


def judge_protocol(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    """Ask the candidate whatever a client may ask."""
    release, spec = progress.release, spec_of(progress.release)
    return _told(smoke(address_of(world, release), release, spec))


def judge_answers(world: World, progress: Progress, _record: ServiceRecord) -> StepResult:
    """Ask the candidate every prompt and judge each answer by itself."""
    release, spec = progress.release, spec_of(progress.release)
    prompts = prompts_of(world, spec)
    answers = ask_all(address_of(world, release), release.service, prompts, spec)
    return _told(world.judge(answers, prompts, spec))


def judge_paired(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Ask the candidate and the live release the same prompts and compare the answers."""
    return _beside_live(world, progress, record, paired, asked=spec_of(progress.release).checks.paired.enabled)


def judge_speed(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Load the candidate and the live release alike, in the same window, and compare their speed."""
    return _beside_live(
        world, progress, record, performance, asked=spec_of(progress.release).checks.performance.enabled
    )


def judge_own(world: World, progress: Progress, record: ServiceRecord) -> StepResult:
    """Run the checks that the user brought."""
    release, spec = progress.release, spec_of(progress.release)
    if not spec.checks.plugins:
        return StepResult("the spec names none")
    live = _running_beside(world, record, release)
    at_live = address_of(world, live) if live else None
    return _told(run_plugins(address_of(world, release), at_live, release=release, spec=spec))


def address_of(world: World, release: Release) -> str:
    """Return where ``release`` answers by itself: at the live address while it is live.

    Raises ``Unreachable`` when the target stays away for ``AWAY_S``.
    """
    placement = _seen(world, release.service).placements.get(release.name)
    live = placement is not None and placement.live
    return world.target.address(release.service) if live else world.target.endpoint(release)


def prompts_of(world: World, spec: ServiceSpec) -> Prompts:
    """Return the prompts of the spec."""
    return load_prompts(world.services / spec.checks.prompts)


def _seen(world: World, service: str) -> Observed:
    """Return what the target shows; checks take minutes, and one look that fails must not cost them."""
    for _ in world.clock.ticks(AWAY_S, 1.0):
        try:
            return world.target.observe(service)
        except TransientError as error:
            log.warning("%s", error)
    return world.target.observe(service)


Beside = Callable[..., tuple[CheckResult, ...]]


def _beside_live(
    world: World, progress: Progress, record: ServiceRecord, check: Beside, *, asked: bool
) -> StepResult:
    release, spec = progress.release, spec_of(progress.release)
    if not asked:
        return StepResult("the spec asks for none")
    live = _running_beside(world, record, release)
    if live is None:
        return StepResult("no live release runs to compare with")
    addresses = address_of(world, release), address_of(world, live)
    return _told(check(*addresses, releases=(release, live), prompts=prompts_of(world, spec), spec=spec))


def _running_beside(world: World, record: ServiceRecord, release: Release) -> Release | None:
    """Return the live release, if it is another one and runs: one that is down is no measure."""
    live = record.live
    if live is None or live == release:
        return None
    placement = _seen(world, release.service).placements.get(live.name)
    return live if placement is not None and placement.health is Health.HEALTHY else None


def _told(checks: tuple[CheckResult, ...]) -> StepResult:
    passed = sum(check.verdict is Verdict.PASS for check in checks)
    return StepResult(f"{passed} of {len(checks)} checks passed", checks)
