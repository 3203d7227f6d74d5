"""What an answer other than success means, and how much of it is told."""

import json

import pytest

from k8s.errors import MOST_TEXT, Reason, refusal, unkept

HEADERS = {"Retry-After": "7"}


def told(message: str, **more: object) -> bytes:
    """Return an answer of an API server."""
    return json.dumps({"kind": "Status", "message": message, **more}).encode()


def test_a_long_message_is_cut() -> None:
    """An admission webhook may answer with pages; a sentence is enough."""
    error = refusal("patch pods/x in llm", 403, told("because\n" * 1000), {})

    assert str(error).startswith("The API server did not patch pods/x in llm: because because")
    assert len(str(error)) < MOST_TEXT + 60


@pytest.mark.parametrize("body", [b"<html>CANARY</html>", b'"CANARY"', b"[]", b'{"error": "CANARY"}'])
def test_what_no_api_server_says_is_not_passed_on(body: bytes) -> None:
    """A proxy in between may quote the request, with its token."""
    error = refusal("get pods/x in llm", 502, body, HEADERS)

    assert "The API server did not get pods/x in llm: HTTP status 502" == str(error)
    assert (Reason.BUSY, 502, 7.0, True) == (error.reason, error.status, error.retry_after, error.transient)


@pytest.mark.parametrize("waits", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon", ""])
def test_a_wait_that_is_no_number_of_seconds_is_none(waits: str) -> None:
    """API servers send seconds; our own pauses do for the rest."""
    assert refusal("get pods", 503, b"", {"Retry-After": waits}).retry_after is None


def test_a_status_within_a_watch_means_what_it_means_as_an_answer() -> None:
    """An expired version is the same, told before or amid the events."""
    error = unkept("watch pods in llm", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})

    assert (Reason.EXPIRED, 410) == (error.reason, error.status)
    assert str(error).endswith("watch pods in llm: too old")
