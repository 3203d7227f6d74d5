"""Who asked for the flow run of this moment, from what Prefect knows of it: the ledger never says "nobody"."""

import logging

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from tasks._who import maker, person

FROM_UI = "Run from the Prefect UI"
"""How the first state of a run begins that was started on Prefect's pages (both generations of them, 3.8.8)."""

log = logging.getLogger(__name__)


def actor(named: str) -> str:
    """Return ``named``, or who made this flow run; in a flow that no server started, the user of this machine."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if named.strip() or run is None or run.deployment_id is None:
        return person(named)
    by, tags = run.created_by, frozenset(run.tags)
    kind, name = (by.type, by.display_value) if by else (None, None)
    known = maker(kind, name, tags=tags, scheduled=run.auto_scheduled)
    return known or ("somebody in the Prefect UI" if _is_from_ui(run) else "somebody by Prefect's API")


def _is_from_ui(run: FlowRun) -> bool:
    try:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(run.id)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Prefect does not say where this run was started: %s", type(error).__name__)
        return False
    first = min(states, key=lambda state: state.timestamp, default=None)
    return first is not None and (first.message or "").startswith(FROM_UI)
