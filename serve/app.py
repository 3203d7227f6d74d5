"""The Serve application of one release: ``serve.app:build``.

The replica runs vLLM's own HTTP application, late-bound to Serve's ingress: every endpoint and option of vLLM,
without a second replica or batching between the client and the engine.  Serve is left to place replicas, check
their health and drain them.

Draining is a light update of ``user_config`` to ``{"drain": true}``: the replica stays, answers as before, and
asks its clients to reconnect.  Serve does not tell a replica that its ``user_config`` was taken away, so it is
ended by ``{"drain": false}``.  Behind HAProxy the clients do not see that wish.  There it is the update itself that
moves them: Serve reloads HAProxy for it, and the old process closes each connection after its next answer.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import ObjectRef, remote, serve
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from serve.apart import fetch_apart
from serve.arguments import read_arguments
from serve.edge import ReleaseHeaders
from serve.engine import Server, load
from serve.placement import deployment_options
from serve.streaming import prepare

logger = logging.getLogger("ray.serve")  # Serve writes it to the log of the replica


class Engine:
    """One replica: weights, engine, application."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._arguments = read_arguments(raw)
        self._server: Server | None = None
        self._app: ReleaseHeaders | None = None
        self._draining = False

    async def __serve_build_asgi_app__(self) -> ReleaseHeaders:
        """Fetch the weights while vLLM is imported, start the engine, and return the application."""
        cache = Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway")
        begun = time.monotonic()
        bring = prepare if self._arguments.streamed else fetch_apart
        fetching = asyncio.get_running_loop().run_in_executor(None, bring, self._arguments.weights, cache)
        elsewhere = bring_elsewhere(bring, self._arguments.weights, cache) if self._arguments.spans_nodes else []
        load(self._arguments)
        imported = time.monotonic()
        folder, *_ = await asyncio.gather(fetching, *elsewhere)
        fetched = time.monotonic()
        self._server = Server(self._arguments, folder)
        started = time.monotonic()
        self._app = await self._server.app()
        self._app.draining = self._draining
        logger.info(
            "%s: vLLM imported in %.1f s, weights there %.1f s later, engine up in %.1f s, application in %.1f s",
            self._arguments.release,
            imported - begun,
            fetched - imported,
            started - fetched,
            time.monotonic() - started,
        )
        return self._app

    async def check_health(self) -> None:
        """Raise when the engine died, so that Serve replaces the replica."""
        if self._server is not None:
            await self._server.check_health()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the drain switch; raises ``ValueError`` for anything else."""
        drain = user_config.get("drain")
        if set(user_config) != {"drain"} or not isinstance(drain, bool):
            raise ValueError(f'user_config is {{"drain": true}} or {{"drain": false}}, not {user_config!r}.')
        self._draining = drain
        if self._app is not None:
            self._app.draining = drain

    def __del__(self) -> None:
        server = getattr(self, "_server", None)  # a constructor that raised set none
        if server is not None:
            server.shutdown()


def bring_elsewhere(bring: Callable[[str, Path], Path], weights: str, cache: Path) -> list[ObjectRef]:
    """Bring the weights to the node of every other GPU of this replica, at the same path, and return the waits.

    One a GPU: those that share a node wait for one fetch (see ``serve.copies``).  vLLM's workers read from their own
    node's disk, and their engine does not bring anything there.
    """
    group = get_current_placement_group()
    bundles = range(1, group.bundle_count)
    placed = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in bundles]
    return [remote(num_cpus=0)(bring).options(scheduling_strategy=one).remote(weights, cache) for one in placed]


def build(args: dict[str, Any]) -> serve.Application:
    """Return the application for the release described by ``args`` (see ``serve.arguments.Arguments``)."""
    deployment: Any = serve.deployment(**deployment_options(read_arguments(args)))
    return deployment(serve.ingress()(Engine)).bind(args)
