"""No room for a candidate beside the live release: refused in seconds, or an outage that the spec agreed to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.records import Outcome, StepName
from tests.fakes.kube_client import QUOTA
from tests.fakes.kuberay import KubeRay, Trouble
from tests.fakes.kuberay_hand import Hand
from tests.faults.kuberay.acts import assert_unharmed
from tests.faults.releases.stage import BAD, GOOD, Stage

pytestmark = pytest.mark.slow


def asking(stage: Stage, when_short: str) -> dict[str, Any]:
    """Return the section of a spec that says what to do without room."""
    return {**stage.cluster.spec["kubernetes"], "when_short": when_short}


@contextmanager
def small(stage: Stage, hand: Hand, pods: int) -> Iterator[None]:
    """Allow so many pods in the namespace; two releases have two each."""
    hand.create(QUOTA, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": str(pods)}}})
    stage.await_that(lambda: (hand.get(QUOTA, "small") or {}).get("status", {}).get("used", {}).get("pods") == "4")
    try:
        yield
    finally:
        hand.delete(QUOTA, "small")


def test_a_release_without_room_is_refused_in_seconds(stage: Stage, hand: Hand) -> None:
    """Nothing is made, not even a copy of its weights, and the reason names what is lacking."""
    before, made = stage.record(), stage.cluster.made()

    with small(stage, hand, 5):
        ended = stage.carry(stage.wanted(kubernetes=asking(stage, "refuse")))

    assert (Outcome.REFUSED, StepName.ROOM) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, "ResourceQuota small leaves 1 pods; 2 pods are needed")
    assert made == stage.cluster.made()


def test_a_release_that_finds_no_room_without_the_live_one_either_is_refused(stage: Stage, hand: Hand) -> None:
    """No outage can help, so there is none."""
    before = stage.record()

    with small(stage, hand, 3):
        ended = stage.carry(stage.wanted(kubernetes=asking(stage, "recreate")))

    assert (Outcome.REFUSED, StepName.ROOM) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, "not even without")


def test_a_live_release_makes_room_where_the_spec_agrees(stage: Stage, hand: Hand) -> None:
    """The outage is in the record, and the release is live after it."""
    before = stage.record()
    assert before.live
    stage.bad = {before.live.name, ""}

    with small(stage, hand, 5):
        ended = stage.carry(stage.wanted(kubernetes=asking(stage, "recreate")))

    assert (Outcome.PROMOTED, True) == (ended.outcome, ended.outage), ended.failure
    start = ended.step(StepName.START)
    assert start is not None
    assert f"OUTAGE since {before.live.name} was removed" in start.detail
    assert ended.release == stage.record().live
    assert Outcome.PROMOTED is stage.carry(stage.wanted()).outcome


@pytest.mark.parametrize("how", ["never starts", "talks nonsense", "talks nonsense live"])
def test_a_live_release_that_made_room_comes_back_where_the_new_one_fails(
    stage: Stage, double: KubeRay, hand: Hand, how: str
) -> None:
    """Both find no room at once, so that the failed one goes first."""
    before, name = stage.record(), stage.next_name()
    assert before.live
    stage.bad = {before.live.name, name, ""}
    if how == "never starts":
        double.troubles[name] = Trouble.FAILED
    else:
        late = how.endswith("live")
        stage.answer(lambda release: BAD if release == name and (not late or stage.is_routed(name)) else GOOD)

    with small(stage, hand, 5):
        ended = stage.carry(stage.wanted(kubernetes=asking(stage, "recreate")))

    assert ended.outage
    assert ended.outcome in (Outcome.FAILED, Outcome.REFUSED, Outcome.ROLLED_BACK)
    assert_unharmed(stage, before, ended)
    assert before.live.name == stage.live()
