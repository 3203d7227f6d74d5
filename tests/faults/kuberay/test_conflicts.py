"""Somebody else writes the objects that a release changes, at the very moment that it does."""

import pytest

from tasks.records import Outcome
from tests.fakes.kube_client import RAY_SERVICE, SERVICE
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand
from tests.faults.kuberay.acts import assert_promoted, assert_unharmed, end_of, held
from tests.faults.releases.stage import Stage
from tests.kube.fault_kinds import CONFLICT, Faulty

pytestmark = pytest.mark.slow

FOREIGN = {"metadata": {"annotations": {"example.com/owner": "somebody"}, "labels": {"example.com/team": "a"}}}


@pytest.mark.parametrize("times", [1, 4])
def test_a_shift_that_meets_conflicts_reads_and_decides_again(stage: Stage, faults: Faulty, times: int) -> None:
    """Nobody meets anything of it."""
    before = stage.record()
    with held(stage, stage.wanted(), "shift:intent") as run:
        faults.add(CONFLICT, "patch", part="/services/chat?", times=times)

    ended = end_of(run)

    assert_promoted(stage, before, ended)
    assert times == len([seen for seen in faults.asked("patch", part="/services/chat?") if seen.fault is CONFLICT])


@pytest.mark.parametrize("part", ["/services/chat?", "/rayservices/"])
def test_a_shift_that_always_meets_conflicts_is_given_up(stage: Stage, faults: Faulty, part: str) -> None:
    """The release ends, with who is in the way, and the one before is live all along."""
    before = stage.record()
    with held(stage, stage.wanted(), "shift:intent") as run:
        faults.add(CONFLICT, "patch", part=part, times=None)

    ended = end_of(run)

    assert ended.outcome in (Outcome.REFUSED, Outcome.FAILED)
    assert_unharmed(stage, before, ended, "chat")


def test_what_somebody_else_wrote_stays(stage: Stage, double: KubeRay, hand: Hand) -> None:
    """Others write the live address and the live release again and again, and find their words as they left them."""
    before = stage.record()
    assert before.live
    for kind, name in ((SERVICE, "chat"), (RAY_SERVICE, before.live.name)):
        hand.patch(kind, name, FOREIGN)

    with double.bumping(SERVICE, "chat"), double.bumping(RAY_SERVICE, before.live.name):
        ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)
    for kind, name in ((SERVICE, "chat"), (RAY_SERVICE, before.live.name)):
        kept = (hand.get(kind, name) or {})["metadata"]
        assert "somebody" == kept["annotations"]["example.com/owner"]
        assert kept["annotations"]["fakes/bump"].isdecimal()
        assert "a" == kept["labels"]["example.com/team"]
