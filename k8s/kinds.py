"""The kinds of objects that Slipway reads or writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""A Kubernetes object as its JSON says it."""


@dataclass(frozen=True)
class Kind:
    """One kind in one version; ``plural`` is its name in paths and in roles."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of the object of that name, or of all, in the namespace, which means nothing to some kinds.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
        """
        root = "/apis" if "/" in self.api_version else "/api"
        place = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}/{self.api_version}{place}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


RAY_SERVICE = Kind("ray.io/v1", "RayService", "rayservices")
RAY_CLUSTER = Kind("ray.io/v1", "RayCluster", "rayclusters")
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
SECRET = Kind("v1", "Secret", "secrets")
PVC = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
PDB = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
NODE_POOL = Kind("karpenter.sh/v1", "NodePool", "nodepools", namespaced=False)

KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        *(RAY_SERVICE, RAY_CLUSTER, POD, SERVICE, SERVICE_ACCOUNT, SECRET, PVC, RESOURCE_QUOTA, NODE),
        *(ENDPOINT_SLICE, NETWORK_POLICY, PDB, HTTP_ROUTE, NODE_POOL),
    )
}


def kind_of(obj: Object) -> Kind:
    """Return the kind of an object that Slipway rendered; raises ``KeyError`` for one that it never writes."""
    return KINDS[obj["apiVersion"], obj["kind"]]
