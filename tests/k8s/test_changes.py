"""What is written into a RayService after it was made."""

from datetime import timedelta

import pytest
import yaml

from k8s import names
from k8s.changes import check_same, drained, led_to
from k8s.errors import ApiError, Reason
from k8s.kinds import Object
from k8s.parts import SERVED_SINCE
from tests.k8s.matrix import workload
from tests.k8s.shown import NOW, a_release

LATER = NOW + timedelta(minutes=1)


def changed(release: Object, change: Object | None) -> Object:
    """Return the RayService with a change merged in."""
    assert change is not None
    annotations = {**release["metadata"]["annotations"], **change["metadata"]["annotations"]}
    kept = {key: value for key, value in annotations.items() if value is not None}
    metadata = {**release["metadata"], "annotations": kept}
    return {**release, "metadata": metadata, "spec": {**release["spec"], **change.get("spec", {})}}


def switch(release: Object) -> bool | None:
    """Return how the drain switch stands."""
    application = yaml.safe_load(release["spec"]["serveConfigV2"])["applications"][0]
    return application["deployments"][0]["user_config"]["drain"] if "deployments" in application else None


def test_a_release_that_is_led_to_for_the_first_time_is_only_marked() -> None:
    """Its spec stays as it is, and with it its generation."""
    assert {"metadata": {"annotations": {SERVED_SINCE: NOW.isoformat(), names.DRAINING_SINCE: None}}} == led_to(
        a_release(None), NOW
    )


def test_draining_and_back() -> None:
    """Serve has to be told of both; each is told once."""
    live = changed(a_release(None), led_to(a_release(None), NOW))
    draining = changed(live, drained(live, NOW))
    back = changed(draining, led_to(draining, LATER))

    assert [None, True, False] == [switch(one) for one in (live, draining, back)]
    assert LATER.isoformat() == back["metadata"]["annotations"][SERVED_SINCE]
    assert led_to(live, LATER) is None
    assert drained(draining, LATER) is None


def test_nobody_is_told_to_drain_on_the_way_out() -> None:
    """The pods' own end drains them."""
    release = a_release(None)
    release["metadata"]["deletionTimestamp"] = NOW.isoformat()

    assert drained(release, NOW) is None


def test_a_release_is_known_by_what_it_runs() -> None:
    """However a newer version renders its pods, and whatever somebody edited since."""
    release = a_release(None)
    release["spec"]["serveConfigV2"] = "{}"
    release["spec"]["rayClusterConfig"]["rayVersion"] = "2.50.0"

    check_same(release, workload("cpu", number=9))
    with pytest.raises(ApiError) as caught:
        check_same(release, workload("tensor", number=9))
    assert Reason.FOREIGN is caught.value.reason


def test_a_release_that_is_leaving_is_not_adopted() -> None:
    """It would be gone a moment later."""
    release = a_release(None)
    release["metadata"]["deletionTimestamp"] = NOW.isoformat()

    with pytest.raises(ApiError) as caught:
        check_same(release, workload("cpu", number=9))

    assert Reason.EXISTS is caught.value.reason
