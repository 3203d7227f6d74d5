"""What a release is, told from recorded statuses and from what foreign hands do."""

import json
from copy import deepcopy
from typing import Any

import pytest
import yaml

from k8s import names
from k8s.changes import check_same, drained, led_to
from k8s.parts import SERVICE_OF_SLICE, Objects
from k8s.serve_config import with_drain
from k8s.state import Health, ReleaseState, release_states
from tests.k8s.matrix import workload
from tests.k8s.shown import HEAD, NAME, NOW, WORKER, a_pod, a_release, recorded, shown, used

BOTH = (HEAD, WORKER)


def state(objects: Objects) -> ReleaseState:
    """Return what is said of the one release."""
    return release_states(objects, "chat", NOW)[NAME]


@pytest.mark.parametrize(
    ("status", "ready", "expected", "message"),
    [
        ("created", (), Health.STARTING, "no application runs yet"),
        ("deploying", (), Health.STARTING, "its application app is DEPLOYING: RuntimeError: model load failed"),
        (
            "slow",
            (),
            Health.STARTING,
            "its application chat-r1 is DEPLOYING: Deployment 'engine' in application 'chat-r1' has 1 replicas that "
            "have taken more than 30s to initialize.",
        ),
        ("promoted", (), Health.STARTING, "0 of 2 pods take requests"),
        ("one-endpoint", (HEAD,), Health.STARTING, "1 of 2 pods take requests"),
        ("two-endpoints", BOTH, Health.HEALTHY, ""),
        ("deploy-failed", (), Health.FAILED, "its application app could not be deployed: RuntimeError: model load"),
    ],
)
def test_a_start_goes_the_way_that_was_recorded(
    status: str, ready: tuple[str, ...], expected: Health, message: str
) -> None:
    """A candidate is healthy at the last moment of its start, and not one status before."""
    told = state(shown(a_release(recorded(status)), ready=ready))

    assert expected is told.health
    assert told.message.startswith(message)
    assert bool(message) == bool(told.message)


def test_endpoints_are_counted_in_the_slices_of_the_release() -> None:
    """KubeRay's own count of endpoints, two here, is of another Service and is not believed."""
    told = state(shown(a_release(recorded("two-endpoints")), ready=(HEAD,)))

    assert (Health.STARTING, "1 of 2 pods take requests") == (told.health, told.message)


def test_two_workers_do_not_stand_for_a_head() -> None:
    """Each pod that is expected has to be there itself."""
    pods = (a_pod(HEAD), a_pod(WORKER), a_pod(f"{WORKER}-2"))

    told = state(shown(a_release(recorded("two-endpoints")), pods=pods, ready=(WORKER, f"{WORKER}-2")))

    assert Health.STARTING is told.health


def test_a_status_about_an_older_spec_counts_for_nothing() -> None:
    """Ready=True is no news while the operator has not seen the present generation."""
    told = state(shown(a_release(recorded("two-endpoints"), generation=3), ready=BOTH))

    assert Health.STARTING is told.health


def test_a_condition_about_an_older_spec_counts_for_nothing() -> None:
    """The same of the one condition, when the status around it is current."""
    status = recorded("two-endpoints") | {"observedGeneration": 3}

    assert Health.STARTING is state(shown(a_release(status, generation=3), ready=BOTH)).health


@pytest.mark.parametrize(
    ("spec", "workers", "expected"),
    [
        ("two_nodes", 1, Health.STARTING),
        ("two_nodes", 2, Health.HEALTHY),
        ("scaled", 2, Health.HEALTHY),
        ("pipeline", 1, Health.HEALTHY),
    ],
)
def test_as_many_pods_are_expected_as_take_requests(spec: str, workers: int, expected: Health) -> None:
    """One for each replica and the head: with autoscaling the fewest, and of a pipeline its first stage."""
    pods = (a_pod(HEAD), *(a_pod(f"{WORKER}-{number}") for number in range(workers)))
    ready = tuple(pod["metadata"]["name"] for pod in pods)

    told = state(shown(a_release(recorded("two-endpoints"), spec), pods=pods, ready=ready))

    assert expected is told.health


def test_a_live_release_that_loses_a_pod_for_a_moment_is_healthy_and_says_so() -> None:
    """A probe that fails once must not move traffic."""
    told = state(shown(a_release(recorded("two-endpoints"), marks=used()), ready=(HEAD,), live=NAME))

    assert ReleaseState(Health.HEALTHY, live=True, share=100, message="1 of 2 pods take requests") == told


def test_a_release_whose_head_is_late_to_answer_a_probe_is_not_done_for() -> None:
    """KubeRay asks no dashboard then and forgets the applications: a live one goes on, a candidate is waited for."""
    status = recorded("head-not-ready")

    live = state(shown(a_release(status, marks=used()), ready=(WORKER,), live=NAME))
    candidate = state(shown(a_release(status), ready=(WORKER,)))

    assert (Health.HEALTHY, "no application runs yet") == (live.health, live.message)
    assert (Health.STARTING, "no application runs yet") == (candidate.health, candidate.message)


def test_a_live_release_whose_own_address_was_deleted_is_healthy() -> None:
    """Clients reach it by the live address, whose endpoints count as well."""
    objects = shown(a_release(recorded("two-endpoints"), marks=used()), ready=BOTH, live=NAME)
    for piece in objects.slices:
        piece["metadata"]["labels"][SERVICE_OF_SLICE] = "chat"

    assert ReleaseState(Health.HEALTHY, live=True, share=100) == state(objects)


def test_a_live_release_without_any_pod_is_waited_for() -> None:
    """After an outage of the API server all endpoints are gone for seconds; that is no failure of the release."""
    told = state(shown(a_release(recorded("two-endpoints"), marks=used()), live=NAME))

    assert (Health.STARTING, True) == (told.health, told.live)


