"""Where releases run, seen from the release engine: the protocol every target fulfils.

Each call may be repeated: it first looks at what is there and does only what is missing, so that a run that died
in the middle of one can be finished by another.  Calls return when the target has taken the wish; whether it came
true is observed.
"""

from typing import Protocol

from tasks._release.machine import Observed
from tasks._release.step_result import spec_of
from tasks.errors import BadInput
from tasks.records import Release, Value
from tasks.spec import TargetKind


class Room(Value):
    """Whether there is room for a release, None where that cannot be known; ``sentence`` says what is lacking."""

    enough: bool | None = None
    sentence: str = ""


class Target(Protocol):
    """A place where releases of a service run side by side behind one live address."""

    @property
    def kind(self) -> TargetKind:
        """What a spec calls this kind of target."""

    def shares(self, release: Release) -> bool:
        """Return whether ``release`` can take a share of the live address; if not, a shift moves all at once."""

    def observe(self, service: str) -> Observed:
        """Return every release of the service that the target shows."""

    def address(self, service: str) -> str:
        """Return the live base URL of the service; ``/v1/...`` follows it."""

    def endpoint(self, release: Release) -> str:
        """Return the release's own base URL, which never leads to another release."""

    def room(self, release: Release, weights: str, *, without: str | None = None) -> Room:
        """Return whether ``release`` finds room beside what runs, or would if the release ``without`` were gone."""

    def start(self, release: Release, weights: str) -> None:
        """Start the release beside the others from the weights at the store URL ``weights``."""

    def shift(self, service: str, release: str | None, *, percent: int = 100) -> None:
        """Lead ``percent`` of the live address's requests to the release of that name, or all of them to none."""

    def drain(self, service: str, release: str) -> None:
        """Tell the release to answer as before but to part with kept-alive connections."""

    def remove(self, service: str, release: str) -> None:
        """Stop the release and give back what it holds, after its running requests have ended.

        It may only begin to: it is called again every few seconds until ``observe`` no longer shows the release.
        """

    def close(self) -> None:
        """Let go of connections."""


def check_kind(target: Target, release: Release) -> None:
    """Raise ``BadInput`` for a release whose spec names another kind of target than the configured one."""
    wanted = spec_of(release).target
    if wanted is not target.kind:
        raise BadInput(
            f"The spec of {release.service} says `target: {wanted.value}`, and what is configured here is a target of"
            f" the kind {target.kind.value}.",
            remedy="Change the spec, or set SLIPWAY_KUBERNETES__NAMESPACE for kuberay, SLIPWAY_RAY__* for ray.",
        )
