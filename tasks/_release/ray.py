"""The target ``ray``: one Ray cluster, one Serve application a release, driven over Serve's REST API alone.

A release is the application ``<service>-r<N>`` with the route prefix of its name; the live one has the prefix
``/<service>`` instead.  Serve takes one declarative document for the whole cluster, so every change reads what is
deployed, changes this service's part, and puts the whole back: a promotion is one such PUT, in which two
applications swap their prefixes, and Serve's Python proxy takes the new routes in one step.

The API: https://docs.ray.io/en/releases-2.60.0/serve/api/index.html#serve-rest-api
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from tasks._quoting import quoted
from tasks._release.machine import Health, Observed, Placement
from tasks._release.target import Room
from tasks._release.workloads import payload_arguments
from tasks._retry import retried
from tasks.errors import AccessDenied, CandidateFailed, Refused, Unreachable
from tasks.records import Release
from tasks.settings import RaySettings
from tasks.spec import TargetKind

APPLICATIONS = "/api/serve/applications/"
IMPORT_PATH = "serve.app:build"
DEPLOYMENT = "engine"
"""The name of the payload's one deployment, to which the drain switch is addressed."""
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
HEALTH = {
    "NOT_STARTED": Health.STARTING,
    "DEPLOYING": Health.STARTING,
    "RUNNING": Health.HEALTHY,
    "DEPLOY_FAILED": Health.FAILED,
    "UNHEALTHY": Health.FAILED,
    "DELETING": Health.REMOVING,
}

App = dict[str, Any]


