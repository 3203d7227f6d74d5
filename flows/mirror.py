"""The flow ``mirror``: one verified copy of what a ref means now, in the store."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import keeping
from tasks.settings import read_settings


@flow(name="mirror", flow_run_name="mirror {model}@{ref}")
def mirror(
    model: str, ref: str = "main", hub: str | None = None, licences: tuple[str, ...] = (), repair: bool = False
) -> State[Any]:
    """Bring one verified copy of a commit into the store; a copy that is there costs two requests.

    Args:
        model: The model, org/name.
        ref: Branch, tag or commit.
        hub: Base URL of the Hub to take it from; None is the configured one.
        licences: Licences to accept, as the Hub writes them; empty accepts any.
        repair: Look at what is stored as well, and fetch again what is damaged.

    """
    return keeping.mirror(read_settings(), model, ref, hub, licences, repair=repair)
