"""The control plane of tests is a real one, fails as it is told to, and never outlives the tests."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import kubernetes
import psutil
import pytest

from tests.kube import definitions
from tests.kube.audit import counted
from tests.kube.control_plane import ACCOUNT, STRANGER, ControlPlane, control_plane

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0


def client_of(kube: ControlPlane, user: str, namespace: str) -> kubernetes.client.ApiClient:
    """Return the official client, as a user, by a kubeconfig."""
    return kubernetes.config.new_client_from_config(str(kube.kubeconfig(user, namespace)))


def await_(done: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def role(verbs: list[str], namespace: str, subject: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Return a role for pods and its binding, each with the place to create it."""
    place = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
    return [
        (f"{place}/roles", {"metadata": {"name": "pods"}, "rules": rules}),
        (f"{place}/rolebindings", {"metadata": {"name": "pods"}, "roleRef": reference, "subjects": [subject]}),
    ]


@pytest.mark.parametrize("user", [STRANGER, f"{ACCOUNT}NAMESPACE:slipway"])
def test_a_user_may_do_what_a_role_says_and_nothing_else(kube: ControlPlane, namespace: str, user: str) -> None:
    """Authorisation is on, for known users and for service accounts, and the audit log tells who asked."""
    user = user.replace("NAMESPACE", namespace)
    since = kube.audit.position()
    with client_of(kube, user, namespace) as client:
        pods = kubernetes.client.CoreV1Api(client)
        with pytest.raises(kubernetes.client.ApiException) as refused:
            pods.list_namespaced_pod(namespace, limit=5)
        for place, content in role(["list"], namespace, {"kind": "User", "name": user}):
            kube.admin.post(place, json=content).raise_for_status()

        def allowed() -> bool:
            try:
                pods.list_namespaced_pod(namespace)
            except kubernetes.client.ApiException:
                return False
            return True

        await_(allowed)
        with pytest.raises(kubernetes.client.ApiException) as still:
            pods.delete_namespaced_pod("web", namespace)

    assert (refused.value.status, still.value.status) == (403, 403)
    asked = kube.audit.requests(user=user, namespace=namespace, since=since)
    assert set(counted(asked)) == {("list", "pods"), ("delete", "pods")}
    assert counted(asked)["delete", "pods"] == 1
    assert [request.unbounded for request in asked][:2] == [False, True]


def test_an_address_of_a_service_can_be_listened_on(kube: ControlPlane, namespace: str) -> None:
    """What stands for kube-proxy listens where clients of a Service connect to."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 8000}]}
    service = kube.admin.post(
        f"/api/v1/namespaces/{namespace}/services", json={"metadata": {"name": "web"}, "spec": spec}
    )

    address = service.raise_for_status().json()["spec"]["clusterIP"]
    with socket.create_server((address, 8000)), socket.create_connection((address, 8000), timeout=5):
        pass


@pytest.mark.usefixtures("extensions")
def test_what_is_not_in_a_definition_is_refused(kube: ControlPlane, namespace: str) -> None:
    """Strict validation names the field that an HTTPRoute does not have."""
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"name": "outside"}], "wieghts": []},
    }
    place = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes?fieldValidation=Strict"

    refused = kube.admin.post(place, json=route)

    assert refused.status_code == 400
    assert 'unknown field "spec.wieghts"' in refused.json()["message"]


def test_an_outage_loses_no_object(kube: ControlPlane, namespace: str) -> None:
    """While the API server is killed it refuses connections; afterwards all is as it was."""
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    kube.admin.post(maps, json={"metadata": {"name": "kept"}}).raise_for_status()
    kube.stop()
    try:
        with pytest.raises(httpx.TransportError):
            kube.admin.get(maps)
    finally:
        kube.start()

    assert kube.admin.get(f"{maps}/kept").is_success


def test_a_paused_api_server_is_silent(kube: ControlPlane) -> None:
    """Its connections stay open and nothing comes, until it goes on."""
    kube.pause()
    try:
        with pytest.raises(httpx.ReadTimeout):
            kube.admin.get("/api/v1/namespaces?limit=1", timeout=0.3)
    finally:
        kube.resume()

    assert kube.admin.get("/api/v1/namespaces?limit=1").is_success


def test_two_control_planes_share_nothing(kube: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """A second one has a network and objects of its own; RayServices by our own definitions keep all they hold."""
    service = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "chat"}, "spec": {"any": 1}}
    place = "/apis/ray.io/v1/namespaces/default/rayservices"
    folder = tmp_path / "other"
    folder.mkdir()
    with control_plane(folder) as other:
        other.install(definitions.HERE.joinpath("crds").glob("*.yaml"))
        made = other.admin.post(place, json={**service, "status": {"never": "written so"}}).raise_for_status().json()
        written = other.admin.put(f"{place}/chat/status", json={**made, "status": {"numServeEndpoints": 2}})

        assert not other.services.overlaps(kube.services)
        assert other.admin.get(f"/api/v1/namespaces/{namespace}").status_code == 404

    assert (made["spec"], "status" in made) == ({"any": 1}, False)
    assert written.json()["status"] == {"numServeEndpoints": 2}
    assert not folder.exists()


@pytest.mark.usefixtures("kube")  # or it is skipped
def test_no_process_outlives_killed_tests(tmp_path: Path) -> None:
    """Where the tests are killed with -9 and clean up nothing, the kernel ends what they started."""
    script = (
        "import pathlib, sys, time\n"
        "from tests.kube.control_plane import ControlPlane\n"
        "plane = ControlPlane(pathlib.Path(sys.argv[1]))\n"
        "print('started', flush=True)\n"
        "plane.start()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as tests:
        try:
            assert tests.stdout is not None
            assert tests.stdout.readline() == b"started\n"
            await_(lambda: len(programs(tests.pid)) == 2)
            started = programs(tests.pid)
        finally:
            tests.kill()

    _, alive = psutil.wait_procs(started, timeout=DEADLINE_S)
    assert alive == []


def programs(pid: int) -> list[psutil.Process]:
    """Return the children of a process that have become what they were started for."""
    return [child for child in psutil.Process(pid).children() if child.name() in {"etcd", "kube-apiserver"}]