class RayTarget:
    """Releases on the Ray cluster that ``settings`` names; fulfils ``tasks._release.target.Target``."""

    kind = TargetKind.RAY

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        token = settings.token.get_secret_value() if settings.token else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=settings.dashboard, headers=headers, timeout=TIMEOUT, trust_env=False)

    def shares(self, release: Release) -> bool:
        """Say that Serve's routes know no shares: a prefix leads to one application."""
        del release
        return False

    def observe(self, service: str) -> Observed:
        """Return every release of the service that Serve shows; raises ``Unreachable``."""
        shown = self._applications()
        mine = {name: app for name, app in shown.items() if _service(app) == service}
        return Observed(placements={name: _placement(service, app) for name, app in mine.items()})

    def address(self, service: str) -> str:
        """Return the live base URL of the service."""
        return f"{self._settings.serve}/{service}"

    def endpoint(self, release: Release) -> str:
        """Return the base URL that leads to this release while it is not live."""
        return f"{self._settings.serve}/{release.name}"

    def room(self, release: Release, weights: str, *, without: str | None = None) -> Room:
        """Say that it cannot be known: Ray counts what it was told, and its autoscaler may add nodes."""
        del release, weights, without
        return Room()

    def start(self, release: Release, weights: str) -> None:
        """Add the release's application; one of that name and commit that runs already is left alone."""
        wanted = _application(release, weights)

        def add(apps: list[App]) -> list[App]:
            others = [app for app in apps if app["name"] != release.name]
            mine = next((app for app in apps if app["name"] == release.name), None)
            if mine is None:
                return [*others, wanted]
            if mine["args"] != wanted["args"]:
                raise Refused(
                    f"The cluster runs another application called {release.name}.", remedy="Remove it first."
                )
            return apps

        self._change(add)

    def shift(self, service: str, release: str | None, *, percent: int = 100) -> None:
        """Swap route prefixes in one PUT so that the live one leads to ``release``, or to nothing; all or none."""
        if percent != 100:  # noqa: PLR2004
            raise Refused("The target ray moves all traffic at once.", remedy="Set `shift.steps` to [100].")

        def swap(apps: list[App]) -> list[App]:
            if release is not None and release not in {app["name"] for app in apps}:
                raise CandidateFailed(f"{release} is not on the cluster, so no traffic can be led to it.")
            return [_routed(app, service, release) if _service_of(app) == service else app for app in apps]

        self._change(swap)

    def drain(self, service: str, release: str) -> None:
        """Turn the drain switch of the release on; one that is gone needs none."""

        def switch(apps: list[App]) -> list[App]:
            return [_draining(app, on=True) if app["name"] == release else app for app in apps]

        del service
        self._change(switch)

    def remove(self, service: str, release: str) -> None:
        """Take the release's application out; Serve lets its running requests end."""
        del service
        self._change(lambda apps: [app for app in apps if app["name"] != release])

    def _applications(self) -> dict[str, App]:
        try:
            shown: dict[str, App] = self._ask("GET").json()["applications"]
        except (ValueError, LookupError, TypeError) as error:
            raise Refused(
                f"{self._settings.dashboard} does not answer as Ray's dashboard does.",
                remedy="Set SLIPWAY_RAY__DASHBOARD to it, not to what stands in front of it.",
            ) from error
        return shown

    def _change(self, how: Callable[[list[App]], list[App]]) -> None:
        before = [app["deployed_app_config"] for app in self._applications().values() if _is_wanted(app)]
        after = how(before)
        if after == before:
            return
        self._ask("PUT", {**self._proxy(), "applications": after})

    def _proxy(self) -> dict[str, Any]:
        """Return where Serve's proxy is to listen, for a cluster that leaves it to us."""
        if not self._settings.starts_proxy:
            return {}
        serve = urlsplit(self._settings.serve)
        return {"proxy_location": "HeadOnly", "http_options": {"host": serve.hostname, "port": serve.port}}

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _ask(self, method: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Ask Serve's REST API; repeating a PUT is harmless because it is declarative."""
        return retried(lambda: self._ask_once(method, body))

    def _ask_once(self, method: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            response = self._client.request(method, APPLICATIONS, json=body)
        except httpx.TransportError as error:
            raise Unreachable(
                f"The Ray cluster at {self._settings.dashboard} does not answer ({type(error).__name__}).",
                remedy="`slipway up` repairs the embedded one.",
            ) from error
        if response.status_code in (401, 403):
            raise AccessDenied(
                f"The Ray cluster at {self._settings.dashboard} refuses our token.",
                remedy="Set SLIPWAY_RAY__TOKEN to the cluster's authentication token.",
            )
        if response.is_server_error:
            raise Unreachable(f"The Ray cluster answered {response.status_code}: {quoted(response)}")
        if not response.is_success:
            raise Refused(f"The Ray cluster refused the change ({response.status_code}): {quoted(response)}")
        return response


def _application(release: Release, weights: str) -> App:
    return {
        "name": release.name,
        "route_prefix": f"/{release.name}",
        "import_path": IMPORT_PATH,
        "args": payload_arguments(release, weights),
    }


def _is_wanted(app: App) -> bool:
    return app.get("deployed_app_config") is not None and app["status"] != "DELETING"


def _service(app: App) -> str | None:
    """Return whose release an application is; one that is being deleted has lost all but its name."""
    config = app.get("deployed_app_config")
    return str(app["name"]).rpartition("-r")[0] if config is None else _service_of(config)


def _service_of(config: App) -> str | None:
    return config.get("args", {}).get("service") if config.get("import_path") == IMPORT_PATH else None


def _routed(app: App, service: str, live: str | None) -> App:
    prefix = service if app["name"] == live else app["name"]
    routed = {**app, "route_prefix": f"/{prefix}"}
    return _draining(routed, on=False) if app["name"] == live else routed


def _draining(app: App, *, on: bool) -> App:
    return {**app, "deployments": [{"name": DEPLOYMENT, "user_config": {"drain": on}}]}


def _placement(service: str, app: App) -> Placement:
    config = app.get("deployed_app_config") or {}
    switches = config.get("deployments") or [{}]
    return Placement(
        health=HEALTH.get(app["status"], Health.STARTING),
        live=config.get("route_prefix") == f"/{service}",
        draining=bool((switches[0].get("user_config") or {}).get("drain")),
        message=_last_line(app.get("message") or ""),
    )


def _last_line(text: str) -> str:
    """Return the last line of a traceback, which is the one that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:256] if lines else ""
