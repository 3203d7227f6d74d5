"""The double of a cluster goes the way that the real one was recorded on, well and ill."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import kube_pod_statuses, kube_statuses
from tests.fakes.kube_client import EVENT, POD, QUOTA, RAY_CLUSTER, RAY_SERVICE, SERVICE, SLICE
from tests.fakes.kuberay import KubeRay, Trouble
from tests.fakes.kuberay_hand import IMAGE, Hand, await_that, configured, manifest
from tests.fakes.ray_pods import Ending, ending
from tests.kube.control_plane import OPERATOR, ControlPlane

RECORDED = json.loads(Path(__file__).with_name("kuberay_recorded.json").read_text(encoding="utf-8"))


def told(value: Any) -> Any:
    """Return a status with words in place of times, names and addresses, as the recorded ones have them."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", json.dumps(value))
    text = re.sub(r"chat-r\d-[a-z0-9]{5}-head-[a-z0-9]{5}", "HEAD", text)
    text = re.sub(r"chat-r\d-[a-z0-9]{5}", "CLUSTER", text)
    text = re.sub(r"\b127(\.\d+){3}|10\.240\.0\.1", "IP", text)
    return json.loads(text.replace('"engine"', '"Toy"').replace("'engine'", "'Toy'"))


def distinct(values: list[Any]) -> list[Any]:
    """Return values without those that repeat the one before."""
    return [one for index, one in enumerate(values) if index == 0 or values[index - 1] != one]


