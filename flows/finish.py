"""The flow ``finish``: ends what a dead run left on its way; started by itself when a release run crashes."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.parameters import Service
from tasks.settings import read_settings


@flow(name="finish", flow_run_name="{service}: finish what is left")
def finish(service: Service) -> State[Any]:
    """Carry the release that a dead run left to its end; without one nothing is done.

    Args:
        service: The service to look after, by its name.

    """
    with open_world(read_settings()) as world:
        return releasing.finish(releasing.engine_for(world, service))
