"""The flow ``drill``: rehearses a roll back under the probe, and records how long it took."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, watching
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="drill", flow_run_name="{service}: drill")
def drill(service: str) -> State[Any]:
    """Lead live traffic to the release before and forth again.

    Args:
        service: Name of the service, e.g. chat.

    """
    with open_world(read_settings()) as world:
        return watching.drill(releasing.engine_for(world, service), world)