def without_clusters(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status without what it says of RayClusters."""
    parts = {part: {**status[part], "rayClusterStatus": None} for part in status if part.endswith("ServiceStatus")}
    return status | parts


def test_pods_end_as_recorded() -> None:
    """Replicas stay for the drain less the shutdown timeout, and the pod for its drain or its grace period."""

    def ended(drain_s: int | None, grace_s: int, shutdown_s: float) -> Ending:
        env = [] if drain_s is None else [{"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(drain_s)}]
        pod = {"metadata": {"deletionGracePeriodSeconds": grace_s}, "spec": {"containers": [{"env": env}]}}
        return ending(pod, shutdown_s, 1.0)

    assert Ending(0, 10, 30) == ended(None, 30, 20)
    assert Ending(0, 0, 0) == ended(0, 30, 20)
    assert Ending(0, 30, 130) == ended(130, 150, 100)


def test_statuses_of_pods_are_the_recorded_ones() -> None:
    """A pod whose image cannot be pulled, and one that fits no node, say what real ones said."""
    meta = {"name": "chat-r1-abcde-head-fghij", "namespace": "default", "uid": "1", "labels": {}}
    pod = {"metadata": meta, "spec": {"containers": [{"name": "ray-head", "image": IMAGE}]}}
    recorded = RECORDED["image_pod"]
    conditions = [
        {key: value for key, value in one.items() if key != "observedGeneration"} for one in recorded["conditions"]
    ]
    made = told(kube_pod_statuses.not_pulled(pod, is_again=True))
    scheduled = RECORDED["cpu_pod"]["conditions"][0]

    assert conditions == made["conditions"]
    assert recorded["containerStatuses"] == made["containerStatuses"]
    image = RECORDED["image"]
    assert (False, image["reason"], image["message"]) == kube_statuses.head_ready(pod | {"status": made})
    unscheduled = told(kube_pod_statuses.unschedulable(kube_statuses.UNSCHEDULABLE))["conditions"][0]
    assert scheduled == unscheduled | {"observedGeneration": 1}
    cpu = RECORDED["cpu"]
    assert (False, cpu["reason"], cpu["message"]) == kube_statuses.head_ready(pod | {"status": RECORDED["cpu_pod"]})


@pytest.mark.slow
def test_a_release_goes_the_recorded_way(cluster: KubeRay, hand: Hand) -> None:
    """RayService and RayCluster go through the recorded statuses, in their order, with two generations."""
    cluster.late_s, cluster.pod_s = 1.0, 0.3
    since = hand.version(RAY_SERVICE)
    hand.release("chat-r1")
    services, clusters = hand.history(RAY_SERVICE, since), hand.history(RAY_CLUSTER, since)
    statuses = [told(one["status"]) for one in services if "status" in one]
    recorded = RECORDED["service"]
    reasons = [one["status"]["conditions"][0]["reason"] for one in clusters if "status" in one]

    assert [1, 2] == distinct([one["metadata"]["generation"] for one in services])
    assert without_clusters(recorded["created"]) == without_clusters(statuses[0])
    assert "DEPLOYING" == statuses[1]["pendingServiceStatus"]["applicationStatuses"]["app"]["status"]
    promoted = [recorded[moment] for moment in ("promoted", "one", "all")]
    assert [without_clusters(one) for one in promoted] == [without_clusters(one) for one in statuses[2:]]
    assert distinct([one["conditions"][0]["reason"] for one in RECORDED["cluster"]]) == distinct(reasons)
    assert RECORDED["cluster"][-1] == told(clusters[-1]["status"])


@pytest.mark.slow
def test_a_release_costs_little(cluster: KubeRay, hand: Hand, kube: ControlPlane) -> None:
    """A release is ready after a few dozen requests, and costs none when nothing happens."""
    began = kube.audit.position()
    hand.release("chat-r1")
    made = kube.audit.requests(user=OPERATOR, namespace=cluster.namespace, since=began)
    settled = kube.audit.position()
    hand.history(RAY_SERVICE, hand.version(RAY_SERVICE))

    assert len(made) < 70
    assert [] == kube.audit.requests(user=OPERATOR, namespace=cluster.namespace, since=settled)
    assert not [one for one in made if one.unbounded or one.status >= 500]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "recorded"),
    [(Trouble.IMAGE, RECORDED["image"]), (Trouble.CPU, RECORDED["cpu"])],
)
def test_trouble_of_pods(cluster: KubeRay, hand: Hand, trouble: Trouble, recorded: dict[str, Any]) -> None:
    """What goes wrong with pods shows in the RayCluster as recorded, never in the RayService, and may end."""
    cluster.troubles["chat-r1"] = trouble
    hand.create(RAY_SERVICE, manifest("chat-r1"))
    await_that(lambda: hand.items(RAY_CLUSTER))
    name = hand.items(RAY_CLUSTER)[0]["metadata"]["name"]
    await_that(lambda: recorded == told(hand.head_ready(name)))
    await_that(lambda: hand.items(EVENT))
    status = told((hand.get(RAY_SERVICE, "chat-r1") or {})["status"])
    del cluster.troubles["chat-r1"]

    assert without_clusters(RECORDED["service"]["created"]) == without_clusters(status)
    await_that(lambda: hand.endpoints("chat-r1") == 2)


@pytest.mark.slow
def test_a_crash_loop(cluster: KubeRay, hand: Hand) -> None:
    """A head that fails again and again is told as recorded."""
    cluster.trouble = Trouble.CRASH
    hand.create(RAY_SERVICE, manifest("chat-r1"))
    await_that(lambda: hand.items(RAY_CLUSTER))
    name = hand.items(RAY_CLUSTER)[0]["metadata"]["name"]
    words = r"containers with unready status: \[ray-head\]; ray-head: back-off \d+s restarting failed container="
    whole = rf"CrashLoopBackOff {words}ray-head pod={name}-head-.{{5}}_test-.*\(.*\)$"

    def said() -> str:
        one = hand.head_ready(name)
        return f"{one.get('reason')} {one.get('message')}"

    await_that(lambda: re.match(whole, said()))


@pytest.mark.slow
def test_a_failed_application(cluster: KubeRay, hand: Hand) -> None:
    """An application whose constructor raises is DEPLOY_FAILED for ever, in the recorded words."""
    cluster.engine = lambda _args: None
    hand.create(RAY_SERVICE, manifest("chat-r1"))

    def applications() -> dict[str, Any]:
        status: dict[str, Any] = told((hand.get(RAY_SERVICE, "chat-r1") or {}).get("status", {}))
        return dict(status.get("pendingServiceStatus", {}).get("applicationStatuses", {}))

    await_that(lambda: applications().get("app", {}).get("status") == "DEPLOY_FAILED")
    failed, recorded = applications()["app"], RECORDED["failed"]["app"]
    message = failed["serveDeploymentStatuses"]["Toy"].pop("message")
    words = recorded["serveDeploymentStatuses"]["Toy"].pop("message")

    assert recorded == failed
    assert message.startswith(words)
    assert message.endswith("RuntimeError: model load failed on purpose")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_real_quota(hand: Hand) -> None:
    """A quota is enforced by the API server's own admission, told as the operator tells it, and felt no more."""
    hand.create(QUOTA, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}})
    pod = {"metadata": {"name": "any"}, "spec": {"containers": [{"name": "any", "image": IMAGE}]}}
    await_that(lambda: not hand.would_take(POD, pod))
    hand.create(RAY_SERVICE, manifest("chat-r1"))

    def failure() -> str:
        conditions = [one for item in hand.items(RAY_CLUSTER) for one in item["status"]["conditions"]]
        return str(next((one["message"] for one in conditions if one["type"] == "ReplicaFailure"), ""))

    await_that(lambda: [item for item in hand.items(RAY_CLUSTER) if item.get("status")])
    await_that(failure)
    assert "FailedToCreateHeadPod" in {one["reason"] for one in hand.items(EVENT)}
    assert "exceeded quota: small" in failure()
    hand.delete(QUOTA, "small")
    await_that(lambda: hand.endpoints("chat-r1") == 2)
    assert "" == failure()


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [Trouble.WORKER_IMAGE, Trouble.WORKER_CRASH])
def test_trouble_of_workers(cluster: KubeRay, hand: Hand, trouble: Trouble) -> None:
    """What goes wrong with workers alone is said by their pods, while the head is ready."""
    cluster.trouble = trouble
    hand.create(RAY_SERVICE, manifest("chat-r1"))
    reason = {Trouble.WORKER_IMAGE: "ImagePullBackOff", Trouble.WORKER_CRASH: "CrashLoopBackOff"}[trouble]

    def troubled() -> list[str]:
        pods = [pod for pod in hand.items(POD) if reason in json.dumps(pod["status"])]
        return [pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods]

    await_that(lambda: troubled() == ["worker"])
    await_that(lambda: hand.endpoints("chat-r1") == 1)


