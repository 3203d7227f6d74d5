"""Builds what the steps work on from the settings; nothing is reached until a step asks."""

from tasks._ray import RayTarget
from tasks._steps import World
from tasks._stores.store import open_store
from tasks._weights.hub import Hub
from tasks.errors import BadInput
from tasks.settings import Settings


def open_world(settings: Settings) -> World:
    """Return the world that ``settings`` describe; raises ``BadInput`` that names the setting that is missing.

    The token of the configured Hub goes to that Hub alone: a release from another Hub is made without one.
    """
    store = open_store(settings.store)
    if not settings.ray.dashboard or not settings.ray.serve:
        raise BadInput(
            "No Ray cluster is configured.",
            remedy="Set SLIPWAY_RAY__DASHBOARD and SLIPWAY_RAY__SERVE, or run `slipway up`.",
        )

    def hub(endpoint: str) -> Hub:
        ours = endpoint.rstrip("/") == settings.hub.endpoint.rstrip("/")
        return Hub(endpoint, settings.hub.token if ours else None)

    return World(hub=hub, store=store, target=RayTarget(settings.ray), services=settings.services)
