"""The target ``kuberay``: one namespace of a Kubernetes cluster, one RayService a release, driven by ``k8s``.

Slipway's words become those of Kubernetes here, and its errors ours; what happens there is in ``k8s.cluster``.
What was started lasts: nothing but a hand removes it, so a release that is gone is not started over that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from k8s.access import Access
from k8s.api import Api
from k8s.cluster import RayServices
from k8s.errors import ApiError, Reason
from k8s.state import ReleaseState
from tasks._release.machine import Health, Observed, Placement
from tasks._release.step_result import spec_of
from tasks._release.target import Room
from tasks._release.workloads import workload_of
from tasks.errors import AccessDenied, BadInput, NotFound, Refused, SlipwayError, TerminalError, Unreachable
from tasks.records import Release
from tasks.settings import KubernetesSettings
from tasks.spec import TargetKind

TERMINAL: dict[Reason, type[TerminalError]] = {
    Reason.UNAUTHENTICATED: AccessDenied,
    Reason.FORBIDDEN: AccessDenied,
    Reason.NOT_FOUND: NotFound,
    Reason.NOT_SERVED: NotFound,
    Reason.MISCONFIGURED: BadInput,
}
"""What errors that do not pass mean; all others are refusals.

None is a ``Conflict``: that word says that another run has the release, not that somebody wrote an object.
"""


class KubeRayTarget:
    """Releases in the namespace that ``settings`` name; fulfils ``tasks._release.target.Target``."""

    kind = TargetKind.KUBERAY

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        access = Access(kubeconfig=settings.kubeconfig, context=settings.context, namespace=settings.namespace)
        with _translated():
            self._cluster = RayServices(Api(access))

    def shares(self, release: Release) -> bool:
        """Say whether the release's spec names a Gateway, which shares traffic by weight."""
        section = spec_of(release).kubernetes
        return section is not None and section.gateway is not None

    def observe(self, service: str) -> Observed:
        """Return every release of the service in the namespace; raises ``Unreachable``."""
        with _translated():
            states = self._cluster.observe(service)
        return Observed(placements={name: _placement(state) for name, state in states.items()}, lasting=True)

    def address(self, service: str) -> str:
        """Return where clients reach the service: the stable Service, or the Gateway that the settings name."""
        return self._url(service, self._settings.live_url or self._settings.service_url)

    def endpoint(self, release: Release) -> str:
        """Return the base URL of the release's own Service."""
        return self._url(release.name, self._settings.service_url)

    def room(self, release: Release, weights: str, *, without: str | None = None) -> Room:
        """Return what nodes, NodePools, quotas, claims and Secrets say, as far as we may look."""
        workload = workload_of(release, weights, self._settings.namespace)
        with _translated():
            found = self._cluster.room(workload, without)
        return Room(enough=found.enough, sentence=found.sentence)

    def start(self, release: Release, weights: str) -> None:
        """Make the release's RayService and what surrounds it; one that is there already is left alone."""
        workload = workload_of(release, weights, self._settings.namespace)
        with _translated():
            self._cluster.start(workload)

    def shift(self, service: str, release: str | None, *, percent: int = 100) -> None:
        """Patch the stable Service's selector, and the HTTPRoute's weights where there is one."""
        with _translated():
            self._cluster.shift(service, release, percent)

    def drain(self, service: str, release: str) -> None:
        """Turn the drain switch of the release on; one that is gone needs none."""
        with _translated():
            self._cluster.drain(service, release)

    def remove(self, service: str, release: str) -> None:
        """Delete the release once its requests have ended; to be called until it is gone."""
        with _translated():
            self._cluster.remove(service, release)

    def close(self) -> None:
        """End the watches and let go of connections."""
        self._cluster.close()

    def _url(self, name: str, template: str) -> str:
        with _translated():
            cluster_ip = self._cluster.cluster_ip(name) if "{cluster_ip}" in template else ""
        return template.format(name=name, namespace=self._settings.namespace, cluster_ip=cluster_ip)


def _placement(state: ReleaseState) -> Placement:
    return Placement(
        health=Health(state.health.value),
        live=state.live,
        draining=state.draining,
        message=state.message,
        edited=state.edited,
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise translate(error) from error


def translate(error: ApiError) -> SlipwayError:
    """Return what an error of the cluster means here."""
    if error.transient:
        return Unreachable(str(error), remedy=error.remedy, retry_after=error.retry_after)
    return TERMINAL.get(error.reason, Refused)(str(error), remedy=error.remedy)
