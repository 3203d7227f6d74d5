"""Builds what flows and commands work on from the settings; nothing is reached until a step asks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tasks._ray import RayTarget
from tasks._steps import World
from tasks._stores.store import open_store
from tasks._weights.access import open_hub, signer
from tasks._weights.carrying import Progress
from tasks.errors import BadInput
from tasks.settings import Settings


def open_world(
    settings: Settings, *, shown: Callable[[str], AbstractContextManager[Progress]] = lambda _: nullcontext(_quiet)
) -> World:
    """Return the world that ``settings`` describe; raises ``BadInput`` that names the setting that is missing.

    ``shown`` shows the bytes that a mirror moves, as ``World`` says.
    """
    store = open_store(settings.store)
    if not settings.ray.dashboard or not settings.ray.serve:
        raise BadInput(
            "No Ray cluster is configured.",
            remedy="Set SLIPWAY_RAY__DASHBOARD and SLIPWAY_RAY__SERVE, or run `slipway up`.",
        )
    return World(
        hub=lambda endpoint: open_hub(settings, endpoint),
        store=store,
        target=RayTarget(settings.ray),
        services=settings.services,
        shown=shown,
        sign=signer(settings.signing),
    )


def _quiet(_moved: int, _total: int) -> None:
    """Show nothing."""
