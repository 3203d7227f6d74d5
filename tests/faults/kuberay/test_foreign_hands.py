"""Somebody else at work in the namespace while a release is on its way: seen, named, and live no worse for it."""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.records import Outcome, StepName
from tests.fakes.kube_client import QUOTA, RAY_SERVICE, SECRET, SERVICE
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand
from tests.faults.kuberay.acts import assert_promoted, assert_unharmed, await_step, end_of, held
from tests.faults.releases.kube_cluster import KubeCluster
from tests.faults.releases.stage import Stage

pytestmark = pytest.mark.slow

Act = Callable[[Hand, str], None]
CONTAINER = {"name": "ray-worker", "image": "registry.example/other@sha256:" + "1" * 64}
LONG = {"seconds": 60, "interval": 0.5}


def delete(hand: Hand, name: str) -> None:
    """Delete the RayService."""
    hand.delete(RAY_SERVICE, name)


def suspend(hand: Hand, name: str) -> None:
    """Suspend the RayService."""
    hand.patch(RAY_SERVICE, name, {"spec": {"suspend": True}})


def other_image(hand: Hand, name: str) -> None:
    """Let the workers of the RayService have another image."""
    config = spec_of(hand, name)["rayClusterConfig"]
    for group in config["workerGroupSpecs"]:
        for container in group["template"]["spec"]["containers"]:
            container["image"] = CONTAINER["image"]
    hand.patch(RAY_SERVICE, name, {"spec": {"rayClusterConfig": config}})


def other_application(hand: Hand, name: str) -> None:
    """Let the RayService serve something else."""
    config = spec_of(hand, name)["serveConfigV2"]
    hand.patch(RAY_SERVICE, name, {"spec": {"serveConfigV2": config.replace("longest_request_s", "anything_else")}})


def spec_of(hand: Hand, name: str) -> dict[str, Any]:
    """Return the spec of a RayService."""
    found = hand.get(RAY_SERVICE, name)
    assert found is not None
    return dict(found["spec"])


ACTS: list[tuple[Act, str]] = [
    (delete, "somebody else"),
    (suspend, "suspended"),
    (other_image, "edited"),
    (other_application, "edited"),
]


@pytest.mark.parametrize(("act", "word"), ACTS)
def test_a_candidate_that_is_tampered_with_while_it_starts_is_given_up(
    stage: Stage, double: KubeRay, hand: Hand, act: Act, word: str
) -> None:
    """It is seen at the next look, and nothing is made again over a deletion."""
    before, name, made = stage.record(), stage.next_name(), stage.cluster.made()
    stage.start_slowly(1000)
    run = stage.begin(stage.wanted())
    await_step(stage, StepName.READY)
    stage.await_that(lambda: name in double.releases and double.releases[name].engine)

    act(hand, name)

    ended = end_of(run)
    assert (Outcome.FAILED, StepName.READY) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, name, word)
    assert made + 1 == stage.cluster.made()


@pytest.mark.parametrize(("act", "word"), ACTS)
def test_a_candidate_that_is_tampered_with_while_it_is_judged_is_given_up(
    stage: Stage, hand: Hand, act: Act, word: str
) -> None:
    """What was judged is not what would go live, so that it never does."""
    before, name, made = stage.record(), stage.next_name(), stage.cluster.made()
    with held(stage, stage.wanted(), "smoke:outcome") as run:
        act(hand, name)

    ended = end_of(run)
    assert Outcome.FAILED is ended.outcome
    assert_unharmed(stage, before, ended, name, word)
    assert ended.step(StepName.SHIFT) is None
    assert made + 1 == stage.cluster.made()


@pytest.mark.parametrize(("act", "word"), ACTS)
def test_a_release_that_is_tampered_with_while_it_bakes_is_rolled_back(
    stage: Stage, hand: Hand, act: Act, word: str
) -> None:
    """Its clients met what somebody did to it; the release before takes them back."""
    before, name, made = stage.record(), stage.next_name(), stage.cluster.made()
    stage.bad = {name, ""}
    run = stage.begin(stage.wanted(bake=LONG))
    await_step(stage, StepName.BAKE)

    act(hand, name)

    ended = end_of(run)
    assert (Outcome.ROLLED_BACK, StepName.BAKE) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, word)
    assert made + 1 == stage.cluster.made()


