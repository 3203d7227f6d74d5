"""What is done with live releases on a schedule: looked at, compared with their ref, and rehearsed to go back.

Each function returns the state that its flow run ends in; what a person should look at is a failed run.
"""

import logging
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks import releasing
from tasks._checks.bake import look
from tasks._release import wishes
from tasks._release.engine import Engine
from tasks._release.judging import prompts_of
from tasks._release.lease import is_free, read_lease
from tasks._release.step_result import spec_of
from tasks._release.world import World
from tasks._spec_file import load_spec
from tasks.errors import NotFound, Refused
from tasks.provenance import actor as who
from tasks.records import CheckResult, Outcome, Progress, Release, StepName, Verdict
from tasks.reporting import publish, publish_checks
from tasks.settings import Settings
from tasks.spec import Policy

LOOKS = 3
"""Looks that must all fail before traffic moves by itself: a live release that fails for a moment is not worth it."""
BETWEEN_S = 5.0

log = logging.getLogger(__name__)


def check_live(engine: Engine, world: World) -> State[Any]:
    """Finish what a dead run left, look at the live release, and lead back from one that fails look after look."""
    service = engine.service
    lease = read_lease(world.store, service)
    if engine.record.current is not None:
        if lease is not None and not is_free(lease, world.clock.now()):
            return Completed(message=f"{engine.record.current.release.name} is on its way, which looks for itself")
        log.info("finishes what a dead run left")
        releasing.finish(engine)
    live = engine.record.live
    if live is None:
        return Completed(message=f"nothing of {service} is live")
    check = _looked(world, live)
    publish_checks(live.name, StepName.BAKE, (check,))
    if check.verdict is Verdict.PASS:
        return Completed(message=f"{live.name}: {check.summary}")
    if check.verdict is Verdict.INCONCLUSIVE or spec_of(live).policy is Policy.MANUAL:
        return Failed(message=f"{live.name}: {check.summary}")
    return _led_back(engine, world, live, check)


def refresh(
    engine: Engine, world: World, settings: Settings, hub: str | None, *, actor: str, reason: str
) -> State[Any]:
    """Release the ref's commit when it is new and the policy of the spec allows."""
    wanted = releasing.resolve(world, settings, engine.service, None, None, hub)
    spec, record = load_spec(settings.services, engine.service), engine.record
    known = (record.live, record.current.release if record.current else None)
    if wanted.commit in {one.commit for one in known if one}:
        return Completed(message=f"{spec.ref} is still at commit {wanted.commit[:12]}")
    try:
        wishes.refuse_again(record, wanted)
    except Refused as error:
        return Completed(message=f"{spec.ref} is at a commit that is not tried again. {error}")
    if spec.policy is Policy.MANUAL:
        return Completed(message=f"{spec.ref} is at the new commit {wanted.commit[:12]}; the policy is manual")
    return releasing.release(engine, world, wanted, actor=actor, reason=reason or f"{spec.ref} moved")


def drill(engine: Engine, world: World, *, actor: str) -> State[Any]:
    """Lead traffic back and forth again, under the probe, and tell how long each took."""
    live = engine.record.live
    if live is None or engine.record.current is not None:
        return Failed(message=f"A drill needs a live release of {engine.service} and nothing on its way.")
    actor = who(actor)
    back = _timed(engine, world, None, actor)
    if back is None or back.outcome is not Outcome.PROMOTED:
        return Failed(message=f"The roll back failed: {_why(back)}")
    forth = _timed(engine, world, live.name, actor)
    told = f"back to {back.release.name} in {_seconds(back):.1f} s"
    if forth is None or forth.outcome is not Outcome.PROMOTED:
        return Failed(message=f"{told}, and not forth again: {_why(forth)}")
    told += f", forth to {live.name} in {_seconds(forth):.1f} s"
    lost = [check.summary for one in (back, forth) for check in one.checks if check.verdict is Verdict.FAIL]
    publish(key=f"drill-{engine.service}", markdown=f"{told}\n\n{'; '.join(lost)}\n", description=told)
    return Failed(message=f"{told}; {'; '.join(lost)}") if lost else Completed(message=told)


def _looked(world: World, live: Release) -> CheckResult:
    """Return the first look that does not fail, or the last of ``LOOKS``."""
    spec = spec_of(live)
    prompts, address = prompts_of(world, spec), world.target.address(live.service)
    for left in reversed(range(LOOKS)):
        check = look(address, live, prompts, spec)
        if check.verdict is not Verdict.FAIL or not left:
            break
        world.clock.sleep(BETWEEN_S)
    return check


def _led_back(engine: Engine, world: World, live: Release, check: CheckResult) -> State[Any]:
    reason = f"{live.name} failed {LOOKS} looks: {check.summary}"
    try:
        state = releasing.roll_back(engine, world, None, actor="check-live", reason=reason)
    except NotFound as error:
        return Failed(message=f"{reason}. {error}")
    return Failed(message=f"{reason}; {state.message}")


def _timed(engine: Engine, world: World, to: str | None, actor: str) -> Progress | None:
    asked = {"run": f"{releasing.run_id()}-{to or 'back'}", "actor": actor, "reason": "drill"}
    wish = wishes.to_roll_back(engine.record, to, at=world.clock.now(), **asked)
    return engine.carry(engine.ask(wish), lambda step: releasing.perform(engine, step))


def _seconds(ended: Progress) -> float:
    """Return the seconds from the opening to the first proven answer of the other release."""
    shift = ended.step(StepName.SHIFT)
    return (shift.ended_at - ended.opened_at).total_seconds() if shift and shift.ended_at else 0.0


def _why(ended: Progress | None) -> str:
    return ended.failure.reason if ended and ended.failure else "another request took its place"
