"""The webhook receiver as it runs: calls become runs of ``refresh``, at most one for each service and commit.

``refresh`` is started, never ``release``: it reads the ref at the Hub when it begins, honours the policy of the spec,
leaves a commit alone that was refused before, and does nothing where the commit is live.  So a call that is late,
repeated or out of order changes nothing, and no caller can choose what is released.  ``release`` is a person's word,
and tries again what was refused.

Prefect's idempotency key lets a commit start one run of a service, whoever tells of it and how often.  A run that has
not begun will see any later commit as well, so a service has one that waits.  From there on the record decides: a
newer request takes the place of one that waits, and of a release that has not shifted traffic.
"""

import logging
from collections.abc import Callable
from uuid import UUID

import anyio
import uvloop
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from tasks._receiver.application import Receiver
from tasks._receiver.bounds import Bounds, ReceiverServer
from tasks._receiver.counts import Counts
from tasks._receiver.desk import Asked, Call, Desk
from tasks._receiver.keys import Keys
from tasks._receiver.services import Services
from tasks._weights.access import open_hub
from tasks._who import WEBHOOK
from tasks.errors import NotFound, SlipwayError, Unreachable
from tasks.runs import REFRESH, OneRun, connected, find_deployment, start_once
from tasks.settings import Settings, receiver_secrets

LOOK_S = 2.0
"""Seconds between two looks at specs, secrets and Prefect."""
TALLY_S = 60.0
"""Seconds between two lines that count forged calls: a flood must not fill the log."""
IMPATIENT = {PREFECT_API_REQUEST_TIMEOUT: 8.0, PREFECT_CLIENT_MAX_RETRIES: 1}
"""A caller waits meanwhile, and the schedule is there for what is missed."""

log = logging.getLogger("slipway.receiver")


class Prefect:
    """The Prefect server, which is asked for runs; ``trouble`` says what was wrong with it last."""

    def __init__(self, settings: Settings, services: Services, client: SyncPrefectClient) -> None:
        self._settings, self._services, self._client = settings, services, client
        self._refresh: UUID | None = None
        self.trouble = "not asked yet"

    def converse(self, service: str, calls: tuple[Call, ...]) -> dict[Call, Asked]:
        """Return the run for each commit that was told of; raises as ``start_once`` and the Hub do."""
        told: dict[Call, Asked] = {}
        waiting: OneRun | None = None
        for call in calls:
            found = waiting or self._run(service, call or self._commit(service))
            told[call] = Asked(service=service, run=found.id, url=found.url, state=found.state, new=found.new)
            waiting = found if found.waits else None
        return told

    def look(self) -> None:
        """See whether the server answers."""
        try:
            self._refresh = find_deployment(self._client, REFRESH)
        except SlipwayError as error:
            if self.trouble != (trouble := str(error)):
                log.error("no run can be asked for: %s", trouble)  # noqa: TRY400 - the sentence says it all
            self.trouble = trouble
        else:
            self.trouble = ""

    def _run(self, service: str, commit: str) -> OneRun:
        try:
            return start_once(
                self._client,
                self._refresh or find_deployment(self._client, REFRESH),
                {"service": service},
                key=f"{WEBHOOK} {service}@{commit}",
                tags=(WEBHOOK, f"service:{service}"),
            )
        except NotFound as error:  # to the caller, it is not their model that does not exist
            self._refresh = None
            raise Unreachable(str(error)) from error

    def _commit(self, service: str) -> str:
        """Return the commit that a service's ref is at, where the caller does not tell."""
        model, ref = self._services.ref(service)
        with open_hub(self._settings, self._settings.hub.endpoint) as hub:
            return hub.resolve(model, ref).commit


def serve(settings: Settings, *, on_ready: Callable[[str], None] = lambda _: None) -> None:
    """Receive webhooks until SIGTERM or SIGINT; ``on_ready`` is told the address that is listened on.

    Raises ``BadInput`` without a secret, and ``MachineError`` when the port is taken.
    """
    receiver, counts = settings.receiver, Counts()
    keys = Keys(lambda: receiver_secrets(receiver))
    services = Services(settings.services)

    def look() -> None:
        for part in (keys, services, prefect):
            try:
                part.look()
            except Exception:
                log.exception("cannot look at %s", type(part).__name__.lower())
        counts.services.set(services.count)
        counts.broken.set(len(services.trouble))
        counts.prefect.set(not prefect.trouble)

    async def run() -> None:
        limits = (receiver.body_bytes, receiver.calls)
        application = Receiver(keys, services, Desk(prefect.converse), counts, prefect=prefect, limits=limits)
        bounds = Bounds(connections=receiver.connections, body_bytes=receiver.body_bytes)
        server = ReceiverServer(application, receiver.host, receiver.port, bounds, on_ready)
        async with anyio.create_task_group() as around:
            around.start_soon(_keep_looking, look)
            around.start_soon(_keep_tally, counts)
            await server.serve()
            around.cancel_scope.cancel()

    with temporary_settings(IMPATIENT), connected(settings.prefect_api) as client:
        prefect = Prefect(settings, services, client)
        uvloop.run(run())


async def _keep_looking(look: Callable[[], None]) -> None:
    while True:
        await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        await anyio.sleep(LOOK_S)


async def _keep_tally(counts: Counts) -> None:
    while True:
        await anyio.sleep(TALLY_S)
        if refused := counts.take_refused():
            log.warning("refused %d calls without a secret of ours in %g seconds", refused, TALLY_S)
