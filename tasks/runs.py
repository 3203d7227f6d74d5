"""Flow runs on a Prefect server: started from a deployment, read until their end.

Nothing here decides anything about a release; a run that cannot be followed any more goes on by itself.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    get_current_settings,
    temporary_settings,
)

from tasks.errors import AccessDenied, BadInput, NotFound, Unreachable
from tasks.records import Value

RELEASE = "release/release"
PROMOTE = "promote/promote"
ROLL_BACK = "roll-back/roll-back"
CHECK_LIVE = "check-live/check-live"
REFRESH = "refresh/refresh"
DRILL = "drill/drill"
RESTORE = "restore/restore"
FINISH = "finish/finish"
"""The flows by their deployments, as ``prefect.yaml`` has them."""
logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it warns of its own stop mark at every exit
NOT_BEGUN = (StateType.SCHEDULED, StateType.PENDING)


class RunState(Value):
    """What Prefect says of a flow run; ``name`` is what a person sees, e.g. ``Late``."""

    name: str
    message: str
    begun: bool
    final: bool
    good: bool


def start_run(api: str, deployment: str, parameters: dict[str, Any]) -> UUID:
    """Ask the Prefect server at ``api`` (empty: the configured one) to run ``deployment``; return the run's id.

    Raises ``NotFound`` without such a deployment, ``BadInput`` for parameters that do not fit its flow,
    ``AccessDenied``, and ``Unreachable`` when the server does not answer.
    """
    with _client(api) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise NotFound(
                f"The Prefect server has no deployment {deployment!r}.",
                remedy="`slipway up` or `prefect deploy --all` makes it.",
            ) from error
        return client.create_flow_run_from_deployment(found.id, parameters=parameters).id


def read_run(api: str, run: UUID) -> RunState:
    """Return the state of a flow run; raises ``NotFound`` when it was deleted, and as ``start_run`` does."""
    with _client(api) as client:
        try:
            state = client.read_flow_run(run).state
        except ObjectNotFound as error:
            raise NotFound(
                f"The flow run {run} was deleted.", remedy="`slipway status` shows the service."
            ) from error
    if state is None:
        return RunState(name="Unknown", message="", begun=False, final=False, good=False)
    return RunState(
        name=state.name or state.type.value,
        message=state.message or "",
        begun=state.type not in NOT_BEGUN,
        final=state.is_final(),
        good=state.type is StateType.COMPLETED,
    )


def wake(api: str, run: str) -> None:
    """Let a run that is paused for a person's answer look at the record again; one that is not paused is left alone.

    Raises as ``start_run`` does.
    """
    nothing_said = {"grant": False, "who": "", "why": ""}
    with _client(api) as client:
        try:
            client.resume_flow_run(UUID(run), run_input=nothing_said)
        except ObjectNotFound:
            return


def send_artifact(api: str, *, key: str, markdown: str, description: str) -> None:
    """Show a text on the Prefect server at ``api`` that belongs to no flow run; raises as ``start_run`` does."""
    artifact = ArtifactCreate(key=key, type="markdown", data=markdown, description=description)
    with _client(api) as client:
        client.create_artifact(artifact)


@contextmanager
def _client(api: str) -> Iterator[SyncPrefectClient]:
    where = api or get_current_settings().api.url
    if not where:
        raise BadInput("No Prefect server is configured.", remedy="Set PREFECT_API_URL, or run `slipway up`.")
    # Set for the whole process of asking: what Prefect sends beside a request (events) goes by its settings, and
    # without an address it would start a server of its own.
    chosen = {PREFECT_API_URL: where, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    try:
        with temporary_settings(chosen), get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        said = f"The Prefect server at {where} answered {error.response.status_code}: {error.response.text[:256]}"
        if error.response.status_code in (401, 403):
            raise AccessDenied(said, remedy="Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY.") from error
        if error.response.is_server_error:
            raise Unreachable(said) from error
        raise BadInput(said) from error
    except httpx.TransportError as error:
        raise Unreachable(
            f"The Prefect server at {where} does not answer.", remedy="`slipway up` repairs the embedded one."
        ) from error
