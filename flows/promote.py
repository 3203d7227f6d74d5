"""The flow ``promote``: an earlier release takes live traffic again, after the checks that every candidate passes."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="promote", flow_run_name="{service}: promote {release}")
def promote(service: str, release: str, reason: str = "", actor: str = "") -> State[Any]:
    """Lead live traffic to a release that has had it before.

    Args:
        service: Name of the service, e.g. chat.
        release: Name of the release, e.g. chat-r3.
        reason: Why; kept in the record.
        actor: Who asks; kept in the record.

    """
    with open_world(read_settings()) as world:
        engine = releasing.engine_for(world, service)
        return releasing.promote(engine, world, release, actor=actor, reason=reason)
