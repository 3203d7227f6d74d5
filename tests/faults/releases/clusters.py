"""The clusters that releases are tested on: what a stage asks of each, and the one of Ray Serve.

What is asked is past the engine: how many candidates were ever made, which engine answers for a release, whether it
is led to.  The one of Kubernetes is in ``kube_cluster``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tasks.settings import RaySettings
from tests.fakes.engine import Engine
from tests.fakes.ray_serve import RayServe, serving

MakeEngine = Callable[[dict[str, Any]], Engine | None]


class Cluster(Protocol):
    """A cluster that outlives the runs that change it."""

    engine: MakeEngine
    spec: dict[str, Any]
    """The sections of a spec that say where it runs."""
    secrets: tuple[str, ...]
    """What no log, record or output may hold."""
    grace_s: float
    """What a start takes here at most on a busy machine."""

    @property
    def address(self) -> str:
        """Return the live address of the service ``chat``."""

    def environment(self) -> dict[str, str]:
        """Return the settings of who releases here."""

    def engine_of(self, release: str) -> Engine:
        """Return what answers for a release."""

    def names(self) -> set[str]:
        """Return the releases that are there and not on their way out."""

    def is_routed(self, release: str) -> bool:
        """Say whether the live address leads to a release."""

    def is_draining(self) -> dict[str, bool]:
        """Return of every release that is there whether it parts with kept-alive connections."""

    def made(self) -> int:
        """Return how many times a release was ever started."""

    def changes(self) -> int:
        """Return how often anything was changed here."""

    def start_slowly(self, seconds: float) -> None:
        """Let releases that begin from now on take so long; those that run are not touched."""

    def lose(self, release: str) -> None:
        """Let a release vanish without anybody being told."""


class RayCluster:
    """The fake of Ray Serve."""

    grace_s = 0.0

    def __init__(self, serve: RayServe, settings: RaySettings) -> None:
        self.spec: dict[str, Any] = {}
        self._serve, self._settings = serve, settings
        self._token = settings.token.get_secret_value() if settings.token else ""
        self.secrets = (self._token,)

    @property
    def engine(self) -> MakeEngine:
        """Return what makes the engines of releases."""
        return self._serve.engine

    @engine.setter
    def engine(self, make: MakeEngine) -> None:
        self._serve.engine = make

    @property
    def address(self) -> str:
        """See ``Cluster``."""
        return f"{self._settings.serve}/chat"

    def environment(self) -> dict[str, str]:
        """See ``Cluster``."""
        return {
            "SLIPWAY_RAY__DASHBOARD": self._settings.dashboard,
            "SLIPWAY_RAY__SERVE": self._settings.serve,
            "SLIPWAY_RAY__TOKEN": self._token,
        }

    def engine_of(self, release: str) -> Engine:
        """See ``Cluster``."""
        return self._serve.apps[release].engine

    def names(self) -> set[str]:
        """See ``Cluster``."""
        return {name for name, app in self._serve.apps.items() if app.dying is None}

    def is_routed(self, release: str) -> bool:
        """See ``Cluster``."""
        app = self._serve.apps.get(release)
        return app is not None and app.config["route_prefix"] == "/chat"

    def is_draining(self) -> dict[str, bool]:
        """See ``Cluster``."""
        return {name: bool(app.engine.draining) for name, app in self._serve.apps.items() if app.dying is None}

    def made(self) -> int:
        """See ``Cluster``."""
        return self._serve.replicas

    def changes(self) -> int:
        """See ``Cluster``."""
        return len(self._serve.puts)

    def start_slowly(self, seconds: float) -> None:
        """See ``Cluster``."""
        for app in self._serve.apps.values():
            app.born -= 1e6
        self._serve.start_s = seconds

    def lose(self, release: str) -> None:
        """See ``Cluster``."""
        del self._serve.apps[release]


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Run a cluster of Ray Serve."""
    with serving(serve := RayServe(start_s=0.0, stop_s=0.0)) as settings:
        yield RayCluster(serve, settings)
