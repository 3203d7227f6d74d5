"""What a release that waits costs the API server, by that server's own audit log."""

import time

import pytest

from tasks.records import StepName
from tests.faults.kuberay.acts import assert_promoted, await_step, end_of
from tests.faults.releases.kube_cluster import KubeCluster
from tests.faults.releases.stage import Stage
from tests.kube.audit import counted
from tests.kube.control_plane import ControlPlane

pytestmark = pytest.mark.slow

WAIT_S = 20.0
FOR_ANOTHER_ROLE = {"nodes", "configmaps"}
"""What is asked for once before a release, and belongs to the whole cluster: see ``k8s/rbac-capacity.yaml``."""


def test_a_release_that_waits_asks_little(stage: Stage, cluster: KubeCluster, kube: ControlPlane) -> None:
    """At most one request a second while its candidate starts, and never for all objects at once."""
    before, made, since = stage.record(), stage.cluster.made(), kube.audit.position()
    stage.start_slowly(WAIT_S + 5)
    run = stage.begin(stage.wanted(deadlines={"ready": 60, "request": 5}))
    await_step(stage, StepName.READY)
    stage.await_that(lambda: stage.cluster.made() > made)
    waits = kube.audit.position()
    time.sleep(WAIT_S)
    asked = kube.audit.requests(user=cluster.user, since=waits)

    assert_promoted(stage, before, end_of(run))
    assert len(asked) <= WAIT_S, counted(asked)
    whole = kube.audit.requests(user=cluster.user, since=since)
    assert [] == [request.uri for request in whole if request.unbounded]
    refused = {request.resource for request in whole if request.status in (401, 403, 500)}
    assert refused <= FOR_ANOTHER_ROLE
