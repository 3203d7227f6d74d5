"""Makes a Prefect server hold what Slipway needs: a work pool, deployments, automations; and says what differs.

The same for the embedded server and any other, as often as one likes: what is right already is left alone, what was
edited is set right, and what bootstrap made and nobody wants any more is removed.  What a person paused stays paused.
``slipway up`` runs this module as a program, because whoever starts the embedded stack must not load Prefect.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, ScriptError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from tasks._deploying.recorded import read_recorded
from tasks._deploying.things import POOL, QUEUE, TAG, Change, Sort, Thing, What, changes
from tasks._deploying.wanted import (
    ROOT,
    Documents,
    Recorded,
    Surface,
    entrypoints,
    read_documents,
    undated,
    wanted,
)
from tasks._spec_file import load_spec, service_names
from tasks.errors import BadInput, Refused, SlipwayError
from tasks.runs import asking
from tasks.settings import Settings, read_settings, silence_telemetry

__all__ = ["Change", "Sort", "What", "bootstrap", "compare", "surface"]

_PAGE = 200
_NOBODY = UUID(int=0)
"""Stands for a deployment that is not there yet."""


def compare(settings: Settings) -> tuple[Change, ...]:
    """Return what ``bootstrap`` would do; nothing is changed.  Raises as it does.

    Releases that went live since the last bootstrap, of which forms do not tell yet, are left out of it: that is no
    difference that anybody must do something about, and the store need not answer.
    """
    target = _wanted(settings, recorded=())
    with asking(settings.prefect_api) as client:
        return _compared(client, target, undated)


def bootstrap(settings: Settings) -> tuple[Change, ...]:
    """Make the Prefect server hold what it should, and return what was done about each thing.

    Raises ``BadInput`` for a spec or a file that is wrong and before anything is changed, ``Refused`` where the work
    pool is of another kind, and as ``tasks.runs.start_run`` does.
    """
    target = _wanted(settings, recorded=read_recorded(settings, service_names(settings.services)))
    with asking(settings.prefect_api) as client:
        done = _compared(client, target)
        things = {(thing.sort, thing.name): thing for thing in target}
        for change in done:
            if change.what is not What.SAME:
                _ACT[change.sort](client, change, things.get((change.sort, change.name)))
    return done


@cache
def surface(entrypoint: str) -> Surface:
    """Return what a server knows of the flow at ``entrypoint``; raises ``BadInput`` where it cannot be imported."""
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(f"{ROOT / entrypoint}", use_placeholder_flow=False)
        described = parameter_schema(flow).model_dump(mode="json", exclude_unset=True)
    except (ScriptError, ImportError, AttributeError, ValueError, SyntaxError) as error:
        why = getattr(error, "user_exc", None) or error
        raise BadInput(
            f"The flow {entrypoint} cannot be imported: {type(why).__name__}: {why}.",
            remedy="Mend that file, or `make install`.",
        ) from error
    return Surface(flow=flow.name, parameters=described)


def _wanted(settings: Settings, *, recorded: Recorded) -> tuple[Thing, ...]:
    documents: Documents = read_documents()
    specs = tuple(load_spec(settings.services, name) for name in service_names(settings.services))
    return wanted(documents, specs, {one: surface(one) for one in entrypoints(documents)}, settings, recorded)


def _compared(
    client: SyncPrefectClient, target: tuple[Thing, ...], seen: Callable[[Thing], Thing] = lambda thing: thing
) -> tuple[Change, ...]:
    deployments = _deployments(client, target)
    ids = {name: one.id for name, one in deployments.items()}
    normal = tuple(_normal(thing, ids) for thing in target)
    found = (
        *_pool(client),
        *_queue(client),
        *(seen(_as_thing(name, one)) for name, one in deployments.items()),
        *_automations(client, {thing.name for thing in target if thing.sort is Sort.AUTOMATION}),
    )
    return changes(normal, found)


def _pool(client: SyncPrefectClient) -> tuple[Thing, ...]:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        return ()
    fields = {"type": pool.type, "base_job_template": pool.base_job_template}
    return (Thing(sort=Sort.POOL, name=POOL, fields=fields, paused=pool.is_paused),)


def _queue(client: SyncPrefectClient) -> tuple[Thing, ...]:
    try:
        queue = client.read_work_queue_by_name(QUEUE, POOL)
    except ObjectNotFound:
        return ()
    fields = {"concurrency_limit": queue.concurrency_limit}
    return (Thing(sort=Sort.QUEUE, name=QUEUE, fields=fields, paused=queue.is_paused),)


def _deployments(client: SyncPrefectClient, target: tuple[Thing, ...]) -> dict[str, DeploymentResponse]:
    """Return what is there of the deployments that are wanted, and all that carry the tag."""
    names = {thing.name for thing in target if thing.sort is Sort.DEPLOYMENT}
    found: dict[str, DeploymentResponse] = {}
    flows: dict[UUID, str] = {}
    while page := client.read_deployments(limit=_PAGE, offset=len(found)):
        for one in page:
            flow = flows.get(one.flow_id) or client.read_flow(one.flow_id).name
            flows[one.flow_id] = flow
            found[f"{flow}/{one.name}"] = one
    return {name: one for name, one in found.items() if name in names or TAG in one.tags}


def _as_thing(name: str, one: DeploymentResponse) -> Thing:
    limit, options = one.global_concurrency_limit, one.concurrency_options
    fields = {
        "entrypoint": one.entrypoint,
        "description": one.description,
        "tags": sorted(one.tags),
        "parameters": one.parameters,
        "enforce_parameter_schema": one.enforce_parameter_schema,
        "concurrency_limit": limit.limit if limit and limit.active else None,
        "collision_strategy": options.collision_strategy.value if options else None,
        "work_pool_name": one.work_pool_name,
        "work_queue_name": one.work_queue_name,
        "job_variables": one.job_variables,
        "schedules": [
            {"slug": s.slug, **s.schedule.model_dump(mode="json", exclude_defaults=True)} for s in one.schedules
        ],
        "pull_steps": one.pull_steps,
        "parameter_openapi_schema": one.parameter_openapi_schema,
    }
    paused = one.paused or any(not schedule.active for schedule in one.schedules)
    return Thing(sort=Sort.DEPLOYMENT, name=name, fields=fields, paused=paused)


def _automations(client: SyncPrefectClient, names: set[str]) -> tuple[Thing, ...]:
    """Return what is there under each name, and what else carries the tag; one that is there twice is no good."""
    tagged = {one.name for one in client.read_automations() if TAG in one.tags}
    found = []
    for name in sorted(names | tagged):
        there = client.read_automations_by_name(name)
        if there:
            fields = _plain(there[0]) if len(there) == 1 else {}
            found.append(Thing(sort=Sort.AUTOMATION, name=name, fields=fields, paused=not there[0].enabled))
    return tuple(found)


def _normal(thing: Thing, ids: Mapping[str, UUID]) -> Thing:
    if thing.sort is not Sort.AUTOMATION:
        return thing
    return thing.model_copy(update={"fields": _plain(_core(thing, ids))})


def _plain(one: AutomationCore) -> dict[str, Any]:
    return one.model_dump(mode="json", exclude={"id", "name", "enabled", "owner_resource", "created", "updated"})


def _core(thing: Thing, ids: Mapping[str, UUID], *, enabled: bool = True) -> AutomationCore:
    """Return an automation as Prefect takes it, with the ids of the deployments that it runs."""
    actions = [dict(action) for action in thing.fields["actions"]]
    for action in actions:
        if "deployment" in action:
            action["deployment_id"] = str(ids.get(action.pop("deployment"), _NOBODY))
    return AutomationCore.model_validate({**thing.fields, "name": thing.name, "actions": actions, "enabled": enabled})


def _set_pool(client: SyncPrefectClient, change: Change, thing: Thing | None) -> None:
    if thing is None:
        return
    fields = thing.fields
    if change.what is What.CHANGED:
        if "type" in change.fields:
            raise Refused(
                f"The work pool {POOL} is not of the type {fields['type']}, and Prefect cannot change that.",
                remedy=f"Set SLIPWAY_WORKER__KIND to its type, or delete it with `prefect work-pool delete {POOL}`.",
            )
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=fields["base_job_template"]))
        return
    template = fields.get("base_job_template") or ProcessWorker.get_default_base_job_template()
    client.create_work_pool(WorkPoolCreate(name=POOL, type=fields["type"], base_job_template=template))


def _set_queue(client: SyncPrefectClient, _change: Change, thing: Thing | None) -> None:
    if thing is None:
        return
    try:
        client.update_work_queue(client.read_work_queue_by_name(QUEUE, POOL).id, **thing.fields)
    except ObjectNotFound:
        client.create_work_queue(QUEUE, work_pool_name=POOL, **thing.fields)


def _set_deployment(client: SyncPrefectClient, change: Change, thing: Thing | None) -> None:
    there = None if change.what is What.MADE else client.read_deployment_by_name(change.name)
    if thing is None:
        if there is not None:
            client.delete_deployment(there.id)
        return
    fields = dict(thing.fields)
    strategy, flow, name = fields.pop("collision_strategy"), *thing.name.split("/")
    running = {schedule.slug: schedule.active for schedule in there.schedules} if there else {}
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow),
        name=name,
        concurrency_options=strategy and ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy(strategy)),
        schedules=[_schedule(one, active=running.get(one["slug"], True)) for one in fields.pop("schedules")],
        **fields,
    )


def _schedule(one: dict[str, Any], *, active: bool) -> DeploymentScheduleCreate:
    schedule = CronSchedule(cron=one["cron"], timezone=one["timezone"])
    return DeploymentScheduleCreate(schedule=schedule, slug=one["slug"], active=active)


def _set_automation(client: SyncPrefectClient, change: Change, thing: Thing | None) -> None:
    there = client.read_automations_by_name(change.name)
    for superfluous in there[1:] if thing else there:
        client.delete_automation(superfluous.id)
    if thing is None:
        return
    named = {action["deployment"] for action in thing.fields["actions"] if "deployment" in action}
    ids = {name: client.read_deployment_by_name(name).id for name in named}
    if there:
        client.update_automation(there[0].id, _core(thing, ids, enabled=there[0].enabled))
    else:
        client.create_automation(_core(thing, ids))


_ACT = {
    Sort.POOL: _set_pool,
    Sort.QUEUE: _set_queue,
    Sort.DEPLOYMENT: _set_deployment,
    Sort.AUTOMATION: _set_automation,
}


def main() -> None:
    """Bootstrap as the environment says; what went wrong is one line."""
    silence_telemetry()
    try:
        bootstrap(read_settings())
    except SlipwayError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
