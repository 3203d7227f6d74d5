"""Watches that break in every way there is, for a whole release: it comes to the same end, at a bounded cost."""

import pytest

from tests.faults.kuberay.acts import assert_promoted
from tests.faults.releases.kube_cluster import KubeCluster
from tests.faults.releases.stage import Stage
from tests.kube.fault_kinds import (
    EXPIRED,
    Answer,
    Duplicated,
    End,
    Fault,
    Faulty,
    Gone,
    OnlyBookmarks,
    Reordered,
    Silence,
)

pytestmark = pytest.mark.slow

KINDS = ("rayservices", "rayclusters", "pods", "services", "endpointslices")
MOST = 24
"""Lists and watches of one kind in any minute: what ``k8s.reflector`` promises while they fail."""


@pytest.mark.parametrize(
    "fault",
    [
        Gone(after=2),
        EXPIRED,
        Answer(503, "ServiceUnavailable"),
        End(after=1, clean=False),
        OnlyBookmarks(1.0),
        Duplicated(),
    ],
    ids=repr,
)
def test_a_release_whose_watches_all_break_is_promoted(stage: Stage, faults: Faulty, fault: Fault) -> None:
    """What lists show is enough."""
    before = stage.record()
    faults.add(fault, "watch", times=None)

    ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)
    assert [] == [kind for kind in KINDS if most_in_a_minute(faults, kind) > MOST]


@pytest.mark.parametrize(("fault", "times"), [(Silence(after=1), len(KINDS)), (Reordered(), None)], ids=repr)
def test_a_release_whose_watches_keep_something_back_is_promoted(
    stage: Stage,
    cluster: KubeCluster,
    faults: Faulty,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    times: int | None,
) -> None:
    """A watch ends after its time, and then shows what it had kept back, or everything is listed."""
    before = stage.record()
    monkeypatch.setattr(cluster, "grace_s", 90.0)
    faults.add(fault, "watch", times=times)

    ended = stage.carry(stage.wanted())

    assert_promoted(stage, before, ended)


def most_in_a_minute(faults: Faulty, kind: str) -> int:
    """Return how many lists and watches of a kind there were in the worst minute."""
    at = [seen.at for seen in faults.asked("list", "watch", part=f"/{kind}?")]
    return max(sum(begin <= one < begin + 60 for one in at) for begin in at)
