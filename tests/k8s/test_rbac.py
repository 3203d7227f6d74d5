"""What Slipway's account may do in a cluster, tried under that account with authorisation on."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from k8s.access import Access
from k8s.api import Api
from k8s.capacity_reading import judged, survey
from k8s.cluster import RayServices
from k8s.errors import ApiError, Reason
from k8s.kinds import NODE, RAY_SERVICE, Kind
from k8s.rayservice import ray_service
from tests.k8s.matrix import workload
from tests.kube.account import MANIFESTS, controller, install
from tests.kube.control_plane import ControlPlane

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0


@pytest.fixture
def account(kube: ControlPlane, namespace: str) -> str:
    """Return the user that the controller is, with the rights of ``k8s/rbac.yaml`` in the test's namespace."""
    return controller(kube, namespace)


def until(true: Callable[[], bool]) -> None:
    """Ask again until it is so: an authoriser hears of new roles a moment after they are made."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s"
        time.sleep(0.05)


def may_list(api: Api, kind: Kind) -> bool:
    """Say whether the account has the right to list objects of the kind."""
    try:
        api.list(kind)
    except ApiError as error:
        if error.reason is Reason.FORBIDDEN:
            return False
        raise
    return True


@pytest.fixture
def api(kube: ControlPlane, namespace: str, account: str) -> Iterator[Api]:
    """Return a client under that account."""
    client = Api(Access(namespace, kube.kubeconfig(account)))
    try:
        until(lambda: may_list(client, RAY_SERVICE))
        yield client
    finally:
        client.close()


def let_answer(kube: ControlPlane, namespace: str, release: str) -> None:
    """Make a pod of the release a ready endpoint, as kubelet and Kubernetes would."""
    endpoint = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": True},
        "targetRef": {"kind": "Pod", "name": f"{release}-head", "namespace": namespace},
    }
    labels = {"kubernetes.io/service-name": release, "slipway.dev/service": "chat", "slipway.dev/release": release}
    piece = {"metadata": {"name": release, "labels": labels}, "addressType": "IPv4", "endpoints": [endpoint]}
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    kube.admin.post(slices, json=piece).raise_for_status()


def granted() -> set[tuple[str, str]]:
    """Return the verbs and resources of the Role."""
    documents = yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text())
    role = next(one for one in documents if one["kind"] == "Role")
    return {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}


@pytest.mark.usefixtures("extensions")
def test_a_release_lives_its_whole_life_with_these_rights_and_needs_them_all(
    kube: ControlPlane, namespace: str, account: str, api: Api
) -> None:
    """Started with all that surrounds it, led to by weight, drained, and removed; no verb is there for nothing."""
    since = kube.audit.position()
    first, second, third = (workload("gateway", number=number, namespace=namespace) for number in (1, 2, 3))
    releases = RayServices(api)
    try:
        for one in (first, second, third):
            releases.start(one)
            let_answer(kube, namespace, one.release)
        releases.shift("chat", first.release)
        releases.shift("chat", second.release, 25)
        releases.shift("chat", second.release)
        releases.drain("chat", first.release)
        releases.remove("chat", third.release)
        until(lambda: third.release not in releases.observe("chat"))
        seen = releases.observe("chat")
        survey(api, ray_service(workload("gated", namespace=namespace)))
        survey(api, ray_service(workload("efs", namespace=namespace)))
        until(lambda: {("watch", name) for verb, name in granted() if verb == "watch"} <= used(kube, account, since))
    finally:
        releases.close()

    assert (True, True) == (seen[second.release].live, seen[first.release].draining)
    assert granted() <= used(kube, account, since)


def used(kube: ControlPlane, account: str, since: int) -> set[tuple[str, str]]:
    """Return the verbs and resources that the account asked for and was allowed; applying may be creating."""
    asked = [one for one in kube.audit.requests(user=account, since=since) if one.status != httpx.codes.FORBIDDEN]
    created = {("create", one.resource) for one in asked if one.status == httpx.codes.CREATED}
    return {(one.verb, one.resource) for one in asked} | created


def test_capacity_is_read_as_far_as_the_account_may(kube: ControlPlane, namespace: str, api: Api) -> None:
    """Nodes are for another role, which is optional; about Secrets that the Role does not name nobody may ask."""
    asked = ray_service(workload("gated", namespace=namespace))
    without = survey(api, asked)
    remove = install(kube, "rbac-capacity.yaml", namespace)
    try:
        until(lambda: may_list(api, NODE))
        seen = survey(api, asked)
    finally:
        remove()

    assert (None, (), None) == (without.nodes, without.pods, without.pools)
    assert judged(without).enough is not True
    assert {"hf-token": False, "registry": None} == seen.secrets == without.secrets
    assert seen.quotas == ()
    assert None not in (seen.nodes, seen.pods, seen.pools)
    assert seen.autoscaler == {}
    assert "hf-token" in judged(seen).sentence


FORBIDDEN = [
    ("GET", "/api/v1/namespaces/{}/secrets"),
    ("GET", "/api/v1/namespaces/{}/secrets/other"),
    ("POST", "/api/v1/namespaces/{}/secrets"),
    ("GET", "/api/v1/namespaces/{}/configmaps/any"),
    ("GET", "/api/v1/namespaces/{}/pods/any/exec?command=id"),
    ("GET", "/api/v1/namespaces/{}/pods/any/log"),
    ("GET", "/api/v1/namespaces/{}/pods/any/proxy/metrics"),
    ("GET", "/api/v1/namespaces/{}/services/any:8265/proxy/api/jobs"),
    ("POST", "/api/v1/namespaces/{}/pods"),
    ("DELETE", "/api/v1/namespaces/{}/pods/any"),
    ("DELETE", "/apis/ray.io/v1/namespaces/{}/rayclusters/any"),
    ("DELETE", "/apis/ray.io/v1/namespaces/{}/rayservices"),
    ("PUT", "/apis/ray.io/v1/namespaces/{}/rayservices/any/status"),
    ("POST", "/apis/apps/v1/namespaces/{}/deployments"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"),
    ("POST", "/api/v1/namespaces/{}/serviceaccounts/slipway/token"),
    ("DELETE", "/api/v1/namespaces/{}/serviceaccounts/slipway"),
    ("GET", "/apis/ray.io/v1/namespaces/default/rayservices"),
    ("GET", "/api/v1/namespaces/default/services"),
    ("GET", "/api/v1/namespaces/kube-system/secrets"),
    ("GET", "/apis/ray.io/v1/rayservices"),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/pods"),
]


def test_nothing_else_is_allowed(kube: ControlPlane, namespace: str, account: str) -> None:
    """No Secret by list or by another name, no shell in a pod, no other namespace, nothing of the cluster's."""
    body: dict[str, Any] = {"metadata": {"name": "any"}}
    headers = {"Authorization": f"Bearer {kube.token(account)}", "Content-Type": "application/json"}
    with httpx.Client(base_url=kube.url, headers=headers, verify=kube.trust, timeout=30) as client:
        answers = {
            (method, place): client.request(method, place.format(namespace), content=json.dumps(body)).status_code
            for method, place in FORBIDDEN
        }

    assert dict.fromkeys(FORBIDDEN, 403) == answers
