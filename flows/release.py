"""The flow ``release``: carries one commit of a service's model to live traffic, or refuses it.

May be run again at any time: it first ends what an earlier run left on its way, and does nothing when the commit
is live already.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, reporting
from tasks._release.world import open_world
from tasks.parameters import Actor, Hub, OtherModel, OtherRef, Reason, Service
from tasks.settings import read_settings


@flow(name="release", flow_run_name="{service}: release")
def release(
    service: Service,
    model: OtherModel = None,
    ref: OtherRef = None,
    hub: Hub = None,
    reason: Reason = "",
    actor: Actor = "",
) -> State[Any]:
    """Release the commit that the service's ref points to now.

    Args:
        service: The service to release a commit for, by its name.
        model: A model, org/name, to release instead of the spec's; empty: the spec's.
        ref: What to release of it instead of the spec's ref; empty: the spec's.
        hub: Base URL of the Hub to take it from; empty: the configured one.
        reason: Why; kept in the record and shown in the report.
        actor: Who asks; kept in the record and shown in the report.

    """
    settings = read_settings()
    with open_world(settings, shown=reporting.shown_progress) as world:
        wanted = releasing.resolve(world, settings, service, model or None, ref or None, hub or None)
        return releasing.release(releasing.engine_for(world, service), world, wanted, actor=actor, reason=reason)
