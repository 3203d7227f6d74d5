"""Flow runs on a Prefect server: started from a deployment, read until their end.

Nothing here decides anything about a release; a run that cannot be followed any more goes on by itself.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    get_current_settings,
    temporary_settings,
)
from prefect.utilities.urls import url_for

from tasks._quoting import quoted
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
RECORD = "[the record]"
"""Who "answers" the form of a paused run that is to look at the record again; no answer of a person's."""
logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it warns of its own stop mark at every exit
NOT_BEGUN = (StateType.SCHEDULED, StateType.PENDING)
STUCK = timedelta(minutes=15)
"""How long a run may be about to begin: pulling an image takes minutes, and a worker that died never says so."""
MADE_FOR = "slipway.made-for"
"""The label that tells whether a run was made for this request, or for an earlier one with the same key."""


class RunState(Value):
    """What Prefect says of a flow run; ``name`` is what a person sees, e.g. ``Late``."""

    name: str
    message: str
    begun: bool
    final: bool
    good: bool


def is_configured(api: str) -> bool:
    """Return whether a Prefect server is: at ``api``, or by what Prefect itself is set up with."""
    return bool(api or get_current_settings().api.url)


def start_run(api: str, deployment: str, parameters: dict[str, Any]) -> UUID:
    """Ask the Prefect server at ``api`` (empty: the configured one) to run ``deployment``; return the run's id.

    Raises ``NotFound`` without such a deployment, ``BadInput`` for parameters that do not fit its flow,
    ``AccessDenied``, and ``Unreachable`` when the server does not answer.
    """
    with asking(api) as client:
        found = _deployment(client, deployment)
        given = {name: value for name, value in parameters.items() if value is not None}
        return client.create_flow_run_from_deployment(found.id, parameters=given).id


class OneRun(Value):
    """The run that does what was asked for, and its page; ``new`` when it was made for that, ``waits`` to begin."""

    id: UUID
    state: str
    url: str
    new: bool
    waits: bool


def find_deployment(client: SyncPrefectClient, name: str) -> UUID:
    """Return the id of a deployment; raises as ``start_run`` does."""
    with translated():
        return _deployment(client, name).id


def start_once(
    client: SyncPrefectClient, deployment: UUID, parameters: dict[str, Any], *, key: str, tags: tuple[str, ...]
) -> OneRun:
    """Start a run, unless one that has all these ``tags`` has not begun yet, or ``key`` was used before.

    One that has not begun will see what a new one would.  A key is good for one run for ever: what became of that
    is in ``state``.  Raises as ``start_run`` does, ``NotFound`` where the deployment was deleted.
    """
    mark = {MADE_FOR: uuid4().hex}
    with translated():
        try:
            run = _to_come(client, deployment, tags) or client.create_flow_run_from_deployment(
                deployment, parameters=parameters, tags=tags, idempotency_key=key, labels=dict(mark)
            )
        except ObjectNotFound as error:
            raise NotFound("That deployment was deleted.", remedy="`slipway bootstrap` makes it.") from error
    return OneRun(
        id=run.id,
        state=run.state.name or run.state.type.value if run.state else "Unknown",
        url=url_for("flow-run", obj_id=run.id, default_base_url=_where("").removesuffix("/api")) or "",
        new=run.labels.get(MADE_FOR) == mark[MADE_FOR],
        waits=bool(run.state and run.state.type in NOT_BEGUN),
    )


def read_run(api: str, run: UUID) -> RunState:
    """Return the state of a flow run; raises ``NotFound`` when it was deleted, and as ``start_run`` does."""
    with asking(api) as client:
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
    look = {"answer": "reject", "who": RECORD, "why": ""}
    with asking(api) as client:
        try:
            client.resume_flow_run(UUID(run), run_input=look)
        except ObjectNotFound:
            return


def send_artifact(api: str, *, key: str, markdown: str, description: str) -> None:
    """Show a text on the Prefect server at ``api`` that belongs to no flow run; raises as ``start_run`` does."""
    artifact = ArtifactCreate(key=key, type="markdown", data=markdown, description=description)
    with asking(api) as client:
        client.create_artifact(artifact)


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise NotFound(
            f"The Prefect server has no deployment {name!r}.",
            remedy="`slipway bootstrap` makes it; `slipway up` does for the embedded server.",
        ) from error


def _to_come(client: SyncPrefectClient, deployment: UUID, tags: tuple[str, ...]) -> FlowRun | None:
    """Return a run with all of ``tags`` that has not begun; one that is about to for ``STUCK`` never will."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            tags=FlowRunFilterTags(all_=list(tags)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(NOT_BEGUN))),
        ),
        limit=20,
    )
    now = datetime.now(UTC)
    states = ((run, run.state) for run in found if run.state)
    return next((run for run, at in states if at.type is StateType.SCHEDULED or now - at.timestamp < STUCK), None)


def _where(api: str) -> str:
    where = api or get_current_settings().api.url
    if not where:
        raise BadInput("No Prefect server is configured.", remedy="Set PREFECT_API_URL, or run `slipway up`.")
    return where


@contextmanager
def asking(api: str) -> Iterator[SyncPrefectClient]:
    """Yield a client of the Prefect server at ``api`` (empty: the configured one); its errors become ours."""
    with connected(api) as client, translated():
        yield client


@contextmanager
def connected(api: str) -> Iterator[SyncPrefectClient]:
    """Yield a client of the Prefect server at ``api``, which need not answer yet; for use within ``translated``.

    The address is set for all that is done meanwhile: what Prefect sends beside a request (events) goes by its
    settings, and without an address it would start a server of its own.  Raises ``BadInput`` where none is known.
    """
    chosen = {PREFECT_API_URL: _where(api), PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
    with temporary_settings(chosen), get_client(sync_client=True) as client:
        yield client


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the client that is connected into ours."""
    try:
        yield
    except PrefectHTTPStatusError as error:
        said = f"The Prefect server at {_where('')} answered {error.response.status_code}: {quoted(error.response)}"
        if error.response.status_code in (401, 403):
            raise AccessDenied(said, remedy="Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY.") from None
        if error.response.is_server_error:
            raise Unreachable(said) from None
        raise BadInput(
            said, remedy="`slipway doctor` says whether what that server holds is as it should be."
        ) from None
    except httpx.TransportError as error:
        raise Unreachable(
            f"The Prefect server at {_where('')} does not answer.", remedy="`slipway up` repairs the embedded one."
        ) from error
