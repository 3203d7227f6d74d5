"""The flow ``check_live``: looks at a live release, and leads back from one that fails look after look."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, watching
from tasks._release.world import open_world
from tasks.parameters import Service
from tasks.settings import read_settings


@flow(name="check-live", flow_run_name="{service}: check what is live")
def check_live(service: Service) -> State[Any]:
    """Ask the live release its golden prompts; finish first what a dead run left on its way.

    Args:
        service: The service to look at, by its name.

    """
    with open_world(read_settings()) as world:
        return watching.check_live(releasing.engine_for(world, service), world)
