"""The flow ``roll_back``: back to what was live before, as fast as it can be done."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="roll-back", flow_run_name="{service}: roll back")
def roll_back(service: str, to: str | None = None, reason: str = "", actor: str = "") -> State[Any]:
    """Undo the release on its way or, if there is none, lead live traffic back to the release before.

    Args:
        service: Name of the service, e.g. chat.
        to: Name of an earlier release, e.g. chat-r3; None is the one before the live one.
        reason: Why; kept in the record.
        actor: Who asks; kept in the record.

    """
    with open_world(read_settings()) as world:
        return releasing.roll_back(releasing.engine_for(world, service), world, to, actor=actor, reason=reason)
