"""The flow ``restore``: the last good release in a target that may be empty, from the store alone."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.parameters import Actor, Reason, Service
from tasks.settings import read_settings


@flow(name="restore", flow_run_name="{service}: restore")
def restore(service: Service, reason: Reason = "", actor: Actor = "") -> State[Any]:
    """Bring up the release that the record says is live; nothing but the store is needed.

    Args:
        service: The service to bring back, by its name.
        reason: Why; kept in the record and shown in the report.
        actor: Who asks; kept in the record and shown in the report.

    """
    with open_world(read_settings()) as world:
        return releasing.restore(releasing.engine_for(world, service), world, actor=actor, reason=reason)
