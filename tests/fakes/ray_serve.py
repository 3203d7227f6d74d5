"""A small server that stands for Ray Serve: its REST API, and its proxy in front of fake engines.

It promises what was seen of Ray 2.60: the PUT is declarative and answered at once; a new application is DEPLOYING
until it runs; a change of route prefix or ``user_config`` alone keeps the replica; an application left out is
DELETING for a while, and shows no configuration then; a prefix that leads nowhere is answered 404 without release
headers; and every request to the API needs the cluster's token.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from tasks.settings import RaySettings
from tests.fakes import asgi
from tests.fakes.engine import Engine, EngineCutError

TOKEN = "token-of-the-fake-cluster"
APPLICATIONS = "/api/serve/applications/"


@dataclass
class App:
    """One application; ``replica`` counts how many replicas the cluster has ever made."""

    config: dict[str, Any]
    engine: Engine
    replica: int
    born: float
    dying: float | None = None


@dataclass
class RayServe:
    """The cluster.  ``engine`` makes the engine of an application from its arguments; ``None`` fails to start.

    ``start_s`` is how long an application deploys, ``stop_s`` how long it takes to go.  What it still
    answers then comes to its end, unless it does not ``drain``: such answers are cut.
    """

    engine: Callable[[dict[str, Any]], Engine | None] = lambda args: Engine(
        release=args["release"], commit=args["commit"], model=args["served_model_name"]
    )
    start_s: float = 0.1
    stop_s: float = 0.1
    drain: bool = True
    apps: dict[str, App] = field(default_factory=dict)
    puts: list[dict[str, Any]] = field(default_factory=list)
    replicas: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the dashboard or as the proxy does, by path."""
        if scope["path"] == APPLICATIONS:
            await (await self._api(Request(scope, receive)))(scope, receive, send)
            return
        app = self._at(scope["path"])
        if app is None:
            await PlainTextResponse(f"Path '{scope['path']}' not found.", 404)(scope, receive, send)
            return
        inner = {**scope, "path": scope["path"].removeprefix(app.config["route_prefix"])}

        async def send_on(message: Message) -> None:
            if not self.drain and self._is_gone(app):
                raise EngineCutError
            await send(message)

        await app.engine.application()(inner, receive, send_on)

    def _at(self, path: str) -> App | None:
        self._age()
        matching = [
            app for app in self.apps.values()
            if app.dying is None and self._status(app) == "RUNNING"
            and f"{path}/".startswith(f"{app.config['route_prefix']}/")
        ]  # fmt: skip
        return max(matching, key=lambda app: len(app.config["route_prefix"]), default=None)

    async def _api(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return PlainTextResponse("Unauthorized", 401)
        if request.method == "PUT":
            return self._put(await request.json())
        self._age()
        return JSONResponse({"applications": {name: self._shown(name, app) for name, app in self.apps.items()}})

    def _put(self, document: dict[str, Any]) -> Response:
        configs = document["applications"]
        prefixes = [config["route_prefix"] for config in configs]
        if len(set(prefixes)) < len(prefixes):
            return PlainTextResponse("Found duplicate route prefixes.", 400)
        self.puts.append(document)
        wanted = {config["name"]: config for config in configs}
        for name, app in self.apps.items():
            if name not in wanted and app.dying is None:
                app.dying = time.monotonic()
        for name, config in wanted.items():
            self._deploy(name, config)
        return Response()

    def _deploy(self, name: str, config: dict[str, Any]) -> None:
        app = self.apps.get(name)
        if app is not None and app.dying is None and app.config["args"] == config["args"]:
            app.config = config
            switches = config.get("deployments") or [{}]
            draining = bool(switches[0].get("user_config", {}).get("drain"))
            app.engine.draining = {name} if draining else set()
            return
        self.replicas += 1
        engine = self.engine(config["args"])
        self.apps[name] = App(config, engine or Engine(), self.replicas, time.monotonic())
        if engine is None:
            self.apps[name].born = float("-inf")

    def _age(self) -> None:
        self.apps = {name: app for name, app in self.apps.items() if not self._is_gone(app)}

    def _is_gone(self, app: App) -> bool:
        return app.dying is not None and time.monotonic() - app.dying >= self.stop_s

    def _status(self, app: App) -> str:
        if app.dying is not None:
            return "DELETING"
        if app.born == float("-inf"):
            return "DEPLOY_FAILED"
        return "RUNNING" if time.monotonic() - app.born >= self.start_s else "DEPLOYING"

    def _shown(self, name: str, app: App) -> dict[str, Any]:
        status = self._status(app)
        message = "Traceback (most recent call last):\nRuntimeError: no such weights" if "FAILED" in status else ""
        return {
            "name": name,
            "status": status,
            "message": message,
            "route_prefix": app.config["route_prefix"],
            "deployed_app_config": app.config if app.dying is None else None,
        }


@contextmanager
def serving(cluster: RayServe) -> Iterator[RaySettings]:
    """Serve ``cluster`` on a free port of the loopback and give the settings that reach it."""
    with asgi.serving(cluster) as (url, _server):
        yield RaySettings(dashboard=url, serve=url, token=SecretStr(TOKEN))
