"""The flow ``promote``: an earlier release takes live traffic again, after the checks that every candidate passes."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.parameters import Actor, Reason, Release, Service
from tasks.settings import read_settings


@flow(name="promote", flow_run_name="{service}: promote {release}")
def promote(service: Service, release: Release, reason: Reason = "", actor: Actor = "") -> State[Any]:
    """Lead live traffic to a release that has had it before.

    Args:
        service: The service to give the release to, by its name.
        release: One that has been live before, by its name, as the list of runs and `slipway history` tell.
        reason: Why; kept in the record and shown in the report.
        actor: Who asks; kept in the record and shown in the report.

    """
    with open_world(read_settings()) as world:
        engine = releasing.engine_for(world, service)
        return releasing.promote(engine, world, release, actor=actor, reason=reason)
