"""The flow ``release``: carries one commit of a service's model to live traffic, or refuses it.

May be run again at any time: it first ends what an earlier run left on its way, and does nothing when the commit
is live already.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import releasing, reporting
from tasks._release.world import open_world
from tasks.settings import read_settings


@flow(name="release", flow_run_name="{service}: release")
def release(
    service: str,
    model: str | None = None,
    ref: str | None = None,
    hub: str | None = None,
    reason: str = "",
    actor: str = "",
) -> State[Any]:
    """Release the commit that the service's ref points to now.

    Args:
        service: Name of the service, e.g. chat, as in serve/services/chat.yaml.
        model: A model, org/name, to release instead of the spec's; None is the spec's.
        ref: Branch, tag or commit to release instead of the spec's ref; None is the spec's.
        hub: Base URL of the Hub to take it from; None is the configured one.
        reason: Why; kept in the record.
        actor: Who asks; kept in the record.

    """
    settings = read_settings()
    with open_world(settings, shown=reporting.shown_progress) as world:
        wanted = releasing.resolve(world, settings, service, model, ref, hub)
        return releasing.release(releasing.engine_for(world, service), world, wanted, actor=actor, reason=reason)
