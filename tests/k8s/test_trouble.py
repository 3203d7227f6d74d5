"""Why a release does not come up, in one sentence."""

from datetime import timedelta
from typing import Any

import pytest

from k8s import names
from k8s.kinds import Object
from k8s.parts import Parts
from k8s.trouble import Trouble, trouble
from tests.k8s.shown import HEAD, NAME, NOW, WORKER, a_cluster, a_pod, a_release, recorded

IMAGE = "lab.local/nope:9"


def told(
    status: Object | None = None,
    *,
    cluster: Object | None = None,
    pods: tuple[Object, ...] = (),
    generation: int = 2,
    age_s: float = 10.0,
) -> Trouble | None:
    """Return the trouble of a release with those objects, ``age_s`` after it was made."""
    release = a_release(status or recorded("created"), generation=generation)
    release["metadata"]["creationTimestamp"] = (NOW - timedelta(seconds=age_s)).isoformat()
    clusters = (a_cluster(cluster),) if cluster else ()
    return trouble(Parts(NAME, release, clusters, pods), NOW)


def recorded_pods(name: str) -> tuple[Object, ...]:
    """Return the pods that were recorded, under their names."""
    return tuple(a_pod(pod["name"], pod["status"]) for pod in recorded(name))


def crashed(**last: Any) -> Object:
    """Return the status of a pod whose container has crashed three times."""
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}}
    container = {"name": "ray-worker", "restartCount": 3, "state": state, "lastState": {"terminated": last}}
    return {"phase": "Running", "containerStatuses": [container]}


def test_a_release_that_simply_starts_has_no_trouble() -> None:
    """A head whose container is being made is none: everything begins so."""
    assert told() is None


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    """The RayService's status is that of any release that starts; the pods tell."""
    found = told(cluster=recorded("image.raycluster"), pods=recorded_pods("image.pods"))

    assert found is not None
    assert found.hopeless
    assert found.sentence.startswith(f"the image {IMAGE} of the pod s1-bad-image-k924z-head-hrg45 cannot be pulled")
    assert "no such host" in found.sentence


def test_an_image_is_told_by_the_raycluster_as_well() -> None:
    """Pods may be hidden from us, or come later."""
    found = told(cluster=recorded("image.raycluster"))

    assert found is not None
    assert found.hopeless
    assert "the image of the head cannot be pulled (ImagePullBackOff" in found.sentence


def test_a_pod_that_fits_no_node_is_told_with_what_is_missing() -> None:
    """It may fit later, so the deadline decides; what preemption would do is left out."""
    found = told(cluster=recorded("cpu.raycluster"), pods=recorded_pods("cpu.pods"))

    assert (
        Trouble(
            "no node has enough cpu for the pod s2-bad-cpu-77n2f-head-sdzpr (0/1 nodes are available: 1 Insufficient "
            "cpu): add nodes, free some, or ask for less"
        )
        == found
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu.", "enough cpu, nvidia.com/gpu"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {gpu: yes}.", "no node takes the pod"),
        ("pod has unbound immediate PersistentVolumeClaims.", "unbound immediate PersistentVolumeClaims"),
    ],
)
def test_what_a_pod_lacks_is_told_in_the_schedulers_words(message: str, expected: str) -> None:
    """GPUs, taints and claims are no less common than CPUs."""
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}

    found = told(pods=(a_pod(WORKER, {"conditions": [refused]}),))

    assert found is not None
    assert expected in found.sentence


def test_a_failed_application_is_told_by_the_last_line_of_its_traceback() -> None:
    """The rest of 30 lines is Ray's own, with colours."""
    assert (
        Trouble(
            "its application app could not be deployed: RuntimeError: model load failed on purpose", hopeless=True
        )
        == told(recorded("deploy-failed"))
    )  # fmt: skip


def test_a_crash_is_told_with_how_it_ended() -> None:
    """The next restart would end the same way."""
    found = told(pods=(a_pod(WORKER, crashed(reason="Error", exitCode=2, message="a\n\x1b[31mno such weights\n")),))

    assert (
        Trouble(
            f"the container ray-worker of the pod {WORKER} has crashed 3 times, last with Error, exit status 2, "
            f"saying: no such weights: see `kubectl logs --previous {WORKER}`",
            hopeless=True,
        )
        == found
    )  # fmt: skip


def test_a_container_without_enough_memory_is_told_so() -> None:
    """The exit status alone, 137, tells nobody."""
    found = told(pods=(a_pod(WORKER, crashed(reason="OOMKilled", exitCode=137)),))

    assert found is not None
    assert "for want of memory (OOMKilled)" in found.sentence


def test_a_quota_is_told_in_the_api_servers_words() -> None:
    """It shows in the RayCluster alone: no pod is there, and the RayService says nothing."""
    message = "FailedCreateHeadPod\npods is forbidden: exceeded quota: gpus, limited: requests.nvidia.com/gpu=2"
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": message}

    found = told(cluster={"conditions": [failure]})

    assert found is not None
    assert not found.hopeless
    assert "exceeded quota: gpus" in found.sentence


def test_a_missing_secret_is_named() -> None:
    """Somebody may still make it, so the deadline decides."""
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf-token" not found'}}

    found = told(pods=(a_pod(HEAD, {"containerStatuses": [{"name": "ray-head", "state": state}]}),))

    assert found is not None
    assert not found.hopeless
    assert 'secret "hf-token" not found' in found.sentence


def test_a_lost_node_is_told() -> None:
    """KubeRay makes another pod, once Kubernetes has given this one up."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "gone"}
    pod = a_pod(WORKER, {"conditions": [target]}) | {"spec": {"nodeName": "node-7"}}

    found = told(pods=(pod,))

    assert found is not None
    assert "is lost with node-7 (DeletionByTaintManager: gone)" in found.sentence


def test_an_operator_that_says_nothing_is_told_after_half_a_minute() -> None:
    """It answers within a second, and after a restart in twenty."""
    assert told(generation=3, age_s=29) is None
    found = told(generation=3, age_s=31)
    assert found is not None
    assert found.sentence.startswith("the KubeRay operator does not act: 31 s after the last change")


def test_an_operator_that_leaves_the_drain_switch_is_told_too() -> None:
    """What counts is the last change of ours, whenever the release was made."""
    since = {names.DRAINING_SINCE: NOW.isoformat()}
    release = a_release(recorded("two-endpoints"), generation=3, marks=since)

    assert trouble(Parts(NAME, release), NOW + timedelta(seconds=20)) is None
    found = trouble(Parts(NAME, release), NOW + timedelta(seconds=40))
    assert found is not None
    assert "does not act" in found.sentence


@pytest.mark.parametrize("reason", ["ValidationFailed", "InitializingTimeout"])
def test_what_kuberay_has_given_up_is_hopeless(reason: str) -> None:
    """Nothing but a new release gets further."""
    ready = {"type": "Ready", "status": "False", "reason": reason, "message": "spec.serveConfigV2 is empty"}

    found = told({"observedGeneration": 2, "conditions": [ready]})

    assert Trouble(f"KubeRay has given it up ({reason}): spec.serveConfigV2 is empty", hopeless=True) == found


def test_a_head_that_is_not_ready_is_told_when_nothing_else_explains_it() -> None:
    """Its own words are better than none."""
    head = {
        "type": "HeadPodReady",
        "status": "False",
        "reason": "ContainersNotReady",
        "message": "unready: [ray-head]",
    }

    assert Trouble("its head is not ready: unready: [ray-head]") == told(cluster={"conditions": [head]})
