"""Payloads: what moved is believed, everything else is left alone, and nothing is repeated of what does not fit."""

import json
from typing import Any

import pytest

from tasks._receiver.payload import Moved, read_payload
from tasks.errors import BadInput
from tests.fakes.webhooks import MODEL, body, payload, sha


def test_a_moved_ref_is_read_with_its_commit() -> None:
    """``newSha`` is what it moved to; ``headSha`` is the head of another branch and is not looked at."""
    said = read_payload(body(sha(1)))

    assert (MODEL, (Moved(ref="refs/heads/main", commit=sha(1)),)) == (said.model, said.moved)


def test_the_plain_form_may_leave_the_commit_out() -> None:
    """A registry or CI says which ref moved, and the commit if it knows it."""
    told = {"model": MODEL, "ref": "main"}

    assert (Moved(ref="main", commit=None),) == read_payload(json.dumps(told).encode()).moved
    assert (Moved(ref="main", commit=sha(2)),) == read_payload(json.dumps(told | {"commit": sha(2)}).encode()).moved


@pytest.mark.parametrize(
    "told",
    [
        payload(None),
        payload(sha(1), updatedRefs=[]),
        payload(sha(1), event={"action": "update", "scope": "repo.config"}),
        payload(sha(1), event={"action": "create", "scope": "discussion.comment"}, updatedRefs=None),
        payload(sha(1), repo={"type": "dataset", "name": MODEL}),
    ],
    ids=["deleted", "no ref", "config", "discussion", "dataset"],
)
def test_what_moves_no_ref_of_a_model_is_understood(told: dict[str, Any]) -> None:
    """The Hub tells of much that is no release; none of it is an error."""
    said = read_payload(json.dumps(told).encode())

    assert () == said.moved
    assert said.why


def test_a_narrower_scope_counts_as_the_wider_one() -> None:
    """As the Hub's documentation asks of those who read its events."""
    assert read_payload(body(sha(1), event={"action": "update", "scope": "repo.content.later"})).moved


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"model": "acme/tiny"}',
        b'{"model": "acme/tiny", "ref": "main", "force": true}',
        b'{"model": "../../etc", "ref": "main"}',
        body("abc"),
        body(sha(1), updatedRefs=None),
        body(sha(1), updatedRefs=[{"ref": "x", "newSha": sha(1)}] * 1001),
        body(sha(1), webhook={"id": "x", "version": 2}),
        body(sha(1), webhook={"id": "line\nbreak", "version": 3}),
        body(sha(1), model="one/two/three"),
    ],
)
def test_what_does_not_fit_is_refused(told: bytes) -> None:
    """Malformed JSON, a payload of another version, and one that has ``headSha`` alone are named as what they are."""
    with pytest.raises(BadInput):
        read_payload(told)


def test_a_fault_is_named_without_what_was_sent() -> None:
    """An answer or a log must not carry a caller's words."""
    with pytest.raises(BadInput) as caught:
        read_payload(b'{"model": "acme/tiny", "ref": "main", "CANARY": "CANARY"}')

    assert "CANARY" not in str(caught.value)
    assert "an unknown key" in str(caught.value)
