"""A whole cluster for the tests of a module."""

import os
import secrets
from collections.abc import Iterator

import pytest

from tasks.settings import StoreSettings
from tests.cluster import machine
from tests.cluster.whole import Cluster, whole_cluster
from tests.fakes.s3 import seaweed
from tests.kube.binaries import MissingProgram

WANTED = "SLIPWAY_TEST_CLUSTER"
"""The variable that asks for these tests; they need root, and what a cluster is made of."""


@pytest.fixture(scope="session")
def able() -> None:
    """Skip where no cluster can be brought up, or nobody asked for it."""
    if not os.environ.get(WANTED):
        pytest.skip(f"Needs a whole cluster: `make test-cluster` brings one up, and sets {WANTED}.")
    if why := machine.lacking():
        pytest.skip(why)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a running cluster; tests work in namespaces of their own."""
    request.getfixturevalue("able")
    try:
        with whole_cluster(tmp_path_factory.mktemp("cluster")) as running:
            yield running
    except MissingProgram as missing:
        pytest.skip(str(missing))


@pytest.fixture
def space(cluster: Cluster) -> Iterator[str]:
    """Return a namespace of this test alone, in which pods can be made; what is in it goes with it."""
    name = f"test-{secrets.token_hex(4)}"
    places = "/api/v1/namespaces"
    cluster.plane.admin.post(places, json={"metadata": {"name": name}}).raise_for_status()
    cluster.await_that(
        lambda: cluster.plane.admin.get(f"{places}/{name}/serviceaccounts/default").is_success, "no account is made"
    )
    yield name
    cluster.plane.admin.delete(f"{places}/{name}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Return the settings of a bucket in a running SeaweedFS."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings
