"""A real API server with the real CustomResourceDefinitions takes everything that is rendered, each field of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from k8s.api import Api
from k8s.edits import edited
from k8s.kinds import SERVICE
from k8s.names import traffic_selector
from k8s.rendering import release_objects, service_objects
from tests.k8s.matrix import COMMIT, MATRIX, rendered, workload
from tests.kube.control_plane import ADMIN, ControlPlane

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROUTED = {"gateway", "mesh"}
"""Specs that need the Gateway API."""


@pytest.mark.parametrize("name", sorted(MATRIX.keys() - ROUTED))
def test_every_object_is_accepted(api: Api, namespace: str, name: str) -> None:
    """A field that the server does not know would be an error, and what it adds is no foreign hand's edit."""
    accept(api, namespace, name)


@pytest.mark.usefixtures("extensions")
@pytest.mark.parametrize("name", sorted(ROUTED))
def test_routes_are_accepted(api: Api, namespace: str, name: str) -> None:
    """The same with the Gateway API's own definitions."""
    accept(api, namespace, name)


def test_applying_again_moves_no_traffic(api: Api, namespace: str) -> None:
    """The selector of the stable Service belongs to whoever led it to a release."""
    asked = workload("cpu", namespace=namespace)
    for one in service_objects(asked):
        api.apply(one)
    selector = traffic_selector("chat", "chat-r7")
    stable = next(one for one in service_objects(asked) if one["kind"] == "Service")
    led = api.apply(stable)
    api.patch(SERVICE, "chat", {"spec": {"selector": selector}}, led["metadata"]["resourceVersion"])

    assert selector == api.apply(stable)["spec"]["selector"]


def accept(api: Api, namespace: str, name: str) -> None:
    """Let the server check all objects of a spec, and look at what it made of the RayService."""
    for one in rendered(name, namespace=namespace):
        api.apply(one, dry_run=True)
    ray_service = release_objects(workload(name, namespace=namespace))[0]

    assert edited(api.apply(ray_service, dry_run=True)) is None


@pytest.mark.parametrize("service", ["mistral", "llama-70b"])
def test_what_slipway_prints_is_what_kubectl_takes(
    kube: ControlPlane, namespace: str, tmp_path: Path, service: str
) -> None:
    """``slipway render | kubectl apply --dry-run=server -f -``, with a commit and a number and nobody to ask."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("There is no kubectl on this machine.")
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SLIPWAY_STORE__URL": "s3://models/slipway"}
    asked = ["render", service, "--ref", COMMIT, "--number", "1", "--namespace", namespace]
    slipway = [sys.executable, "-c", "from flows.cli import main; main()"]
    printed = subprocess.run([*slipway, *asked], cwd=ROOT, env=variables, capture_output=True, check=True, timeout=60)

    taken = subprocess.run(
        [kubectl, "--kubeconfig", kube.kubeconfig(ADMIN), "apply", "--dry-run=server", "-f", "-"],
        input=printed.stdout,
        env=variables,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (0, b"") == (taken.returncode, taken.stderr)
    assert 7 == taken.stdout.count(b"created (server dry run)")
