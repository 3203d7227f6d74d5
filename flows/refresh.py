"""The flow ``refresh``: follows the ref of a service, and releases its commit when that is new."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, reporting, watching
from tasks._release.world import open_world
from tasks.parameters import Actor, Hub, Reason, Service
from tasks.settings import read_settings


@flow(name="refresh", flow_run_name="{service}: refresh")
def refresh(service: Service, hub: Hub = None, reason: Reason = "", actor: Actor = "") -> State[Any]:
    """Release the commit that the service's ref points to, if it is new and the policy allows.

    Args:
        service: The service to look after, by its name.
        hub: Base URL of the Hub to look at; empty: the configured one.
        reason: Why; kept in the record and shown in the report.
        actor: Who asks; kept in the record and shown in the report.

    """
    settings = read_settings()
    with open_world(settings, shown=reporting.shown_progress) as world:
        engine = releasing.engine_for(world, service)
        return watching.refresh(engine, world, settings, hub or None, actor=actor, reason=reason)
