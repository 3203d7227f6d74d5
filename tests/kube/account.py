"""The account that Slipway's controller has in a namespace, with the rights that the files of ``k8s/`` give it."""

import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.kube.control_plane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "k8s"
PLACES = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
DEADLINE_S = 20.0


def install(plane: ControlPlane, manifest: str, namespace: str) -> Callable[[], None]:
    """Create what a manifest holds, as its first line says, and return how all of it is removed."""
    text = (MANIFESTS / manifest).read_text().replace("namespace: llm", f"namespace: {namespace}")
    made = []
    for document in yaml.safe_load_all(text):
        place = PLACES[document["kind"]].format(document["metadata"].get("namespace"))
        plane.admin.post(place, json=document).raise_for_status()
        made.append(f"{place}/{document['metadata']['name']}")
    return lambda: [plane.admin.delete(place) for place in made] and None


def controller(plane: ControlPlane, namespace: str) -> str:
    """Make the account of ``rbac.yaml``, wait until its rights are known, and return the user that it is."""
    install(plane, "rbac.yaml", namespace)
    user = f"system:serviceaccount:{namespace}:slipway"
    attributes = {"namespace": namespace, "verb": "list", "group": "ray.io", "resource": "rayservices"}
    asked = {"spec": {"user": user, "resourceAttributes": attributes}}
    deadline = time.monotonic() + DEADLINE_S
    while not plane.admin.post(REVIEWS, json=asked).raise_for_status().json()["status"]["allowed"]:
        assert time.monotonic() < deadline, f"the rights of {user} are not known"
        time.sleep(0.05)
    return user
