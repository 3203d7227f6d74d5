"""``RAY_OPERATOR=... python -m tests.cluster COMMAND``: runs a command on a whole cluster with KubeRay's operator.

The cluster is new, and gone afterwards.  On it are a namespace, Slipway's account there, the image of ``payload``,
and a bucket; the command finds all of that in the variables that ``k8s/README.md`` names, and the exit status is its
own.  ``KUBECONFIG`` is that of Slipway's account; ``SLIPWAY_CLUSTER_ADMIN`` names one that may do everything.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.settings import StoreSettings
from tests.cluster import machine, payload
from tests.cluster.node import HOST
from tests.cluster.whole import Cluster, whole_cluster
from tests.fakes.s3 import seaweed
from tests.kube import definitions
from tests.kube.account import controller, install
from tests.kube.binaries import say
from tests.kube.control_plane import ADMIN, OPERATOR

DEFINITIONS = Path(__file__).with_name("definitions")
OPERATOR_FLAGS = [
    "--enable-leader-election=false",
    "--metrics-addr=127.0.0.1:8080",
    "--health-probe-bind-address=127.0.0.1:8082",
]


@contextmanager
def stage(operator: Path) -> Iterator[dict[str, str]]:
    """Yield the variables of whoever releases onto a new cluster that the program ``operator`` acts on."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-cluster-")))
        places = {name: folder / name for name in ("cluster", "store", "services")}
        for place in places.values():
            place.mkdir()
        cluster = stack.enter_context(whole_cluster(places["cluster"]))
        store = stack.enter_context(seaweed(places["store"], HOST))
        namespace, user = _prepare(cluster, store)
        cluster.run("operator", [operator, *OPERATOR_FLAGS, f"--kubeconfig={cluster.plane.kubeconfig(OPERATOR)}"])
        service = payload.write_service(places["services"], str(store.endpoint))
        yield {
            **_of_store(store),
            "KUBECONFIG": str(cluster.plane.kubeconfig(user, namespace)),
            "SLIPWAY_CLUSTER_ADMIN": str(cluster.plane.kubeconfig(ADMIN, namespace)),
            "SLIPWAY_E2E": "1",
            "SLIPWAY_E2E_SERVICE": service,
            "SLIPWAY_KUBERNETES__NAMESPACE": namespace,
            "SLIPWAY_KUBERNETES__SERVICE_URL": "http://{cluster_ip}:8000",
            "SLIPWAY_SERVICES": str(places["services"]),
        }


def _prepare(cluster: Cluster, store: StoreSettings) -> tuple[str, str]:
    """Make what the guide's steps 1 to 5 make; return the namespace, and Slipway's user in it."""
    plane = cluster.plane
    plane.install([*definitions.kuberay(), *DEFINITIONS.iterdir()])
    cluster.load(payload.image())
    namespace = plane.create_namespace()
    user = controller(plane, namespace)
    install(plane, "rbac-capacity.yaml", namespace)
    assert store.access_key
    assert store.secret_key
    keys = {
        "AWS_ACCESS_KEY_ID": store.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": store.secret_key.get_secret_value(),
    }
    secret = {"metadata": {"name": payload.SECRET}, "stringData": keys}
    plane.admin.post(f"/api/v1/namespaces/{namespace}/secrets", json=secret).raise_for_status()
    return namespace, user


def _of_store(store: StoreSettings) -> dict[str, str]:
    assert store.access_key
    assert store.secret_key
    return {
        "SLIPWAY_STORE__URL": f"{store.url}/releases",
        "SLIPWAY_STORE__ENDPOINT": str(store.endpoint),
        "SLIPWAY_STORE__ACCESS_KEY": store.access_key.get_secret_value(),
        "SLIPWAY_STORE__SECRET_KEY": store.secret_key.get_secret_value(),
    }


def main(command: list[str]) -> int:
    """Run the command on a cluster; return its exit status."""
    if why := machine.lacking():
        say(why)
        return 9
    operator = os.environ.get("RAY_OPERATOR")
    if not operator or not command:
        say("Name KubeRay's operator, a program, in RAY_OPERATOR, and a command: python -m tests.cluster COMMAND.")
        return 2
    with stage(Path(operator)) as variables:
        return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
