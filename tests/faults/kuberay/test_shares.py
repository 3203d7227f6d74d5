"""Traffic that a Gateway shares by weight: as the spec says, never to a candidate that it says nothing of."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.records import Outcome, StepName
from tests.fakes.kube_client import ROUTE
from tests.fakes.kuberay import KubeRay
from tests.fakes.kuberay_hand import Hand
from tests.faults.kuberay.acts import assert_promoted, assert_unharmed
from tests.faults.releases.stage import BAD, GOOD, Stage
from tests.faults.releases.traffic import Got, flowing

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("extensions")]

SETTLE_S = 0.3
"""Seconds that a weight may take to the Gateway."""

Weights = dict[str, int]


@pytest.fixture
def gateway(stage: Stage) -> dict[str, Any]:
    """Return the sections of a spec with a Gateway; the live release is one that has it."""
    sections = {
        "kubernetes": {**stage.cluster.spec["kubernetes"], "gateway": {"name": "front"}},
        "shift": {"steps": [10, 50, 100], "pause": 4.0},
        "bake": {"seconds": 0.5, "interval": 0.2},
    }
    assert Outcome.PROMOTED is stage.carry(stage.wanted(**sections)).outcome
    return sections


class Watched:
    """The weights that the route had, each with the moments at which it was first seen and last known to be so."""

    def __init__(self, hand: Hand) -> None:
        self.seen: list[tuple[float, Weights]] = []
        self._last: list[float] = []
        self.over = threading.Event()
        self._hand = hand

    def look(self) -> None:
        """Look until it is over."""
        while not self.over.wait(0.05):
            asked = time.monotonic()
            rules = (self._hand.get(ROUTE, "chat") or {})["spec"]["rules"]
            found = next(rule for rule in rules if not any(one.get("headers") for one in rule.get("matches", [])))
            weights = {one["name"]: one.get("weight", 1) for one in found["backendRefs"]}
            if not self.seen or self.seen[-1][1] != weights:
                self.seen.append((time.monotonic(), weights))
                self._last.append(asked)
            self._last[-1] = asked

    def shares(self, got: list[Got]) -> list[tuple[Weights, Counter[str]]]:
        """Return which releases answered under each of the weights."""
        return [
            (weights, Counter(one.release for one in got if at + SETTLE_S < one.began < last))
            for (at, weights), last in zip(self.seen, self._last, strict=True)
        ]


@contextmanager
def watched(hand: Hand) -> Iterator[Watched]:
    """Look at the route's weights until the block is left."""
    watching = Watched(hand)
    thread = threading.Thread(target=watching.look, daemon=True)
    thread.start()
    try:
        yield watching
    finally:
        watching.over.set()
        thread.join()


def test_clients_at_the_gateway_meet_a_release_as_the_spec_says(
    stage: Stage, double: KubeRay, hand: Hand, gateway: dict[str, Any]
) -> None:
    """A tenth, then half, then all of them, and none of them lost."""
    before, name = stage.record(), stage.next_name()
    assert before.live
    live = before.live.name
    with flowing(double.gateway_url) as clients, watched(hand) as watching:
        ended = stage.carry(stage.wanted(**gateway))
        time.sleep(1.0)

    assert_promoted(stage, before, ended)
    assert [] == clients.lost()
    shares = watching.shares(clients.got)
    assert [{live: 100}, {live: 90, name: 10}, {live: 50, name: 50}, {name: 100}] == [one for one, _ in shares]
    first, tenth, half, whole = (met for _, met in shares)
    assert ({live}, {name}) == (set(first), set(whole))
    assert 0 < tenth[name] < tenth.total() * 0.35
    assert half.total() * 0.25 < half[name] < half.total() * 0.75


def test_a_candidate_that_fails_under_a_share_gives_it_back(
    stage: Stage, double: KubeRay, hand: Hand, gateway: dict[str, Any]
) -> None:
    """Only those met it whom its share had led there."""
    before, name = stage.record(), stage.next_name()
    assert before.live
    stage.answer(lambda release: BAD if release == name and shared(hand, name) else GOOD)
    with flowing(double.gateway_url) as clients, watched(hand) as watching:
        ended = stage.carry(stage.wanted(**gateway))

    assert ended.failure
    assert StepName.SHIFT is ended.failure.step
    assert_unharmed(stage, before, ended, "share of the traffic")
    assert [] == clients.lost()
    live = before.live.name
    assert [{live: 100}, {live: 90, name: 10}, {live: 100}] == [weights for _, weights in watching.seen]
    assert clients.releases() <= {live, name}


def shared(hand: Hand, name: str) -> bool:
    """Say whether the route leads a tenth to the release."""
    rules = ((hand.get(ROUTE, "chat") or {}).get("spec") or {}).get("rules", [])
    return any((one["name"], one.get("weight")) == (name, 10) for rule in rules for one in rule["backendRefs"])
