"""The flow ``roll_back``: back to what was live before, as fast as it can be done."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.parameters import Actor, EarlierRelease, Reason, Service
from tasks.settings import read_settings


@flow(name="roll-back", flow_run_name="{service}: roll back")
def roll_back(service: Service, to: EarlierRelease = None, reason: Reason = "", actor: Actor = "") -> State[Any]:
    """Undo the release on its way or, if there is none, lead live traffic back to the release before.

    Args:
        service: The service to lead back, by its name.
        to: Its name; empty: undo what is on its way or, if nothing is, go to the release before the live one.
        reason: Why; kept in the record and shown in the report.
        actor: Who asks; kept in the record and shown in the report.

    """
    with open_world(read_settings()) as world:
        return releasing.roll_back(
            releasing.engine_for(world, service), world, to or None, actor=actor, reason=reason
        )