def test_a_restored_release_is_not_healthy_before_it_is_complete() -> None:
    """The live address may lead to a release that is started anew; it is a candidate like any other."""
    told = state(shown(a_release(recorded("one-endpoint")), ready=(HEAD,), live=NAME))

    assert (Health.STARTING, True) == (told.health, told.live)


def test_a_release_that_drains_while_the_operator_is_down_can_take_traffic_back() -> None:
    """Its status is about the spec before the drain switch, and its pods answer."""
    marks = {**used(), names.DRAINING_SINCE: "2026-11-21T03:59:20+00:00"}

    told = state(shown(a_release(recorded("two-endpoints"), generation=3, marks=marks), ready=BOTH))

    assert (Health.HEALTHY, True) == (told.health, told.draining)
    assert "operator does not act" in told.message


def edit(release: Any, place: str) -> None:
    """Change the release as a foreign hand would."""
    cluster = release["spec"]["rayClusterConfig"]
    match place:
        case "serveConfigV2":
            config = yaml.safe_load(release["spec"]["serveConfigV2"])
            config["applications"][0]["args"]["weights"] = "s3://other/" + "f" * 40
            release["spec"]["serveConfigV2"] = yaml.safe_dump(config)
        case "rayClusterConfig.workerGroupSpecs[0].replicas":
            cluster["workerGroupSpecs"][0]["replicas"] = 3
        case "rayClusterConfig.headGroupSpec.template.spec.containers[0].image":
            cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
        case _:
            del release["metadata"]["annotations"][names.RENDERED]


EDITS = (
    "serveConfigV2",
    "rayClusterConfig.workerGroupSpecs[0].replicas",
    "rayClusterConfig.headGroupSpec.template.spec.containers[0].image",
    f"metadata.annotations[{names.RENDERED}]",
)


@pytest.mark.parametrize("place", EDITS)
def test_a_candidate_that_was_edited_has_failed(place: str) -> None:
    """What was judged would not be what is released."""
    release = a_release(recorded("two-endpoints"))
    edit(release, place)

    told = state(shown(release, ready=BOTH))

    assert Health.FAILED is told.health
    assert f"({place})" in told.message


NONSENSE = ("", "{", "[]", "5", "applications: 5", "applications: [5]", "applications: [{args: 5, deployments: 7}]")


@pytest.mark.parametrize("config", NONSENSE)
def test_nonsense_is_an_edit_like_any_other(config: str) -> None:
    """A foreign hand may write anything; looking at it, and moving traffic to or from it, must go on."""
    release = a_release(recorded("two-endpoints"))
    release["spec"]["serveConfigV2"] = config
    other = a_release(recorded("two-endpoints"))
    other["metadata"]["annotations"][names.RENDERED] = json.dumps({"serveConfigV2": config})

    assert [Health.FAILED] * 2 == [state(shown(one, ready=BOTH)).health for one in (release, other)]
    assert led_to(release, NOW)
    assert drained(release, NOW)
    check_same(release, workload("cpu", number=9))
    check_same(other, workload("cpu", number=9))


def test_a_live_release_that_was_edited_is_left_alone_and_says_so() -> None:
    """There may be nothing better to lead to; that it is not what was released is said."""
    release = a_release(recorded("two-endpoints"), marks=used())
    edit(release, EDITS[1])

    told = state(shown(release, ready=BOTH, live=NAME))

    assert (Health.HEALTHY, True) == (told.health, told.edited)
    assert EDITS[1] in told.message


@pytest.mark.parametrize("on", [True, False])
def test_the_drain_switch_is_no_edit(on: bool) -> None:
    """It is the one thing that Slipway changes."""
    release = a_release(recorded("two-endpoints"))
    release["spec"]["serveConfigV2"] = with_drain(release["spec"]["serveConfigV2"], on=on)

    assert Health.HEALTHY is state(shown(release, ready=BOTH)).health


def test_what_the_operator_writes_is_no_edit() -> None:
    """With its finalizer it adds defaults, drops what is empty, and writes quantities as Go does."""
    release = a_release(recorded("two-endpoints"), "gpu")
    cluster = deepcopy(release["spec"]["rayClusterConfig"])
    group = cluster["workerGroupSpecs"][0]
    group |= {"scaleStrategy": {}, "numOfHosts": 1}
    container = group["template"]["spec"]["containers"][0]
    container["resources"]["requests"]["memory"] = "28000M"
    release["spec"]["rayClusterConfig"] = cluster

    assert Health.HEALTHY is state(shown(release, ready=BOTH)).health


def test_a_suspended_release_has_failed_whatever_its_status_says() -> None:
    """Its pods are going; only who suspended it can tell why."""
    release = a_release(recorded("two-endpoints"), marks=used())
    release["spec"]["suspend"] = True

    told = state(shown(release, live=NAME))

    assert Health.FAILED is told.health
    assert "suspended" in told.message


def test_a_release_that_is_being_deleted_is_going() -> None:
    """Its pods may answer for minutes, and it is nobody's candidate any more."""
    release = a_release(recorded("deleting")["status"])
    release["metadata"]["deletionTimestamp"] = "2026-11-21T03:28:12Z"

    assert Health.REMOVING is state(shown(release, ready=BOTH)).health


def test_what_is_left_of_a_release_that_somebody_deleted_is_shown() -> None:
    """Its Service would stay for ever if nobody were told."""
    told = state(shown(None))

    assert Health.FAILED is told.health
    assert "deleted by somebody else" in told.message


def test_releases_of_another_service_are_not_shown() -> None:
    """One namespace holds many services."""
    assert {} == release_states(shown(a_release(recorded("two-endpoints"))), "other", NOW)
