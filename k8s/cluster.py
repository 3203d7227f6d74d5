"""Releases in one namespace: started, observed, led to, drained and removed.

Looking costs nothing: watches keep a picture, and what was just written is in it at once.  Whatever changes is read
anew right before, and changed only as it was read: by a patch with its resourceVersion, a deletion with its uid, or
server-side apply of the same object.  So every call may be repeated, by another run as well, and none undoes what
somebody else did in between.  Objects that are not ours are never touched.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from k8s import names, routing
from k8s.api import Api
from k8s.capacity import Capacity
from k8s.capacity_reading import judged, survey
from k8s.changes import check_same, drained, led_to, owned
from k8s.errors import ApiError, Reason
from k8s.kinds import ENDPOINT_SLICE, HTTP_ROUTE, PDB, RAY_SERVICE, SERVICE, Kind, Object, kind_of
from k8s.parts import SERVICE_OF_SLICE, Objects, Parts, label, parts_of, ready_pods
from k8s.picture import Picture
from k8s.rayservice import ray_service
from k8s.reflector import Pace
from k8s.rendering import release_objects, service_objects
from k8s.requests import is_quiet
from k8s.state import ReleaseState, release_states
from k8s.workload import Workload

SETTLE_S = 15.0
"""Seconds after the drain switch before a release that looks quiet counts as quiet.