@pytest.mark.parametrize("act", [other_image, other_application])
def test_an_edited_live_release_stays_live_until_the_next_takes_its_place(stage: Stage, hand: Hand, act: Act) -> None:
    """It answers, so that nothing is done about it but the release that was asked for."""
    before = stage.record()
    assert before.live
    with held(stage, stage.wanted(), "smoke:outcome") as run:
        act(hand, before.live.name)

    assert_promoted(stage, before, end_of(run))


def test_a_deleted_live_release_is_replaced_by_the_candidate(stage: Stage, hand: Hand) -> None:
    """Clients are without one until the shift, for which nobody is to wait longer than for any release."""
    before, made = stage.record(), stage.cluster.made()
    assert before.live
    stage.bad = {before.live.name, ""}
    with held(stage, stage.wanted(), "smoke:outcome") as run:
        delete(hand, before.live.name)

    assert_promoted(stage, before, end_of(run))
    assert made + 1 == stage.cluster.made()
    assert_promoted(stage, stage.record(), stage.carry(stage.wanted()))


@pytest.mark.parametrize("to", ["the release before", "nobody"])
def test_a_live_address_that_somebody_leads_elsewhere_during_a_bake_is_led_back(
    stage: Stage, hand: Hand, to: str
) -> None:
    """The bake meets another release, or nobody, and clients meet the release before in the end."""
    before = stage.record()
    assert before.live
    stage.bad = {""}
    run = stage.begin(stage.wanted(bake=LONG))
    await_step(stage, StepName.BAKE)
    old = before.live.name if to == "the release before" else "no-such-release"

    hand.patch(SERVICE, "chat", {"spec": {"selector": {"slipway.dev/release": old}}})

    ended = end_of(run)
    assert Outcome.ROLLED_BACK is ended.outcome
    assert_unharmed(stage, before, ended)


def test_a_live_address_that_somebody_deletes_during_a_bake_is_made_again(stage: Stage, hand: Hand) -> None:
    """It leads to the release before, at an address of its own."""
    before = stage.record()
    stage.dark = True
    run = stage.begin(stage.wanted(bake=LONG))
    await_step(stage, StepName.BAKE)

    hand.delete(SERVICE, "chat")

    ended = end_of(run)
    assert Outcome.ROLLED_BACK is ended.outcome
    assert_unharmed(stage, before, ended)
    assert before.live
    stage.await_that(lambda: stage.live() == before.live.name)


def test_a_quota_that_is_used_up_amid_a_start_meets_the_deadline(
    stage: Stage, cluster: KubeCluster, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might be raised, so that it is waited for; then the reason names it."""
    before = stage.record()
    monkeypatch.setattr(cluster, "grace_s", 0.0)
    with held(stage, stage.wanted(deadlines={"ready": 4, "request": 5}), "room:outcome") as run:
        hand.create(QUOTA, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "5", "count/secrets": "0"}}})
        stage.await_that(lambda: not hand.would_take(SECRET, {"metadata": {"name": "whether-it-is-enforced"}}))
    try:
        ended = end_of(run)
    finally:
        hand.delete(QUOTA, "small")

    assert Outcome.FAILED is ended.outcome
    assert_unharmed(stage, before, ended, "exceeded quota: small")


def test_an_operator_that_is_down_while_a_candidate_is_judged_stops_nothing(stage: Stage, double: KubeRay) -> None:
    """Pods and addresses go on without it; what it has to do is done once it is back."""
    before = stage.record()
    with held(stage, stage.wanted(), "smoke:outcome") as run:
        double.stop_operator()
    try:
        await_step(stage, StepName.TIDY)
    finally:
        double.start_operator()

    assert_promoted(stage, before, end_of(run))


def test_an_operator_that_is_down_while_a_candidate_starts_meets_the_deadline(
    stage: Stage, cluster: KubeCluster, double: KubeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate is gone when it is back."""
    before = stage.record()
    monkeypatch.setattr(cluster, "grace_s", 0.0)
    double.stop_operator()
    run = stage.begin(stage.wanted(deadlines={"ready": 4, "request": 5}))
    try:
        await_step(stage, StepName.REMOVE)
    finally:
        double.start_operator()

    ended = end_of(run)
    assert Outcome.FAILED is ended.outcome
    assert_unharmed(stage, before, ended, "KubeRay")
