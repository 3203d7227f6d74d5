"""A target that is changed only by the run that holds the lease.

Serve's API takes no fencing number, so the lease is renewed, by compare-and-swap, right before every change: a run
that was stopped and woke finds there that another one has its place, and stops before it touches traffic.  What is
left is the time of one request between the two, in which a run would have to be stopped for longer than the lease.
"""

from collections.abc import Callable

from tasks._release.machine import Observed
from tasks._release.target import Room, Target
from tasks.records import Release
from tasks.spec import TargetKind


class Fenced:
    """``target``, whose changes each call ``guard`` first; fulfils ``tasks._release.target.Target``."""

    def __init__(self, target: Target, guard: Callable[[], None]) -> None:
        self._target, self._guard = target, guard

    @property
    def kind(self) -> TargetKind:
        """See ``Target``."""
        return self._target.kind

    def shares(self, release: Release) -> bool:
        """See ``Target``."""
        return self._target.shares(release)

    def observe(self, service: str) -> Observed:
        """See ``Target``."""
        return self._target.observe(service)

    def address(self, service: str) -> str:
        """See ``Target``."""
        return self._target.address(service)

    def endpoint(self, release: Release) -> str:
        """See ``Target``."""
        return self._target.endpoint(release)

    def room(self, release: Release, weights: str, *, without: str | None = None) -> Room:
        """See ``Target``."""
        return self._target.room(release, weights, without=without)

    def start(self, release: Release, weights: str) -> None:
        """See ``Target``."""
        self._guard()
        self._target.start(release, weights)

    def shift(self, service: str, release: str | None, *, percent: int = 100) -> None:
        """See ``Target``."""
        self._guard()
        self._target.shift(service, release, percent=percent)

    def drain(self, service: str, release: str) -> None:
        """See ``Target``."""
        self._guard()
        self._target.drain(service, release)

    def remove(self, service: str, release: str) -> None:
        """See ``Target``."""
        self._guard()
        self._target.remove(service, release)

    def close(self) -> None:
        """See ``Target``."""
        self._target.close()
