"""What a namespace holds of Slipway's objects, kept current by watches, so that looking costs no request.

One watch for each kind, whatever the number of services; they begin with the first look.
"""

from threading import Lock

from k8s import names
from k8s.api import Api
from k8s.errors import ApiError, Reason
from k8s.kinds import ENDPOINT_SLICE, HTTP_ROUTE, POD, RAY_CLUSTER, RAY_SERVICE, SERVICE, Kind, Object, kind_of
from k8s.parts import Objects
from k8s.reflector import Pace, Reflector

WATCHED = (RAY_SERVICE, RAY_CLUSTER, POD, SERVICE, ENDPOINT_SLICE)
"""All bear the label of their service: KubeRay passes a RayService's labels on, Kubernetes a Service's."""


class Picture:
    """The objects of the namespace of ``api`` that belong to any service, watched at ``pace``; for any thread."""

    def __init__(self, api: Api, pace: Pace) -> None:
        self._api, self._pace = api, pace
        self._lock = Lock()
        self._reflectors: dict[Kind, Reflector] = {}

    def objects(self) -> Objects:
        """Return what is there; raises ``ApiError`` when that has not been known for a while."""
        shown = {kind: tuple(one.snapshot().objects.values()) for kind, one in self._watching().items()}
        return Objects(
            ray_services=shown[RAY_SERVICE],
            ray_clusters=shown[RAY_CLUSTER],
            pods=shown[POD],
            services=shown[SERVICE],
            slices=shown[ENDPOINT_SLICE],
            routes=shown.get(HTTP_ROUTE, ()),
        )

    def has_routes(self) -> bool:
        """Say whether the Gateway API is installed; asked once."""
        return HTTP_ROUTE in self._watching()

    def put(self, obj: Object) -> Object:
        """Take in what a write of our own returned, and return it."""
        with self._lock:
            reflector = self._reflectors.get(kind_of(obj))
        if reflector is not None:
            reflector.put(obj)
        return obj

    def close(self) -> None:
        """End the watches."""
        with self._lock:
            reflectors, self._reflectors = self._reflectors, {}
        for reflector in reflectors.values():
            reflector.close()

    def _watching(self) -> dict[Kind, Reflector]:
        with self._lock:
            if not self._reflectors:
                kinds = (*WATCHED, HTTP_ROUTE) if self._is_served(HTTP_ROUTE) else WATCHED
                self._reflectors = {
                    kind: Reflector(self._api, kind, names.SERVICE, pace=self._pace) for kind in kinds
                }
            return self._reflectors

    def _is_served(self, kind: Kind) -> bool:
        try:
            self._api.list(kind, names.SERVICE)
        except ApiError as error:
            if error.reason is Reason.NOT_SERVED:
                return False
            raise
        return True
