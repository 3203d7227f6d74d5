"""The flow ``finish``: ends what a dead run left on its way; started by itself when a release run crashes."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="finish", flow_run_name="{service}: finish what is left")
def finish(service: str) -> State[Any]:
    """Carry the release that a dead run left to its end; without one nothing is done.

    Args:
        service: Name of the service, e.g. chat.

    """
    with open_world(read_settings()) as world:
        return releasing.finish(releasing.engine_for(world, service))