KubeRay passes the switch on in 2 to 5, and Ray's numbers are up to 10 old.
"""
REMADE = "The next start of a release makes it again, and leads it where it led last."


class RayServices:
    """The releases in the namespace of ``api``, from any number of threads; all calls raise ``ApiError``."""

    def __init__(
        self, api: Api, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), pace: Pace | None = None
    ) -> None:
        self._api, self._now = api, now
        self._picture = Picture(api, pace or Pace())

    def observe(self, service: str) -> dict[str, ReleaseState]:
        """Return every release of the service by name; one that is not there is not shown."""
        return release_states(self._picture.objects(), service, self._now())

    def cluster_ip(self, name: str) -> str:
        """Return the address of the Service of that name within the cluster; raises ``NOT_FOUND``."""
        services = self._picture.objects().services
        found = next((one for one in services if one["metadata"]["name"] == name), None)
        if found is None:
            raise ApiError(Reason.NOT_FOUND, f"There is no Service {name} in {self._api.namespace}.")
        return str(found["spec"]["clusterIP"])

    def room(self, workload: Workload, without: str | None = None) -> Capacity:
        """Return whether the release finds room, or would when the release called ``without`` were gone."""
        return judged(survey(self._api, ray_service(workload)), without)

    def start(self, workload: Workload) -> None:
        """Make what the release needs and does not have; raises ``FOREIGN`` where another object has its name.

        A RayService that is there already is left as it is.  The live address stays where it is led; one that was
        deleted is made again, and leads where it was led last.
        """
        there = self._mine(RAY_SERVICE, workload.release, workload.service)
        if there is not None:
            check_same(there, workload)
        for obj in service_objects(workload):
            self._surround(workload, obj)
        first, *others = release_objects(workload)
        owner = there or self._made(workload, first)
        for obj in others:
            self._mine(kind_of(obj), workload.release, workload.service)
            self._apply(owned(obj, owner))

    def shift(self, service: str, release: str | None, percent: int = routing.ALL) -> None:
        """Lead ``percent`` of the live requests to ``release``, or all of them to none.

        Less than all needs a Gateway (``INVALID``).  Raises ``NOT_FOUND`` for a release none of whose pods takes
        requests, and when the live address was deleted.
        """
        stable, route = self._mine(SERVICE, service, service), self._route(service)
        if percent != routing.ALL and route is None:
            raise ApiError(Reason.INVALID, f"{service} has no Gateway, so all of its traffic moves at once.")
        if stable is None and release is None:
            return
        if stable is None:
            raise ApiError(Reason.NOT_FOUND, f"The Service {service}, the live address, was deleted.", remedy=REMADE)
        if release is not None:
            self._check_reachable(release)
            self._change(RAY_SERVICE, release, lambda there: led_to(there, self._now()))
        if route is not None:
            releases = self._names(service)
            self._change(HTTP_ROUTE, service, lambda there: routing.share(there, stable, release, percent, releases))
        if percent == routing.ALL:
            self._change(SERVICE, service, lambda there: routing.select(there, release))

    def drain(self, service: str, release: str) -> None:
        """Tell the release to part with kept-alive connections; one that is gone needs it no more."""
        if self._mine(RAY_SERVICE, release, service) is not None:
            self._change(RAY_SERVICE, release, lambda there: drained(there, self._now()))

    def remove(self, service: str, release: str) -> None:
        """Delete the release, after its running requests if it ever had any; to be called until it is gone.

        It is drained first, and waited for no longer than the longest generation takes; nothing is waited for here.
        Raises ``INVALID`` while live traffic is led to it.
        """
        seen = parts_of(self._picture.objects(), service).get(release)
        if seen is not None and seen.ray_service is not None and not self._is_due(seen):
            return
        there = self._mine(RAY_SERVICE, release, service)
        self._check_idle(service, release)
        parts = Parts(release, there)
        if there is not None and parts.served_since is not None and parts.draining_since is None:
            self.drain(service, release)
        else:
            self._delete(service, release, there)

    def close(self) -> None:
        """End the watches."""
        self._picture.close()
        self._api.close()

    def _made(self, workload: Workload, ray_service: Object) -> Object:
        """Make the RayService.  Where the reply to that was lost, KubeRay may have written its defaults meanwhile."""
        try:
            return self._apply(ray_service)
        except ApiError as error:
            there = self._mine(RAY_SERVICE, workload.release, workload.service)
            if error.reason is not Reason.OWNED or there is None:
                raise
        check_same(there, workload)
        return self._picture.put(there)

    def _surround(self, workload: Workload, obj: Object) -> None:
        """Apply what the releases of a service share; who gets its traffic is no part of that."""
        service, kind = workload.service, kind_of(obj)
        self._mine(kind, obj["metadata"]["name"], service)
        applied = self._apply(obj)
        if kind == SERVICE and not applied["spec"].get("selector"):
            lead = routing.last_led_to(self._releases(service))
            self._change(SERVICE, service, lambda stable: routing.select(stable, lead))
        if kind == HTTP_ROUTE:
            stable, releases = self._mine(SERVICE, service, service), {*self._names(service), workload.release}
            self._change(HTTP_ROUTE, service, lambda route: routing.kept(route, stable, releases))

    def _delete(self, service: str, release: str, there: Object | None) -> None:
        """Delete what bears the release's name, the RayService last: without it, the rest tells of a foreign hand."""
        if self._route(service) is not None:
            stable, releases = self._mine(SERVICE, service, service), set(self._names(service)) - {release}
            self._change(HTTP_ROUTE, service, lambda route: routing.kept(route, stable, releases))
        for kind in (PDB, SERVICE):
            if (obj := self._mine(kind, release, service)) is not None:
                self._api.delete(kind, release, obj["metadata"]["uid"])
        if there is not None:
            self._api.delete(RAY_SERVICE, release, there["metadata"]["uid"])

    def _is_due(self, parts: Parts) -> bool:
        """Say whether something is to be done about a release that is to go; asks its pods, not the API server."""
        if parts.deleting:
            return False
        if parts.served_since is None or parts.draining_since is None:
            return True
        passed = (self._now() - parts.draining_since).total_seconds()
        return passed >= parts.longest_s or (passed >= SETTLE_S and is_quiet(parts.pods))

    def _check_idle(self, service: str, release: str) -> None:
        if routing.is_led_to(release, self._mine(SERVICE, service, service), self._route(service)):
            raise ApiError(
                Reason.INVALID,
                f"{release} still has live traffic, so it cannot be removed.",
                remedy="Lead the traffic to another release first.",
            )

    def _check_reachable(self, release: str) -> None:
        slices = self._api.list(ENDPOINT_SLICE, f"{SERVICE_OF_SLICE}={release}").items
        if not ready_pods(slices):
            raise ApiError(Reason.NOT_FOUND, f"No pod of {release} takes requests, so no traffic can be led to it.")

    def _releases(self, service: str) -> dict[str, Parts]:
        found = self._api.list(RAY_SERVICE, f"{names.SERVICE}={service}").items
        return parts_of(Objects(ray_services=found), service)

    def _names(self, service: str) -> tuple[str, ...]:
        return tuple(self._releases(service))

    def _route(self, service: str) -> Object | None:
        """Return the route that shares the service's traffic; one of that name that is somebody else's is none."""
        found = self._api.get(HTTP_ROUTE, service) if self._picture.has_routes() else None
        return found if found is not None and _is_ours(found, service) else None

    def _mine(self, kind: Kind, name: str, service: str) -> Object | None:
        """Return the object of that name as it is now; raises ``FOREIGN`` when it is not one of this service's."""
        found = self._api.get(kind, name)
        if found is not None and not _is_ours(found, service):
            raise ApiError(
                Reason.FOREIGN,
                f"There is a {kind.kind} {name} in {self._api.namespace} that is not one of {service}'s.",
                remedy="Remove or rename it, or give the service another name.",
            )
        return found

    def _apply(self, obj: Object) -> Object:
        return self._picture.put(self._api.apply(obj))

    def _change(self, kind: Kind, name: str, decide: Callable[[Object], Object | None]) -> None:
        self._picture.put(self._api.change(kind, name, decide))


def _is_ours(obj: Object, service: str) -> bool:
    return (label(obj, names.MANAGED_BY), label(obj, names.SERVICE)) == (names.MANAGER, service)
