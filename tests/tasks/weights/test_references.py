"""What keeps a commit from being garbage: releases that may take traffic, and the pointers of refs."""

from datetime import UTC, datetime

from tasks._weights.channels import Channel
from tasks._weights.references import references
from tasks.records import ServiceRecord
from tests.fakes.commits import HUB, MODEL, on_its_way, release

A, B, C, D, E = ("a" * 40, "b" * 40, "c" * 40, "d" * 40, "e" * 40)


def test_what_may_take_traffic_is_wanted_and_nothing_else() -> None:
    """Live, previous, on its way, and what that would move back to; a release of the past is not."""
    record = ServiceRecord(
        service="chat",
        live=release(A, ref="dev"),
        previous=release(B),
        current=on_its_way(C, kept_warm=release(D)),
        past=(on_its_way(E),),
    )

    found = {one.commit: (one.ref, one.why) for one in references([record], [])}

    assert {
        A: ("dev", "live in chat"),
        B: ("main", "previous in chat"),
        C: ("main", "on its way in chat"),
        D: ("main", "what a release on its way would move back to in chat"),
    } == found


def test_a_pointer_refers_to_the_commit_it_points_to() -> None:
    """Not to the one it pointed to before; and it says which Hub and ref led there."""
    pointer = Channel(
        model=MODEL,
        ref="v1",
        commit=A,
        moved_at=datetime.now(UTC),
        source=HUB,
        bytes=0,
        manifest="",
        previous=B,
    )

    (found,) = references([], [pointer])

    assert (MODEL, A, "v1", HUB, "the ref v1 points to it") == (
        found.model,
        found.commit,
        found.ref,
        found.hub,
        found.why,
    )
