"""Flow runs on a Prefect server: started from a deployment, followed to their end.

Nothing here decides anything about a release; a run that cannot be followed any more goes on by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.errors import BadInput, NotFound, Unreachable
from tasks.records import Value

GOOD = StateType.COMPLETED


class RunState(Value):
    """What Prefect says of a flow run; ``name`` is what a person sees, e.g. ``Promoted``."""

    name: str
    message: str
    final: bool
    good: bool


def start_run(api: str, deployment: str, parameters: dict[str, Any]) -> UUID:
    """Ask the Prefect server at ``api`` (empty: the configured one) to run ``deployment``; return the run's id.

    Raises ``NotFound`` without such a deployment, ``BadInput`` for parameters that do not fit its flow, and
    ``Unreachable`` when the server does not answer.
    """
    with _client(api) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise NotFound(
                f"The Prefect server has no deployment {deployment!r}.",
                remedy="`slipway up` or `prefect deploy --all` makes it.",
            ) from error
        try:
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id
        except PrefectHTTPStatusError as error:
            raise BadInput(
                f"Prefect refuses these parameters for {deployment!r}: {error.response.text[:256]}."
            ) from error


def read_run(api: str, run: UUID) -> RunState:
    """Return the state of a flow run; raises ``Unreachable``."""
    with _client(api) as client:
        state = client.read_flow_run(run).state
    if state is None:
        return RunState(name="Unknown", message="", final=False, good=False)
    return RunState(
        name=state.name or state.type.value,
        message=state.message or "",
        final=state.is_final(),
        good=state.type is GOOD,
    )


@contextmanager
def _client(api: str) -> Iterator[SyncPrefectClient]:
    try:
        with SyncPrefectClient(api=api) if api else get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise Unreachable(
            f"The Prefect server at {api or 'the configured address'} does not answer.",
            remedy="`slipway up` repairs the embedded one.",
        ) from error
