"""What tests of the double of a cluster do by hand, as its administrator, in the place of a target."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.kube_client import RAY_CLUSTER, RAY_SERVICE, SERVICE, Kind
from tests.kube.control_plane import ControlPlane

DEADLINE_S = 30.0
IMAGE = "lab.local/nope:9"
LABELS = {"slipway.dev/service": "chat"}


def configured(release: str, drain: bool = False, **more: Any) -> str:
    """Return the Serve configuration of a release, with ``more`` arguments."""
    args = {"release": release, "commit": "1" * 40, "served_model_name": "chat", **more}
    app: dict[str, Any] = {"name": "app", "route_prefix": "/", "import_path": "serve.app:build", "args": args}
    if drain:
        app["deployments"] = [{"name": "engine", "user_config": {"drain": True}}]
    return json.dumps({"applications": [app]})


def manifest(name: str, grace_s: int = 30, drain_s: int = 30, gpus: int = 0) -> dict[str, Any]:
    """Return a RayService like those that were recorded; its worker may have ``gpus``."""

    def pod(container: str) -> dict[str, Any]:
        resources = {"requests": {"cpu": "50m", "memory": "200Mi"}}
        env = [{"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(drain_s)}]
        ports = [{"name": "serve", "containerPort": 8000}]
        first = {"name": container, "image": IMAGE, "resources": resources, "env": env, "ports": ports}
        labels = LABELS | {"slipway.dev/release": name}
        return {
            "metadata": {"labels": labels},
            "spec": {"containers": [first], "terminationGracePeriodSeconds": grace_s},
        }

    counts = {"replicas": 1, "minReplicas": 1, "maxReplicas": 1}
    worker: dict[str, Any] = {"groupName": "w", "rayStartParams": {}, "template": pod("ray-worker"), **counts}
    if gpus:
        worker["template"]["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": str(gpus)}
    head = {"rayStartParams": {"num-cpus": "0"}, "template": pod("ray-head")}
    spec = {
        "upgradeStrategy": {"type": "None"},
        "serveConfigV2": configured(name),
        "rayClusterConfig": {"rayVersion": "2.60.0", "headGroupSpec": head, "workerGroupSpecs": [worker]},
    }
    meta = {"name": name, "labels": LABELS | {"slipway.dev/release": name}}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": meta, "spec": spec}


class Hand:
    """Does by hand what a target would do, as the administrator."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._http, self._namespace = plane.admin, namespace

    def path(self, kind: Kind, name: str = "") -> str:
        """Return where objects of a kind are."""
        return f"/{kind.api}/namespaces/{self._namespace}/{kind.plural}" + (f"/{name}" if name else "")

    def create(self, kind: Kind, new: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        return dict(self._http.post(self.path(kind), json=new).raise_for_status().json())

    def would_take(self, kind: Kind, new: dict[str, Any]) -> bool:
        """Say whether the API server would create an object."""
        return self._http.post(self.path(kind), json=new, params={"dryRun": "All"}).is_success

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """Return an object, if it is there."""
        answer = self._http.get(self.path(kind, name))
        return dict(answer.raise_for_status().json()) if answer.status_code != 404 else None

    def items(self, kind: Kind) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        return list(self._all(kind)["items"])

    def version(self, kind: Kind) -> str:
        """Return the version that objects of a kind are at now."""
        return str(self._all(kind)["metadata"]["resourceVersion"])

    def _all(self, kind: Kind) -> dict[str, Any]:
        return dict(self._http.get(self.path(kind), params={"limit": 500}).raise_for_status().json())

    def patch(self, kind: Kind, name: str, change: dict[str, Any]) -> None:
        """Change an object."""
        headers = {"content-type": "application/merge-patch+json"}
        self._http.patch(self.path(kind, name), content=json.dumps(change), headers=headers).raise_for_status()

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object."""
        self._http.delete(self.path(kind, name)).raise_for_status()

    def history(self, kind: Kind, since: str) -> list[dict[str, Any]]:
        """Return what objects of a kind have been, one after the other, after the version ``since``."""
        asked = {"watch": "1", "resourceVersion": since, "timeoutSeconds": "1"}
        lines = self._http.get(self.path(kind), params=asked).raise_for_status().text.splitlines()
        return [json.loads(line)["object"] for line in lines]

    def release(self, name: str, **how: Any) -> None:
        """Create a RayService and wait until all its pods are ready."""
        self.create(RAY_SERVICE, manifest(name, **how))
        await_that(lambda: self.endpoints(name) == 2)

    def endpoints(self, name: str) -> int | None:
        """Return how many endpoints a RayService says it has."""
        status: dict[str, Any] = (self.get(RAY_SERVICE, name) or {}).get("status", {})
        return status.get("numServeEndpoints")

    def expose(self, release: str) -> None:
        """Create the stable Service, or let it lead to another release."""
        selector = {"slipway.dev/release": release, "ray.io/serve": "true"}
        if self.get(SERVICE, "chat"):
            self.patch(SERVICE, "chat", {"spec": {"selector": selector}})
            return
        ports = [{"name": "http", "port": 8000, "targetPort": "serve"}]
        self.create(SERVICE, {"metadata": {"name": "chat"}, "spec": {"selector": selector, "ports": ports}})

    def head_ready(self, cluster: str) -> dict[str, Any]:
        """Return the condition HeadPodReady of a RayCluster."""
        status = (self.get(RAY_CLUSTER, cluster) or {}).get("status", {})
        return next((one for one in status.get("conditions", []) if one["type"] == "HeadPodReady"), {})


def await_that(come: Callable[[], object]) -> None:
    """Wait until something has come."""
    deadline = time.monotonic() + DEADLINE_S
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)
