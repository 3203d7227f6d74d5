"""What is wrong with what a Prefect server holds for Slipway, and with who works there."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks import deploying
from tasks._deploying.things import POOL
from tasks._doctor.deployed import difference, idle, two_servers
from tasks._doctor.finding import Finding
from tasks.runs import asking
from tasks.settings import Settings


def holdings(settings: Settings) -> Iterator[Finding]:
    """Yield what ``slipway bootstrap`` would change, and what a person paused; raises as it does."""
    other = two_servers(settings.prefect_api, get_current_settings().api.url)
    if other is not None:
        yield other
    for change in deploying.compare(settings):
        yield from difference(change)


def workers(settings: Settings) -> Iterator[Finding]:
    """Yield that nobody works; a pool that is missing is told by ``holdings``."""
    with asking(settings.prefect_api) as client:
        try:
            seen = client.read_workers_for_work_pool(POOL)
        except ObjectNotFound:
            return
    lazy = idle([worker.last_heartbeat_time for worker in seen], datetime.now(UTC), settings)
    if lazy is not None:
        yield lazy
