"""The steps of a release as Prefect tasks: what the UI shows, around what the engine does.

Prefect gives each step its name, its log and its place in the timeline.  It decides nothing: a run killed at any
point is finished by the next one, because the record and the target say what is left to do.
"""

import logging
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks._engine import Engine
from tasks._machine import ActionKind, Health
from tasks._steps import World
from tasks.records import Outcome, Progress, Release, StepName, StepState
from tasks.reporting import publish_checks, publish_release
from tasks.settings import Settings
from tasks.spec import load_spec, with_source

log = logging.getLogger(__name__)

TITLES = {
    StepName.MIRROR: "mirror the weights",
    StepName.START: "start the candidate",
    StepName.READY: "wait for its first answer",
    StepName.SMOKE: "smoke checks",
    StepName.QUALITY: "quality checks",
    StepName.SHIFT: "shift live traffic",
    StepName.BAKE: "bake",
    StepName.TIDY: "remove older releases",
    StepName.MOVE_BACK: "move live traffic back",
    StepName.REMOVE: "remove the candidate",
}


@task(name="resolve the commit", task_run_name="{service}: resolve the commit", cache_policy=NO_CACHE)
def resolve(
    world: World, settings: Settings, service: str, model: str | None, ref: str | None, hub: str | None
) -> Release:
    """Return the release that is asked for, with its ref resolved to a commit; its number is not given yet.

    Raises ``BadInput`` or ``NotFound`` for a spec, model or ref that is wrong, before anything is touched.
    """
    spec = with_source(load_spec(settings.services, service), model, ref)
    endpoint = hub or settings.hub.endpoint
    with world.hub(endpoint) as source:
        commit = source.resolve(spec.model, spec.ref).commit
    log.info("%s@%s is commit %s", spec.model, spec.ref, commit)
    return Release(
        service=service,
        number=1,
        model=spec.model,
        commit=commit,
        hub=endpoint,
        spec=spec.model_dump(mode="json", exclude_defaults=True),
    )


def settle(engine: Engine, wanted: Release) -> None:
    """End the release that a dead run left on its way, unless it is the wanted one: that is carried on.

    One that has not shifted traffic yet is given up for the newer request; one that has is brought to its end.
    """
    left = engine.record.current
    if left is None or _same(left.release, wanted):
        return
    if left.step(StepName.SHIFT) is None:
        engine.abandon(f"A newer request for commit {wanted.commit[:12]} took its place.")
    log.info("first ends %s, which an earlier run left on its way", left.release.name)
    drive(engine)


def open_release(engine: Engine, wanted: Release, reason: str) -> bool:
    """Record the wanted release as on its way; false when it is live and healthy already.

    A release that an earlier run of the same wish left on its way is taken over.
    """
    record = engine.record
    if record.current is not None:
        log.info("carries on %s, which an earlier run left on its way", record.current.release.name)
        return True
    if record.live is not None and _same(record.live, wanted):
        placement = engine.observe().placements.get(record.live.name)
        if placement and placement.live and placement.health is Health.HEALTHY:
            return False
    release = wanted.model_copy(update={"number": record.next_number})
    engine.open(release, run=str(runtime.flow_run.id or ""), reason=reason)
    return True


def drive(engine: Engine) -> Progress:
    """Do one action after the other until the release on its way has ended, and report it."""
    while (action := engine.next()).kind is ActionKind.STEP and action.step is not None:
        step = action.step
        state: State[Any] = _step.with_options(
            name=TITLES[step], task_run_name=f"{engine.progress.release.name}: {TITLES[step]}"
        )(engine, step, return_state=True)
        if state.is_crashed() or (state.is_failed() and not _recorded(engine, step)):
            state.result(raise_on_failure=True)
    if action.outcome is None:
        return engine.record.past[-1]
    ended = engine.close(action.outcome)
    publish_release(ended)
    return ended


def final_state(ended: Progress) -> State[Any]:
    """Return the Prefect state of a flow run whose release ended so."""
    name = ended.release.name
    if ended.outcome is Outcome.PROMOTED:
        return Completed(name="Promoted", message=f"{name} is live")
    why = ended.failure.reason if ended.failure else "no reason was recorded"
    title = (ended.outcome or Outcome.FAILED).value.replace("_", " ").capitalize()
    return Failed(name=title, message=f"{name} was {title.lower()}: {why}")


@task(cache_policy=NO_CACHE)
def _step(engine: Engine, step: StepName) -> State[Any]:
    checks = engine.perform(step)
    if checks:
        publish_checks(engine.progress.release.name, step, checks)
    recorded = engine.progress.step(step)
    if recorded is not None and recorded.state is StepState.FAILED:
        failure = engine.progress.failure
        return Failed(message=failure.reason if failure else recorded.detail)
    detail = recorded.detail if recorded else ""
    log.info("%s: %s: %s", engine.progress.release.name, step.value, detail)
    return Completed(message=detail)


def _recorded(engine: Engine, step: StepName) -> bool:
    """Return whether the failure of a step is in the record, so that the next action deals with it."""
    if engine.record.current is None:
        return False
    undoing = step in (StepName.MOVE_BACK, StepName.REMOVE)
    recorded = engine.record.current.step(step)
    return not undoing and recorded is not None and recorded.state is StepState.FAILED


def _same(one: Release, other: Release) -> bool:
    """Return whether two releases are of one commit and one spec, whatever their numbers."""
    return one.model_copy(update={"number": other.number}) == other