@pytest.mark.slow
def test_a_worker_without_a_replica_is_never_ready(cluster: KubeRay, hand: Hand) -> None:
    """Serve's proxies are on the head and where replicas are, so two workers with one replica give two endpoints."""
    wanted = manifest("chat-r1")
    wanted["spec"]["rayClusterConfig"]["workerGroupSpecs"][0] |= {"replicas": 2, "maxReplicas": 2}
    wanted["spec"]["serveConfigV2"] = configured("chat-r1", resources={"replicas": 1})
    cluster.late_s = 0.0
    hand.create(RAY_SERVICE, wanted)
    await_that(lambda: hand.endpoints("chat-r1") == 2)
    hand.history(POD, hand.version(POD))
    pods = hand.items(POD)

    assert [2, 3] == [len([pod for pod in pods if kube_statuses.is_ready(pod)]), len(pods)]
    assert 2 == hand.endpoints("chat-r1")


@pytest.mark.slow
def test_gpus_run_out(cluster: KubeRay, hand: Hand) -> None:
    """A worker waits for a GPU until another release gives it back."""
    cluster.gpus = 1
    hand.release("chat-r1", gpus=1)
    hand.create(RAY_SERVICE, manifest("chat-r2", gpus=1))
    await_that(lambda: "Insufficient nvidia.com/gpu" in json.dumps([pod["status"] for pod in hand.items(POD)]))
    hand.delete(RAY_SERVICE, "chat-r1")

    await_that(lambda: hand.endpoints("chat-r2") == 2)


