"""Faults drawn by chance, of the Hub and of the store together: never a manifest over wrong bytes.

The seed is in the test's name; the same seed orders the same faults.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator

import pytest
import stamina

from tasks._weights import claims
from tasks.errors import SlipwayError
from tests.fakes.hubs import Answer as HubAnswer
from tests.fakes.hubs import Faults
from tests.fakes.s3_faults import Answer, Damage, Delay, Fault, LoseReply, Reset, S3Faults, Shorten, Stall
from tests.faults.road import FILES, SIZES, Road, assert_never_wrong, assert_sound, sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]

ATTEMPTS = 4
FAULTS = 5
HUB_PLACES = ("/api/", "/resolve/", "/lfs/", "/lfs/ whole", "config.json", "tokenizer.json")
HUB_ANSWERS: tuple[HubAnswer, ...] = (
    (429, {"retry-after": "1"}),
    (500, {}),
    (503, {}),
    (403, {}),
    (404, {}),
    (302, {"location": "/"}),
)
STORE_PLACES = ("", "/mirroring/", "uploads", "uploadId", "partNumber", "safetensors", ".manifest.json", "list-type")

Draw = random.Random


@pytest.fixture(autouse=True)
def _few_tries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give up soon, without waits, so that faults are met at the seams of two attempts as well."""
    monkeypatch.setattr(claims, "LIFETIME_S", 0.3)
    with stamina.set_testing(testing=True, attempts=2):
        yield


def break_the_hub(draw: Draw, faults: Faults) -> None:
    """Order one fault of the Hub's."""
    where, at = draw.choice(HUB_PLACES), draw.randrange(SIZES[0])
    answer = draw.choice(HUB_ANSWERS)
    orders: list[Callable[[], object]] = [
        lambda: faults.answers.setdefault(where, deque()).append(answer),
        lambda: faults.cuts.setdefault(where, deque()).append(at),
        lambda: faults.stalls.setdefault(where, deque()).append(draw.choice([0, at])),
        lambda: faults.damage.setdefault(where, deque()).append(at),
        lambda: faults.shortened.setdefault(where, deque()).append(at),
        lambda: faults.rangeless.add(where),
    ]
    draw.choice(orders)()


def break_the_store(draw: Draw, faults: S3Faults) -> None:
    """Order one fault of the store's."""
    at = draw.randrange(1000)
    possible: list[Fault] = [
        Answer(*draw.choice([(500, "InternalError"), (503, "SlowDown"), (403, "AccessDenied"), (400, "BadDigest")])),
        Reset(request=at),
        Reset(reply=at),
        Shorten(reply=at),
        LoseReply(),
        Stall(applied=draw.random() < 0.5),
        Delay(0.1),
        Damage(request=at),
    ]
    faults.add(draw.choice(possible), "", draw.choice(STORE_PLACES), skip=draw.randrange(4))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_no_wrong_byte_is_published(road: Road, seed: int) -> None:
    """Every attempt ends with a manifest over right bytes or an error of ours, and a quiet one with the former."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    commit = road.publish()
    for _ in range(ATTEMPTS):
        for _ in range(FAULTS):
            if draw.random() < 0.5:
                break_the_hub(draw, road.hub.faults)
            else:
                break_the_store(draw, road.s3)
        try:
            road.mirror(commit)
        except SlipwayError:
            assert_never_wrong(road)
    road.s3.clear()
    road.hub.faults.clear()

    assert {file.path for file in road.mirror(commit).manifest.files} == FILES
    sweep(road)
    assert_sound(road, published=commit)
