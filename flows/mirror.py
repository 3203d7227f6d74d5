"""The flow ``mirror``: one verified copy of what a ref means now, in the store."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import keeping
from tasks.parameters import Hub, Licences, Model, Ref, Repair
from tasks.settings import read_settings


@flow(name="mirror", flow_run_name="mirror {model}@{ref}")
def mirror(
    model: Model, ref: Ref = "main", hub: Hub = None, licences: Licences = (), repair: Repair = False
) -> State[Any]:
    """Bring one verified copy of a commit into the store; a copy that is there costs two requests.

    Args:
        model: The model to bring, org/name.
        ref: Which of its commits; a branch or tag means what it points to now.
        hub: Base URL of the Hub to take it from; empty: the configured one.
        licences: As the Hub writes them; any other is refused. None: any is accepted.
        repair: Look at what is stored as well, and fetch again what is damaged.

    """
    return keeping.mirror(read_settings(), model, ref, hub or None, licences, repair=repair)