@pytest.mark.slow
def test_suspended(cluster: KubeRay, hand: Hand) -> None:
    """A suspended RayService has no pods and is not ready; resumed, it begins anew."""
    hand.release("chat-r1")
    hand.patch(RAY_SERVICE, "chat-r1", {"spec": {"suspend": True}})
    await_that(lambda: not hand.items(POD) and not cluster.releases["chat-r1"].pods)
    await_that(lambda: "SuspendComplete" in json.dumps((hand.get(RAY_SERVICE, "chat-r1") or {})["status"]))
    hand.patch(RAY_SERVICE, "chat-r1", {"spec": {"suspend": False}})

    await_that(lambda: hand.endpoints("chat-r1") == 2)


@pytest.mark.slow
def test_no_operator(cluster: KubeRay, hand: Hand) -> None:
    """Without an operator a deleted RayService stays, and its pods serve on; with one again all goes."""
    hand.release("chat-r1")
    cluster.stop_operator()
    hand.delete(RAY_SERVICE, "chat-r1")
    hand.history(POD, hand.version(POD))
    service, pods = hand.get(RAY_SERVICE, "chat-r1"), hand.items(POD)
    cluster.start_operator()
    await_that(lambda: hand.get(RAY_SERVICE, "chat-r1") is None)
    await_that(lambda: not hand.items(POD))

    assert service is not None
    assert 3 == service["metadata"]["generation"]
    assert 2 == len([pod for pod in pods if kube_statuses.is_ready(pod)])
    await_that(lambda: not [item for kind in (RAY_CLUSTER, SERVICE, SLICE) for item in hand.items(kind)])


@pytest.mark.slow
def test_lost_events_and_a_late_generation(cluster: KubeRay, hand: Hand) -> None:
    """An event that is lost is made up for later, and observedGeneration can lag while all else is Ready."""
    cluster.lose_events(RAY_SERVICE)
    cluster.lag_s["chat-r1"] = 3600
    hand.create(RAY_SERVICE, manifest("chat-r1"))
    await_that(lambda: hand.endpoints("chat-r1") == 2)
    early = hand.get(RAY_SERVICE, "chat-r1") or {}
    del cluster.lag_s["chat-r1"]
    await_that(lambda: (hand.get(RAY_SERVICE, "chat-r1") or {})["status"]["observedGeneration"] == 2)

    assert [1, "True"] == [early["status"]["observedGeneration"], early["status"]["conditions"][0]["status"]]


@pytest.mark.slow
def test_what_is_taken_in_place(cluster: KubeRay, hand: Hand) -> None:
    """A new user_config reaches the engine, with the generation; a new rayClusterConfig changes nothing."""
    hand.release("chat-r1")
    before = {pod["metadata"]["uid"] for pod in hand.items(POD)}
    change = {"serveConfigV2": configured("chat-r1", drain=True), "rayClusterConfig": {"rayVersion": "2.61.0"}}
    hand.patch(RAY_SERVICE, "chat-r1", {"spec": change})
    await_that(lambda: cluster.is_draining() == {"chat-r1": True})
    await_that(lambda: (hand.get(RAY_SERVICE, "chat-r1") or {})["status"]["observedGeneration"] == 3)

    assert before == {pod["metadata"]["uid"] for pod in hand.items(POD)}
    assert 2 == hand.endpoints("chat-r1")


@pytest.mark.slow
def test_nothing_is_left(kube: ControlPlane, namespace: str, hand: Hand) -> None:
    """Closed, the double leaves nothing that it made, and no RayService that could not be deleted."""
    with KubeRay(kube, namespace):
        hand.release("chat-r1")
    hand.delete(RAY_SERVICE, "chat-r1")

    assert [] == [one for kind in (RAY_SERVICE, RAY_CLUSTER, POD, SERVICE, SLICE) for one in hand.items(kind)]
