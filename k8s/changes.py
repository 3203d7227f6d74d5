"""What Slipway writes into a RayService after it was made, and whether one is the release that it should be.

Pure: each function says what to merge into the object that was read, None where nothing is to be changed.
"""

import json
from datetime import datetime

import yaml

from k8s import names
from k8s.errors import ApiError, Reason
from k8s.kinds import RAY_SERVICE, Object
from k8s.parts import SERVED_SINCE, Parts, arguments
from k8s.serve_config import is_draining, with_drain
from k8s.workload import Workload


def led_to(ray_service: Object, now: datetime) -> Object | None:
    """Return how a RayService is told that traffic comes: it is marked, and drains no more."""
    parts = Parts(ray_service["metadata"]["name"], ray_service)
    if parts.served_since is not None and parts.draining_since is None:
        return None
    marks = {SERVED_SINCE: now.isoformat(), names.DRAINING_SINCE: None}
    return {"metadata": {"annotations": marks}, **_switched(ray_service, on=False)}


def drained(ray_service: Object, now: datetime) -> Object | None:
    """Return how a RayService is told to drain; one that does, or is being deleted, needs it not."""
    parts = Parts(ray_service["metadata"]["name"], ray_service)
    if parts.draining_since is not None or parts.deleting:
        return None
    marks = {names.DRAINING_SINCE: now.isoformat()}
    return {"metadata": {"annotations": marks}, **_switched(ray_service, on=True)}


def owned(obj: Object, owner: Object) -> Object:
    """Return the object with the RayService ``owner`` as its owner: it goes when that is deleted, by whomever."""
    reference = {
        "apiVersion": RAY_SERVICE.api_version,
        "kind": RAY_SERVICE.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [reference]}}


def check_same(ray_service: Object, workload: Workload) -> None:
    """Raise ``FOREIGN`` unless the RayService is that release, ``EXISTS`` when it is on its way out.

    What it runs is compared, not how its pods look: a release that an older Slipway rendered is still that release.
    """
    parts = Parts(workload.release, ray_service)
    if parts.deleting:
        raise ApiError(
            Reason.EXISTS, f"{workload.release} is still being removed.", remedy="Try again when it is gone."
        )
    wanted = json.loads(json.dumps(workload.arguments))
    if wanted not in (arguments(_rendered(parts)), arguments(parts.spec)):
        raise ApiError(
            Reason.FOREIGN,
            f"The cluster runs another release called {workload.release}.",
            remedy="Remove it first; two installations of Slipway need a namespace each.",
        )


def _rendered(parts: Parts) -> Object:
    try:
        return dict(json.loads(parts.annotations[names.RENDERED]))
    except (LookupError, ValueError, TypeError):
        return {}


def _switched(ray_service: Object, *, on: bool) -> Object:
    """Return the change of the drain switch; none where it stands so, or where somebody made nonsense of it."""
    config = str(ray_service["spec"].get("serveConfigV2"))
    try:
        return {} if is_draining(config) is on else {"spec": {"serveConfigV2": with_drain(config, on=on)}}
    except (LookupError, TypeError, AttributeError, yaml.YAMLError):
        return {}
