"""The Serve application of one release: ``serve.app:build``.

The replica runs vLLM's own HTTP application, late-bound to Serve's ingress: every endpoint and option of vLLM,
without a second replica or batching between the client and the engine.  Serve is left to place replicas, check
their health and drain them.

Draining is a light update of ``user_config`` to ``{"drain": true}``: the replica stays, answers as before, and
asks its clients to reconnect.  Serve does not tell a replica that its ``user_config`` was taken away, so it is
ended by ``{"drain": false}``.
"""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from ray import serve

from serve.apart import fetch_apart
from serve.arguments import read_arguments
from serve.edge import ReleaseHeaders
from serve.engine import MAX_NUM_SEQS, Server, load
from serve.streaming import prepare

logger = logging.getLogger("ray.serve")  # Serve writes it to the log of the replica

# After the longest request the engine still has to end; it takes about a second.
SHUTDOWN_MARGIN_S = 10.0
# Serve's health check shares the replica with requests; at 10 s busy replicas were restarted (ray issue 54070).
HEALTH_TIMEOUT_S = 60.0
# Requests a replica holds for each one the engine computes: the next batch is there when a sequence ends.
REQUESTS_PER_SEQUENCE = 2


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
        load(self._arguments)
        imported = time.monotonic()
        folder = await fetching
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


def build(args: dict[str, Any]) -> serve.Application:
    """Return the application for the release described by ``args`` (see ``serve.arguments.Arguments``)."""
    arguments = read_arguments(args)
    resources = arguments.resources
    sequences = arguments.engine.get("max_num_seqs", MAX_NUM_SEQS)
    deployment: Any = serve.deployment(
        name="engine",
        num_replicas=resources.replicas,
        ray_actor_options={"num_cpus": resources.cpus, "num_gpus": resources.gpus},
        max_ongoing_requests=REQUESTS_PER_SEQUENCE * sequences,
        graceful_shutdown_timeout_s=arguments.longest_request_s + SHUTDOWN_MARGIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=10.0,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        # A start that failed is judged by the controller, not tried again for ever.
        max_constructor_retry_count=1,
    )
    return deployment(serve.ingress()(Engine)).bind(args)
