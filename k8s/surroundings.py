"""What surrounds a RayService: the addresses that lead to it, who its pods are, and who may reach them.

Two things move while a service lives, the selector of its stable Service and the rules of its HTTPRoute.  They are
no part of what is rendered, so that applying the rest again moves no traffic: a stable Service is born without a
selector and leads nowhere.
"""

from k8s.kinds import HTTP_ROUTE, NETWORK_POLICY, PDB, SERVICE, SERVICE_ACCOUNT, Kind, Object
from k8s.names import RELEASE, release_labels, service_labels, traffic_selector
from k8s.names import SERVICE as SERVICE_LABEL
from k8s.pods import DASHBOARD_PORT, METRICS_PORT
from k8s.routing import CANDIDATE_HEADER
from k8s.serve_config import SERVE_PORT
from k8s.workload import Workload

HAPROXY_METRICS_PORT = 9101
NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""Label that Kubernetes gives every namespace."""


def stable_service(workload: Workload, live: str | None = None) -> Object:
    """Return the address that clients call; with ``live`` it leads to that release."""
    access = workload.kubernetes.access
    service = _shared(SERVICE, workload, workload.service)
    service["spec"] = {"type": access.type.value, "ports": _serve_port()}
    if access.annotations:
        service["metadata"]["annotations"] = dict(access.annotations)
    if access.load_balancer_class:
        service["spec"]["loadBalancerClass"] = access.load_balancer_class
    if live is not None:
        service["spec"]["selector"] = traffic_selector(workload.service, live)
    return service


def release_service(workload: Workload) -> Object:
    """Return the release's own address, which never leads to another one."""
    service = _own(SERVICE, workload)
    selector = traffic_selector(workload.service, workload.release)
    service["spec"] = {"type": "ClusterIP", "ports": _serve_port(), "selector": selector}
    return service


def disruption_budget(workload: Workload) -> Object:
    """Return what keeps a drained node from evicting the release's pods.

    A budget over pods that no built-in controller owns counts those that must stay, as a whole number:
    https://kubernetes.io/docs/tasks/run-application/configure-pdb/#arbitrary-controllers-and-selectors
    """
    evictable = workload.kubernetes.evictable
    stay = max(workload.endpoints - evictable, 1) if evictable else 1 + workload.most_workers
    budget = _own(PDB, workload)
    budget["spec"] = {"minAvailable": stay, "selector": {"matchLabels": {RELEASE: workload.release}}}
    return budget


def service_account(workload: Workload) -> Object:
    """Return the identity of the pods, which has no right in the cluster."""
    section = workload.kubernetes.service_account
    account = _shared(SERVICE_ACCOUNT, workload, section.name or workload.service)
    if section.annotations:
        account["metadata"]["annotations"] = dict(section.annotations)
    return account


def network_policies(workload: Workload) -> tuple[Object, Object]:
    """Return who may ask the service, and who may reach Ray.

    Any port that is not named is open to the same service's pods alone: Ray's control (6379), its client (10001), its
    agents, HAProxy's statistics (8404) and the replicas' own ports (30000 to 31000), none of which asks who calls.
    """
    network, gateway = workload.kubernetes.network, workload.kubernetes.gateway
    beside = (gateway.namespace,) if gateway and gateway.namespace else ()
    clients = [_namespace(name) for name in dict.fromkeys((*network.clients, *beside))] if network.clients else []
    asking = {"ports": _ports(SERVE_PORT), **({"from": clients} if clients else {})}
    within = [
        {"from": [{"podSelector": {"matchLabels": {SERVICE_LABEL: workload.service}}}]},
        {"from": [{"podSelector": {}}], "ports": _ports(DASHBOARD_PORT, METRICS_PORT)},
        {"from": [_namespace(network.operator)], "ports": _ports(DASHBOARD_PORT, SERVE_PORT)},
        {"from": [_namespace(network.monitoring)], "ports": _ports(METRICS_PORT, HAPROXY_METRICS_PORT)},
    ]
    return _policy(workload, "serve", [asking]), _policy(workload, "ray", within)


def http_route(workload: Workload) -> Object | None:
    """Return the route of the service where a Gateway is named, without rules: ``k8s.routing`` makes those."""
    gateway = workload.kubernetes.gateway
    if gateway is None:
        return None
    parent: Object = {"group": "", "kind": "Service", "name": workload.service, "port": SERVE_PORT}
    if gateway.name is not None:
        parent = {"name": gateway.name}
        parent |= {"namespace": gateway.namespace} if gateway.namespace else {}
        parent |= {"sectionName": gateway.listener} if gateway.listener else {}
    route = _shared(HTTP_ROUTE, workload, workload.service)
    if (header := gateway.candidate_header) is not None:
        route["metadata"]["annotations"] = {CANDIDATE_HEADER: f"{header.name}={header.value}"}
    route["spec"] = {"parentRefs": [parent]}
    if gateway.hostnames:
        route["spec"]["hostnames"] = list(gateway.hostnames)
    return route


def _policy(workload: Workload, about: str, ingress: list[Object]) -> Object:
    policy = _shared(NETWORK_POLICY, workload, f"{workload.service}-{about}")
    pods = {"matchLabels": {SERVICE_LABEL: workload.service}}
    policy["spec"] = {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": ingress}
    return policy


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}}


def _ports(*ports: int) -> list[Object]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _serve_port() -> list[Object]:
    return [{"name": "serve", "port": SERVE_PORT, "targetPort": SERVE_PORT, "protocol": "TCP"}]


def _shared(kind: Kind, workload: Workload, name: str) -> Object:
    return _object(kind, workload.namespace, name, service_labels(workload.service))


def _own(kind: Kind, workload: Workload) -> Object:
    labels = release_labels(workload.service, workload.release, workload.commit)
    return _object(kind, workload.namespace, workload.release, labels)


def _object(kind: Kind, namespace: str, name: str, labels: dict[str, str]) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
    }
