"""Candidates that Kubernetes cannot bring up: our deadline or hopelessness ends them, and the reason is the cause."""

import time

import pytest

from tasks.records import Outcome, StepName
from tests.fakes.kube_client import RAY_SERVICE
from tests.fakes.kuberay import KubeRay, Trouble
from tests.fakes.kuberay_hand import Hand
from tests.faults.kuberay.acts import assert_promoted, assert_unharmed
from tests.faults.releases.kube_cluster import KubeCluster
from tests.faults.releases.stage import Stage

pytestmark = pytest.mark.slow

PATIENT, IMPATIENT = {"ready": 40, "request": 5}, {"ready": 4, "request": 5}


@pytest.fixture(autouse=True)
def _no_grace(cluster: KubeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let deadlines be what a test says."""
    monkeypatch.setattr(cluster, "grace_s", 0.0)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble.IMAGE, ["image", "cannot be pulled", "registry.example/payload"]),
        (Trouble.WORKER_IMAGE, ["image", "cannot be pulled", "worker"]),
        (Trouble.CRASH, ["has crashed", "head"]),
        (Trouble.WORKER_CRASH, ["has crashed", "worker"]),
        (Trouble.FAILED, ["could not be deployed", "model load failed"]),
    ],
)
def test_a_hopeless_candidate_is_given_up_at_once(
    stage: Stage, double: KubeRay, trouble: Trouble, words: list[str]
) -> None:
    """Nobody waits for a deadline where waiting cannot help."""
    before = stage.record()
    double.troubles[stage.next_name()] = trouble

    ended = stage.carry(stage.wanted(deadlines=PATIENT))

    assert (Outcome.FAILED, StepName.READY) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, *words)
    ready = ended.step(StepName.READY)
    assert ready is not None
    assert ready.seconds < PATIENT["ready"] / 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble.CPU, ["no node has enough cpu"]),
        (Trouble.QUOTA, ["pods cannot be made", "exceeded quota"]),
        (Trouble.DEPLOYING, ["application", "DEPLOYING"]),
    ],
)
def test_a_candidate_that_may_yet_come_meets_our_deadline(
    stage: Stage, double: KubeRay, trouble: Trouble, words: list[str]
) -> None:
    """The reason names what it was waiting for."""
    before = stage.record()
    double.troubles[stage.next_name()] = trouble

    ended = stage.carry(stage.wanted(deadlines=IMPATIENT))

    assert (Outcome.FAILED, StepName.READY) == (ended.outcome, ended.failure and ended.failure.step)
    assert_unharmed(stage, before, ended, *words)


def test_a_candidate_whose_trouble_ends_is_promoted(stage: Stage, double: KubeRay) -> None:
    """A node came after a while; what was told meanwhile is no verdict."""
    before, name = stage.record(), stage.next_name()
    double.troubles[name] = Trouble.CPU
    run = stage.begin(stage.wanted(deadlines=PATIENT))
    stage.await_that(lambda: name in double.releases and double.releases[name].pods)
    time.sleep(1.0)

    del double.troubles[name]

    ended = run.ended()[0]
    assert ended is not None
    assert_promoted(stage, before, ended)


def test_a_status_about_an_older_spec_is_not_believed(stage: Stage, double: KubeRay, hand: Hand) -> None:
    """It says Ready all the while, and the candidate is not promoted before it speaks of the present spec."""
    before, name = stage.record(), stage.next_name()
    double.lag_s[name] = 3600
    run = stage.begin(stage.wanted(deadlines=PATIENT))
    stage.await_that(lambda: is_called_ready(hand, name))
    time.sleep(2.0)
    current = stage.record().current
    double.lag_s.clear()

    ended = run.ended()[0]

    assert current is not None
    assert [step.name for step in current.steps][-1] is StepName.READY
    assert ended is not None
    assert_promoted(stage, before, ended)


def test_a_status_that_stays_about_an_older_spec_is_never_believed(stage: Stage, double: KubeRay) -> None:
    """Our deadline ends it, and says what was missing."""
    before = stage.record()
    double.lag_s[stage.next_name()] = 3600

    ended = stage.carry(stage.wanted(deadlines=IMPATIENT))

    assert_unharmed(stage, before, ended, "KubeRay has not looked at it yet")


def is_called_ready(hand: Hand, name: str) -> bool:
    """Say whether the status calls the release ready, whatever spec it is about."""
    conditions = ((hand.get(RAY_SERVICE, name) or {}).get("status") or {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
