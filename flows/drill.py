"""The flow ``drill``: rehearses a roll back under the probe, and records how long it took."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, watching
from tasks._release.world import open_world
from tasks.parameters import Actor, Service
from tasks.settings import read_settings


@flow(name="drill", flow_run_name="{service}: drill")
def drill(service: Service, actor: Actor = "") -> State[Any]:
    """Lead live traffic to the release before and forth again.

    Args:
        service: The service to rehearse with; traffic moves, and back, by its name.
        actor: Who asks; kept in the record and shown in the report.

    """
    with open_world(read_settings()) as world:
        return watching.drill(releasing.engine_for(world, service), world, actor=actor)
