"""The flow ``refresh``: follows the ref of a service, and releases its commit when that is new."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, reporting, watching
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="refresh", flow_run_name="{service}: refresh")
def refresh(service: str, hub: str | None = None) -> State[Any]:
    """Release the commit that the service's ref points to, if it is new and the policy allows.

    Args:
        service: Name of the service, e.g. chat.
        hub: Base URL of the Hub to look at; None is the configured one.

    """
    settings = read_settings()
    with open_world(settings, shown=reporting.shown_progress) as world:
        return watching.refresh(releasing.engine_for(world, service), world, settings, hub)
