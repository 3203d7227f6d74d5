"""The flow ``watch-upstream``: what became, at their Hubs, of the commits in use."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import keeping
from tasks.settings import read_settings


@flow(name="watch-upstream")
def watch_upstream() -> State[Any]:
    """Report commits in use that vanished, were force-pushed, became gated or changed their licence."""
    return keeping.watch_upstream(read_settings())
