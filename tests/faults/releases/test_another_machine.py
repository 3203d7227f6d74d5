"""A release that one machine began and another ends: all is in the store, but what clients of the first one met."""

from contextlib import closing

import pytest

from tasks._clients.receipt import Receipt
from tasks._release.journal import evidence_key
from tasks._stores.store import open_store
from tasks.records import Outcome, Progress, Verdict
from tests.faults.releases.stage import KILLED, Stage, asking

pytestmark = pytest.mark.slow

LIFETIME_S = 4.0
"""Of a lease: longer than the hole that a receipt leaves out, so that none is too short to be told."""
PROBE = {"rate": 5, "streams": 1, "stream_tokens": 10}


def receipt_of(stage: Stage, ended: Progress) -> Receipt:
    """Return what clients saw of a release, as it is stored."""
    with closing(open_store(stage.store)) as store:
        found = store.get(evidence_key(ended, "receipt.json"))
    assert found is not None
    return Receipt.from_json(found[0])


@pytest.mark.parametrize(
    ("boundary", "moving"),
    [
        pytest.param("approve:outcome", False, id="before the shift"),
        pytest.param("shift:effect", True, id="in the shift"),
        pytest.param("shift:outcome", True, id="after the shift"),
    ],
)
def test_a_release_begun_on_one_machine_is_ended_on_another(stage: Stage, boundary: str, *, moving: bool) -> None:
    """It is promoted once; its receipt tells the hole, and proves nothing only where traffic moved in it."""
    before, made = stage.record(), stage.cluster.made()
    request = stage.wanted(probe=PROBE)
    assert KILLED == stage.begin(request, crash_at=boundary, lifetime_s=LIFETIME_S).exit()
    home = stage.folder / f"home without {request.id}"

    ended = stage.carry(
        asking(request.release),
        machine="another",
        settings={"SLIPWAY_HOME": str(home)},
        lifetime_s=LIFETIME_S,
    )

    receipt = receipt_of(stage, ended)
    assert (Outcome.PROMOTED, request.release.commit) == (ended.outcome, stage.commit())
    assert (before.next_number + 1, made + 1) == (stage.record().next_number, stage.cluster.made())
    assert receipt.gaps
    assert moving is receipt.gaps[0].moving
    assert (Verdict.INCONCLUSIVE if moving else Verdict.PASS) is receipt.verdict, receipt
