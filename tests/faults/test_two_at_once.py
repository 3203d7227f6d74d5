"""Several mirrors of one commit at once: one does the work, and no order of events lets wrong bytes be published."""

import json
import os
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import stamina

from tasks._weights import claims
from tasks._weights.mirror import Mirrored
from tasks.errors import Conflict, SlipwayError, Unreachable
from tests.faults.processes import DEADLINE_S, await_while, mirroring
from tests.faults.road import SHARD, SMALLER, Road, assert_sound

pytestmark = pytest.mark.slow


def test_two_processes_cost_one(road: Road) -> None:
    """Both end well and name one manifest; each byte left the Hub once, and was written once."""
    commit = road.publish()
    road.hub.faults.stalls[f"{road.link(SHARD)} whole"] = deque([1_000_000])
    with mirroring(road) as first:
        await_while(first, lambda: road.fetched(SHARD))
        with mirroring(road) as second:
            await_while(second, lambda: len(road.s3.asked("GET", "/mirroring/")) > 3)
            road.hub.faults.drop()
            done = [json.loads(process.communicate(timeout=DEADLINE_S)[0]) for process in (first, second)]
            assert [first.returncode, second.returncode] == [0, 0]

    assert done[0]["manifest"] == done[1]["manifest"]
    assert [one["commit"] for one in done] == [commit, commit]
    assert [one["from_hub"] > 0 for one in done] == [True, False]
    assert road.fetched(SMALLER) == [""]
    assert len(road.s3.asked("PUT", SMALLER)) == 1
    assert_sound(road, published=commit)


def test_two_that_do_not_know_of_each_other_publish_right_bytes(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where no claim holds, as between machines whose clocks differ: one manifest, over the right bytes."""
    monkeypatch.setattr(claims, "LIFETIME_S", -1.0)
    commit = road.publish()

    def attempt(_: int) -> Mirrored | SlipwayError:
        try:
            return road.mirror(commit)
        except (Conflict, Unreachable) as error:
            return error

    with stamina.set_testing(testing=True, attempts=3), ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, range(3)))
        manifests = {one.manifest.to_json() for one in outcomes if isinstance(one, Mirrored)}
        assert len(manifests) <= 1
        manifests.add(road.mirror(commit).manifest.to_json())

    assert len(manifests) == 1
    assert_sound(road, published=commit)


def test_a_mirror_that_was_stopped_wakes_to_a_lost_claim(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for dead and another finished: it ends with a sentence, and harms nothing."""
    monkeypatch.setattr(claims, "LIFETIME_S", 0.5)
    commit = road.publish()
    road.hub.faults.stalls[f"{road.link(SHARD)} whole"] = deque([3_000_000])
    with mirroring(road) as stopped:
        await_while(stopped, lambda: b'"entry": {' in road.claim(commit))
        os.killpg(stopped.pid, signal.SIGSTOP)
        try:
            road.mirror(commit)
            assert_sound(road, published=commit)
        finally:
            os.killpg(stopped.pid, signal.SIGCONT)
        road.hub.faults.drop()
        _, told = stopped.communicate(timeout=DEADLINE_S)

    assert stopped.returncode in (0, 7), told
    assert "Traceback" not in told
    assert_sound(road, published=commit)
