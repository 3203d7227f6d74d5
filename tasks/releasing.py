"""Releases as Prefect shows them: each action a task with its own name, around what the engine does.

Prefect gives each step its name, its log and its place in the timeline.  It decides nothing: a run killed at any
point is finished by the next one, because the record and the target say what is left to do.
"""

import logging
from dataclasses import replace
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed

from tasks._checks.rendering import TITLES
from tasks._release import wishes
from tasks._release.engine import Engine
from tasks._release.machine import PLANS
from tasks._release.world import World
from tasks._spec_file import load_spec, with_source
from tasks.approving import consult
from tasks.in_process import here
from tasks.notifying import teller
from tasks.provenance import actor as who
from tasks.records import Kind, Outcome, Progress, Release, StepName, StepState
from tasks.reporting import name_run, publish_checks, publish_release, publish_table, publish_what_clients_saw
from tasks.settings import Settings

log = logging.getLogger(__name__)
logging.getLogger("prefect.flow_runs").addFilter(lambda record: not _is_refusal(record))
logging.getLogger("prefect.task_runs").addFilter(lambda record: not _is_told(record))

STORY = {
    Kind.RELEASE: "release {release.model}@{release.commit:.12}",
    Kind.PROMOTE: "promote it again",
    Kind.ROLL_BACK: "roll back to it",
    Kind.RESTORE: "restore it",
}
"""What a flow run does to the release that its name begins with."""
SAID = {
    Outcome.PROMOTED: "is live",
    Outcome.REFUSED: "was refused",
    Outcome.FAILED: "failed",
    Outcome.ROLLED_BACK: "was rolled back",
    Outcome.SUPERSEDED: "was superseded",
}


def resolve(
    world: World, settings: Settings, service: str, model: str | None, ref: str | None, hub: str | None
) -> Release:
    """Return the release that is asked for, with its ref resolved to a commit; its number is not given yet.

    Raises ``BadInput`` or ``NotFound`` for a spec, model or ref that is wrong, before anything is touched.
    """
    look = _resolve.fn if here() else _resolve
    return look(world, settings, service, model, ref, hub)


@task(name="resolve the commit", task_run_name="{service}: resolve the commit", cache_policy=NO_CACHE)
def _resolve(
    world: World, settings: Settings, service: str, model: str | None, ref: str | None, hub: str | None
) -> Release:
    spec = with_source(load_spec(settings.services, service), model, ref)
    endpoint = hub or settings.hub.endpoint
    with world.hub(endpoint) as source:
        commit = source.resolve(spec.model, spec.ref).commit
    log.info("%s@%s is commit %s at %s", spec.model, spec.ref, commit, endpoint)
    return wishes.wanted(spec, commit, endpoint)


def engine_for(world: World, service: str) -> Engine:
    """Return the engine of this flow run."""
    return Engine(replace(world, tell=teller(world)), service, run=run_id())


def run_id() -> str:
    """Return the id of the flow run of this moment."""
    return str(runtime.flow_run.id or here())


def release(engine: Engine, world: World, wanted: Release, *, actor: str, reason: str) -> State[Any]:
    """Bring the wanted release to its end, after whatever an earlier run left; return the run's state."""
    wish = wishes.to_release(wanted, run=run_id(), actor=who(actor), reason=reason, at=world.clock.now())
    return carry(engine, engine.ask(wish), f"{wanted.commit[:12]} is live already")


def promote(engine: Engine, world: World, name: str, *, actor: str, reason: str) -> State[Any]:
    """Bring the earlier release called ``name`` back to live traffic, with its checks."""
    wish = wishes.to_promote(engine.record, name, run=run_id(), actor=who(actor), reason=reason, at=world.clock.now())
    return carry(engine, engine.ask(wish), f"{name} is live already")


def roll_back(engine: Engine, world: World, to: str | None, *, actor: str, reason: str) -> State[Any]:
    """Undo the release on its way; without one, or with ``to``, lead traffic back to an earlier release."""
    actor = who(actor)
    undone = engine.give_up(f"{actor} rolled it back: {reason or 'no reason given'}") if to is None else None
    if undone is not None:
        ended = engine.carry(undone, lambda step: perform(engine, step))
        name = ended.release.name if ended else engine.service
        return Completed(message=f"{name} was given up; {_live(engine)} is live")
    wish = wishes.to_roll_back(engine.record, to, run=run_id(), actor=actor, reason=reason, at=world.clock.now())
    return carry(engine, engine.ask(wish), f"{wish.release.name} is live already")


