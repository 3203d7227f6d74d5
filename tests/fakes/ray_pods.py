"""A Ray cluster in pods: the release's application behind one Serve proxy per pod, each on an address of its own.

Each pod is a real HTTP server on its own address of the loopback, port 8000, and with Ray's metrics on port 8080; all
run in the double's own process and event loop, since a process for each would cost half a second to start, and a
test could no longer reach the engine within.  Killing one cuts its connections by TCP resets.

What was recorded of SIGTERM with Serve's own proxy: replicas stay until the drain timeout less the shutdown timeout
has passed; requests that come after that hang; those in flight go on; and the pod lives for its whole drain, or
its grace period where that is shorter, and then resets what is open.  With a drain of zero all is cut at once.

Not recorded: what a proxy answers while its application is not running (503 here), what becomes of the application
when a worker is lost (nothing here) or the head (it is lost with it, and the operator submits it again), how long
Ray's metrics lag behind (not at all here), and HAProxy's way of draining when a pod is told to go (as without it).
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any

import yaml
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.fakes.asgi import PromptServer
from tests.fakes.engine import Engine
from tests.fakes.kube_statuses import Object, application_status
from tests.fakes.pod_server import begin, bind, end, reset, started

SERVE_PORT, METRICS_PORT = 8000, 8080
RAY_DRAIN_S, RAY_SHUTDOWN_S, GRACE_S = 30.0, 20.0, 30.0
"""What Ray 2.60 and Kubernetes take where nothing is said."""
SHUTDOWN_MARGIN_S = 10.0
"""What ``serve.app`` adds to the longest request for its ``graceful_shutdown_timeout_s``."""

MakeEngine = Callable[[dict[str, Any]], Engine | None]


@dataclass
class Application:
    """One application that was deployed at ``born``; without an ``engine`` its constructor fails."""

    config: dict[str, Any]
    engine: Engine | None
    running_at: float
    asgi: ASGIApp | None


@dataclass
class Ray:
    """The Ray cluster of one release; several proxies share its engines."""

    make: MakeEngine
    start_s: Callable[[], float]
    drain_s: Callable[[], float]
    behind_haproxy: bool = False
    applications: dict[str, Application] = field(default_factory=dict)
    reloads: int = 0
    pods: list["RayPod"] = field(default_factory=list)

    def submit(self, text: str) -> None:
        """Take a ``serveConfigV2``: what is new deploys, and a new ``user_config`` alone is taken in place."""
        configs = {config["name"]: config for config in (yaml.safe_load(text) or {}).get("applications", [])}
        self.applications = {name: app for name, app in self.applications.items() if name in configs}
        for name, config in configs.items():
            self._deploy(name, config)

    def statuses(self) -> Object:
        """Return what Serve tells of its applications."""
        told: Object = {}
        for name, app in self.applications.items():
            told |= application_status(name, _status(app), _deployment(app.config)["name"])
        return told

    def engine(self) -> Engine | None:
        """Return the engine of the first application."""
        return next((app.engine for app in self.applications.values()), None)

    def has_proxy(self, pod: "RayPod") -> bool:
        """Say whether a pod has a Serve proxy: the head has one, and so has each worker with a replica.

        A replica of several pods has its proxy on the first.  Which those are was not recorded.
        """
        if not self.is_running():
            return False
        workers = [one for one in self.pods if one.is_worker]
        counts = [_replicas(app.config) for app in self.applications.values()]
        return not pod.is_worker or None in counts or pod in workers[: sum(count or 0 for count in counts)]

    def is_running(self) -> bool:
        """Say whether there is an application and each one runs."""
        return bool(self.applications) and all(_status(app) == "RUNNING" for app in self.applications.values())

    def lose_everything(self) -> None:
        """Forget all applications, as a head does that starts again without a Redis."""
        self.applications = {}

    @property
    def connections(self) -> set[Any]:
        """Return the connections that are open to any pod."""
        return {one for pod in self.pods for one in pod.connections()}

    def shutdown_s(self) -> float:
        """Return the longest ``graceful_shutdown_timeout_s`` of the applications."""
        return max((_shutdown_s(app.config) for app in self.applications.values()), default=RAY_SHUTDOWN_S)

    def application(self, path: str) -> tuple[ASGIApp, str] | None:
        """Return the application at a path, and its prefix; none where none runs."""
        for app in self.applications.values():
            prefix = app.config.get("route_prefix", "/").rstrip("/")
            if app.asgi is not None and _status(app) == "RUNNING" and f"{path}/".startswith(f"{prefix}/"):
                return app.asgi, prefix
        return None

    def _deploy(self, name: str, config: dict[str, Any]) -> None:
        app = self.applications.get(name)
        if app is not None and app.config.get("args") == config.get("args"):
            if _deployment(app.config).get("user_config") != _deployment(config).get("user_config"):
                asyncio.get_running_loop().call_later(self.drain_s(), self._reconfigure, app, config)
            app.config = config
            return
        engine = self.make(config.get("args") or {})
        running_at = time.monotonic() + self.start_s()
        self.applications[name] = Application(config, engine, running_at, engine.application() if engine else None)
        if engine is not None:
            vars(engine)["_server"] = SimpleNamespace(server_state=self)  # where it finds a connection to reset

    def _reconfigure(self, app: Application, config: dict[str, Any]) -> None:
        is_draining = bool((_deployment(config).get("user_config") or {}).get("drain"))
        self.reloads += 1
        if app.engine is not None:
            app.engine.draining = {app.engine.release} if is_draining else set()


def _status(app: Application) -> str:
    if app.engine is None:
        return "DEPLOY_FAILED" if time.monotonic() >= app.running_at else "DEPLOYING"
    return "RUNNING" if time.monotonic() >= app.running_at else "DEPLOYING"


def _replicas(config: dict[str, Any]) -> int | None:
    """Return how many replicas the arguments of ``serve.app`` ask for at first; none where they do not say."""
    resources = (config.get("args") or {}).get("resources")
    if resources is None:
        return None
    return int((resources.get("autoscaling") or {}).get("min_replicas") or resources.get("replicas", 1))


def _deployment(config: dict[str, Any]) -> dict[str, Any]:
    return dict((config.get("deployments") or [{}])[0]) | {"name": "engine"}


def _shutdown_s(config: dict[str, Any]) -> float:
    longest = (config.get("args") or {}).get("longest_request_s")
    default = RAY_SHUTDOWN_S if longest is None else longest + SHUTDOWN_MARGIN_S
    return float(_deployment(config).get("graceful_shutdown_timeout_s", default))


@dataclass(frozen=True)
class Ending:
    """How a pod that is told to go does so, in seconds from then: see the head of the module."""

    told_s: float
    no_replica_s: float
    end_s: float


def ending(pod: Object, shutdown_s: float, scale: float) -> Ending:
    """Return how ``pod`` goes, its seconds being multiplied by ``scale``.  A ``preStop`` was not recorded."""
    container = pod["spec"]["containers"][0]
    named = {one["name"]: one.get("value", "") for one in container.get("env") or []}
    drain_s = float(named.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") or RAY_DRAIN_S)
    grace_s = float(pod["metadata"].get("deletionGracePeriodSeconds", GRACE_S))
    before_s = min(grace_s, _pre_stop_s(container))
    end_s = min(grace_s, before_s + drain_s)
    no_replica_s = min(end_s, before_s + max(0.0, drain_s - shutdown_s))
    return Ending(before_s * scale, no_replica_s * scale, end_s * scale)


def _pre_stop_s(container: Object) -> float:
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    if "sleep" in hook:
        return float(hook["sleep"]["seconds"])
    slept = re.search(r"sleep (\d+)", " ".join((hook.get("exec") or {}).get("command") or []))
    return float(slept[1]) if slept else 0.0


class RayPod:
    """One pod: a server on an address of its own, from ``start`` to ``kill``."""

    def __init__(self, ray: Ray, network: IPv4Network, is_worker: bool = False) -> None:
        self.ray, self.ip, self.ongoing, self.is_worker = ray, "", 0, is_worker
        self._network = network
        self.is_up = self.has_no_replica = False
        self._server: PromptServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._reloads: dict[tuple[str, int], int] = {}

    async def start(self, ip: str = "") -> str:
        """Begin to serve; returns the address, which is a new one unless ``ip`` is given."""
        self.ip, bound = bind(ip, self._network, (SERVE_PORT, METRICS_PORT))
        self._server, self._serving = begin(self._answer, bound)
        self._ending = None
        await started(self._server, self._serving)
        self.is_up, self.has_no_replica = True, False
        self.ray.pods.append(self)
        return self.ip

    def connections(self) -> list[Any]:
        """Return the connections that are open."""
        return list(self._server.server_state.connections) if self._server else []

    async def terminate(self, how: Ending) -> None:
        """Go as a pod goes that gets SIGTERM."""
        await asyncio.sleep(how.no_replica_s)
        self.has_no_replica = True
        await asyncio.sleep(how.end_s - how.no_replica_s)
        await self.kill()

    async def kill(self) -> None:
        """Stop at once; open connections are reset."""
        if self._server is None or self._serving is None:
            return
        self.is_up = False
        if self in self.ray.pods:
            self.ray.pods.remove(self)
        for connection in self.connections():
            reset(connection.transport)
        if self._ending is None:
            self._ending = asyncio.create_task(end(self._server, self._serving))
        await asyncio.shield(self._ending)  # whoever waits may be cancelled; the sockets are closed

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["server"][1] == METRICS_PORT:
            await PlainTextResponse(self._metrics())(scope, receive, send)
            return
        if scope["path"] == "/-/healthz":
            is_healthy = self.ray.is_running()
            await PlainTextResponse("success" if is_healthy else "", 200 if is_healthy else 503)(scope, receive, send)
            return
        self.ongoing += 1
        try:
            await self._proxy(scope, receive, send)
        finally:
            self.ongoing -= 1

    async def _proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.has_no_replica:
            await asyncio.Event().wait()
        found = self.ray.application(scope["path"])
        if found is None:
            await PlainTextResponse("The application is not running.", 503)(scope, receive, send)
            return
        app, prefix = found
        inner = {**scope, "path": scope["path"].removeprefix(prefix)}
        await app(inner, receive, self._past_haproxy(scope, send) if self.ray.behind_haproxy else send)

    def _past_haproxy(self, scope: Scope, send: Send) -> Send:
        """Return how answers pass HAProxy: it keeps connections alive whatever the application says.

        Only those that were open before its last reload are closed, with their next answer.
        """
        reloads = self._reloads.setdefault(tuple(scope["client"]), self.ray.reloads)
        closing = [(b"connection", b"close")] if reloads < self.ray.reloads else []

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name.lower() != b"connection"]
                message = {**message, "headers": headers + closing}
            await send(message)

        return marked

    def _metrics(self) -> str:
        """Return what Ray's metrics say of open requests, under the names of Ray 2.60."""
        where = json.dumps(self.ip)
        gauges = {
            "ray_serve_num_ongoing_http_requests": "The number of ongoing requests in this HTTP proxy.",
            "ray_serve_replica_processing_queries": "The current number of queries being processed.",
        }
        lines = []
        for name, what in gauges.items():
            lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge"]
            lines.append(f"{name}{{node_ip_address={where}}} {float(self.ongoing)}")
        return "\n".join([*lines, ""])
