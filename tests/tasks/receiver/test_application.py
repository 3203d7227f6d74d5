"""The receiver's answers, over HTTP: what each caller is told, and that nothing is asked of Prefect for most."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.errors import NotFound, Unreachable
from tests.fakes.webhooks import MODEL, NEXT_SECRET, SECRET, Running, payload, receiving, sha

KNOWN = {"x-webhook-secret": SECRET}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    """Return a running receiver that takes two calls at once."""
    with receiving(tmp_path, calls=2) as running:
        yield running


def call(receiver: Running, told: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """Call the webhook."""
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    return httpx.post(receiver.url, content=content, headers=KNOWN if headers is None else headers, trust_env=False)


def test_a_moved_ref_starts_a_run_and_is_told_its_page(receiver: Running) -> None:
    """The answer names the service, the run and where a person can see it; again, it is the same run."""
    first, again = call(receiver, payload(sha(1))), call(receiver, payload(sha(1)))

    (run,) = first.json()["runs"]
    assert (202, "chat", True, f"http://prefect/{run['run']}") == (
        first.status_code, run["service"], run["new"], run["url"],
    )  # fmt: skip
    assert (202, [run | {"new": False}]) == (again.status_code, again.json()["runs"])


def test_ci_calls_with_a_bearer_token(receiver: Running) -> None:
    """The plain form, and the usual header of other callers."""
    answer = call(receiver, {"model": MODEL, "ref": "main"}, {"authorization": f"Bearer {NEXT_SECRET}"})

    assert 202 == answer.status_code
    assert [("chat", (None,))] == receiver.prefect.asked


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (payload(None), 200),
        (payload(sha(1), ref="refs/tags/v1"), 200),
        (payload(sha(1), ref="refs/pr/7"), 200),
        (payload(sha(1), event={"action": "create", "scope": "discussion"}), 200),
        (payload(sha(1), model="acme/unknown"), 404),
        (payload(sha(1), updatedRefs=None), 422),
        (b"{", 422),
    ],
    ids=["deleted", "tag", "pull request", "discussion", "unknown repository", "headSha only", "malformed"],
)
def test_what_concerns_no_service_is_answered_and_starts_nothing(receiver: Running, told: Any, status: int) -> None:
    """Politely where it is a usual event of the Hub's."""
    answer = call(receiver, told)

    assert status == answer.status_code
    assert [] == receiver.prefect.asked
    assert answer.json().get("ignored") or answer.json().get("error")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(Unreachable("Prefect at http://10.0.0.1 is away."), 503, "5"), (NotFound("No such ref."), 404, None)],
)
def test_what_cannot_be_asked_for_is_told(
    receiver: Running, error: Exception, status: int, retry: str | None
) -> None:
    """Prefect's absence is temporary and no address is given away; a ref that the Hub does not know is not there."""
    receiver.prefect.error = error

    answer = call(receiver, payload(sha(1)))

    assert (status, retry) == (answer.status_code, answer.headers.get("retry-after"))
    assert "10.0.0.1" not in answer.text


def test_calls_beyond_the_bound_are_told_to_come_again(receiver: Running) -> None:
    """Those in hand are served, and so is who comes again."""
    receiver.prefect.go_on.clear()
    with ThreadPoolExecutor(3) as callers:
        waiting = [callers.submit(call, receiver, payload(sha(1))) for _ in range(2)]
        while receiver.counts.page().count(b"calls_in_hand 2.0") == 0:
            pass
        third = call(receiver, payload(sha(2)))
        receiver.prefect.go_on.set()
        statuses = [one.result().status_code for one in waiting]

    assert (429, "5", [202, 202]) == (third.status_code, third.headers.get("retry-after"), statuses)
    assert 202 == call(receiver, payload(sha(2))).status_code


def test_pages_tell_how_it_is(receiver: Running) -> None:
    """Alive, ready, and counted; not ready while Prefect is away."""
    call(receiver, payload(sha(1)))
    call(receiver, payload(sha(1)), {})
    base = receiver.url.removesuffix("/webhook")
    figures = httpx.get(f"{base}/metrics").text

    assert 200 == httpx.get(f"{base}/healthz").status_code
    assert (200, True) == ((ready := httpx.get(f"{base}/readyz")).status_code, ready.json()["ready"])
    assert 'slipway_receiver_answers_total{status="401"} 1.0' in figures
    assert 'slipway_receiver_answers_total{status="202"} 1.0' in figures
    assert 'slipway_receiver_runs_started_total{service="chat"} 1.0' in figures
    receiver.prefect.trouble = "away"
    assert 503 == httpx.get(f"{base}/readyz").status_code


def test_a_broken_spec_is_named_and_calls_are_served(receiver: Running) -> None:
    """One misspelt key does not take the receiver out of service."""
    (receiver.folder / "chat.yaml").write_text("service: chat\nmodle: x/y\n")
    receiver.services.look()
    ready = httpx.get(receiver.url.replace("/webhook", "/readyz"))

    assert (200, ["chat"]) == (ready.status_code, ready.json()["broken_specs"])
    assert 202 == call(receiver, payload(sha(1))).status_code


def test_only_post_is_a_call(receiver: Running) -> None:
    """And only those who know a secret learn that."""
    assert [405, 401] == [httpx.get(receiver.url, headers=headers).status_code for headers in (KNOWN, {})]
