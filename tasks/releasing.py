"""The steps of a release as Prefect tasks: what the UI shows, around what the engine does.

Prefect gives each step its name, its log and its place in the timeline.  It decides nothing: a run killed at any
point is finished by the next one, because the record and the target say what is left to do.
"""

import logging
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed

from tasks._engine import Engine
from tasks._machine import FORWARD
from tasks._steps import World
from tasks.records import Outcome, Progress, Release, StepName, StepState
from tasks.reporting import TITLES, name_run, publish_checks, publish_release
from tasks.settings import Settings
from tasks.spec import load_spec, with_source

log = logging.getLogger(__name__)
logging.getLogger("prefect.flow_runs").addFilter(lambda record: not _is_refusal(record))

SAID = {
    Outcome.PROMOTED: "is live",
    Outcome.REFUSED: "was refused",
    Outcome.FAILED: "failed",
    Outcome.ROLLED_BACK: "was rolled back",
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
    log.info("%s@%s is commit %s at %s", spec.model, spec.ref, commit, endpoint)
    return Release(
        service=service,
        number=1,
        model=spec.model,
        commit=commit,
        hub=endpoint,
        spec=spec.model_dump(mode="json", exclude_defaults=True),
    )


def carry(engine: Engine, wanted: Release, reason: str) -> State[Any]:
    """Bring the wanted release to its end, after whatever an earlier run left on its way; return the run's state."""
    if engine.stands_in_the_way(wanted):
        engine.give_way(wanted)
        log.info("first ends %s, which an earlier run left on its way", engine.progress.release.name)
        publish_release(engine.drive(lambda step: _perform(engine, step)))
    if not engine.begin(wanted, run=str(runtime.flow_run.id or ""), reason=reason):
        return Completed(message=f"{wanted.commit[:12]} is live already")
    name_run(f"{engine.progress.release.name}: {wanted.commit[:12]}")
    ended = engine.drive(lambda step: _perform(engine, step))
    publish_release(ended)
    return _final_state(ended)


def _final_state(ended: Progress) -> State[Any]:
    """Return Prefect's own states under their own names: its pages find runs by them."""
    name, outcome = ended.release.name, ended.outcome or Outcome.FAILED
    if outcome is Outcome.PROMOTED:
        return Completed(message=f"{name} {SAID[outcome]}")
    why = ended.failure.reason if ended.failure else "no reason was recorded"
    return Failed(message=f"{name} {SAID[outcome]}: {why}")


def _perform(engine: Engine, step: StepName) -> None:
    """Do one step as a task; what the record does not hold of its failure is raised here."""
    title = TITLES[step]
    named = _step.with_options(name=title, task_run_name=f"{engine.progress.release.name}: {title}")
    state: State[Any] = named(engine, step, return_state=True)
    if state.is_crashed() or (state.is_failed() and not _recorded(engine, step)):
        state.result(raise_on_failure=True)


@task(cache_policy=NO_CACHE)
def _step(engine: Engine, step: StepName) -> State[Any]:
    checks = engine.perform(step)
    if checks:
        publish_checks(engine.progress.release.name, step, checks)
    recorded = engine.progress.step(step)
    if recorded is not None and recorded.state is StepState.FAILED:
        failure = engine.progress.failure
        return Failed(message=failure.reason if failure else recorded.detail)
    return Completed(message=recorded.detail if recorded else "")


def _recorded(engine: Engine, step: StepName) -> bool:
    """Return whether the failure of a step is in the record, so that the next action deals with it."""
    if engine.record.current is None:
        return False
    recorded = engine.record.current.step(step)
    return step in FORWARD and recorded is not None and recorded.state is StepState.FAILED


def _is_refusal(record: logging.LogRecord) -> bool:
    """Return whether Prefect logs, with a traceback, that a flow ended as failed: a refusal is no crash."""
    return bool(record.exc_info and record.exc_info[0] is FailedRun)