def restore(engine: Engine, world: World, *, actor: str, reason: str) -> State[Any]:
    """Bring the last good release up in a target that may be empty, from the store alone."""
    wish = wishes.to_restore(engine.record, run=run_id(), actor=who(actor), reason=reason, at=world.clock.now())
    return carry(engine, engine.ask(wish), f"{wish.release.name} is live already")


def finish(engine: Engine) -> State[Any]:
    """End what a dead run left on its way."""
    left = engine.record.current
    if left is None:
        return Completed(message=f"nothing of {engine.service} was left on its way")
    return carry(engine, left.request, "")


def carry(engine: Engine, request: str | None, already: str) -> State[Any]:
    """See a request to its end as tasks of this flow run; ``already`` is said when nothing had to be done."""
    if request is None:
        return Completed(message=already)
    ended = engine.carry(request, lambda step: perform(engine, step), lambda question: consult(engine, question))
    if ended is not None:
        publish_release(ended)
        publish_table(ended)
        publish_what_clients_saw(ended, lambda name: engine.evidence(ended, name))
        return final_state(ended)
    live = engine.record.live
    if engine.record.current is None and engine.record.waiting is None and live is not None:
        return Completed(message=f"{live.name} is live already")
    return Failed(message=f"A newer request for {engine.service} took this one's place.")


def final_state(ended: Progress) -> State[Any]:
    """Return Prefect's own states under their own names: its pages find runs by them."""
    name, outcome = ended.release.name, ended.outcome or Outcome.FAILED
    if outcome is Outcome.PROMOTED:
        return Completed(message=f"{name} {SAID[outcome]}{' again' if ended.kind is not Kind.RELEASE else ''}")
    why = ended.failure.reason if ended.failure else "no reason was recorded"
    return Failed(message=f"{name} {SAID[outcome]}: {why}")


def perform(engine: Engine, step: StepName) -> None:
    """Do one step as a task; what the record does not hold of its failure is raised here."""
    if here():
        engine.perform(step)
        return
    title, release = TITLES[step], engine.progress.release
    if step is PLANS[engine.progress.kind][0]:
        name_run(f"{release.name}: {STORY[engine.progress.kind].format(release=release)}")
    named = _step.with_options(name=title, task_run_name=f"{release.name}: {title}")
    state: State[Any] = named(engine, step, return_state=True)
    if state.is_crashed() or (state.is_failed() and not _recorded(engine, step)):
        state.result(raise_on_failure=True)


@task(cache_policy=NO_CACHE)
def _step(engine: Engine, step: StepName) -> State[Any]:
    checks = engine.perform(step)
    if checks:
        publish_checks(engine.progress.release.name, step, checks)
    recorded = engine.progress.step(step)
    if recorded is not None:
        log.info("%s: %s: %s", engine.progress.release.name, TITLES[step], recorded.detail)
    if recorded is not None and recorded.state is StepState.FAILED:
        failure = engine.progress.failure
        return Failed(message=failure.reason if failure else recorded.detail)
    return Completed(message=recorded.detail if recorded else "")


def _recorded(engine: Engine, step: StepName) -> bool:
    """Return whether the failure of a step is in the record, so that the next action deals with it."""
    if engine.record.current is None:
        return False
    recorded = engine.record.current.step(step)
    forward = step in PLANS[engine.record.current.kind]
    return forward and recorded is not None and recorded.state is StepState.FAILED


def _live(engine: Engine) -> str:
    return engine.record.live.name if engine.record.live else "nothing"


def _is_told(record: logging.LogRecord) -> bool:
    """Return whether Prefect logs the end of a step, whose own line says which one it was."""
    return record.levelno < logging.WARNING and record.getMessage().startswith("Finished in state")


def _is_refusal(record: logging.LogRecord) -> bool:
    """Return whether Prefect logs, with a traceback, that a flow ended as failed: a refusal is no crash."""
    return bool(record.exc_info and record.exc_info[0] is FailedRun)
