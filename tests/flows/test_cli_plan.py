"""``slipway plan`` and the beginning of ``slipway release``, against a real Hub server and a small cluster."""

import json
from collections.abc import Iterator

import pytest

from tests.fakes.hubs import MODEL, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving
from tests.flows.command_line import Line, line

__all__ = ["line"]

pytestmark = pytest.mark.slow

SPEC = f"service: chat\nmodel: {MODEL}\n"
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]


@pytest.fixture
def place(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Return a terminal in front of a Hub with one commit, and an empty cluster."""
    (line.folder / "services" / "chat.yaml").write_text(SPEC)
    (line.folder / "services" / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    with running_hub(line.folder / "hub") as hub, serving(RayServe()) as ray:
        hub.publish(write_model(line.folder / "model"))
        assert ray.token
        known = {"HUB__ENDPOINT": hub.endpoint, "RAY__DASHBOARD": ray.dashboard, "RAY__SERVE": ray.serve}
        for variable, value in {**known, "RAY__TOKEN": ray.token.get_secret_value()}.items():
            monkeypatch.setenv(f"SLIPWAY_{variable}", value)
        yield line


def test_a_plan_shows_what_would_be_done_and_touches_nothing(place: Line) -> None:
    """The commit is named before anything is begun; the store stays empty."""
    assert 0 == place.slipway("plan", "chat", "--json"), place.out

    assert (1, MODEL) == tuple(json.loads(place.out)["release"][name] for name in ("number", "model"))
    assert [] == list(place.store.list("services"))


def test_a_plan_that_a_rule_forbids_has_the_exit_code_of_a_refusal(place: Line) -> None:
    """A machine may ask before it releases."""
    (place.folder / "services" / "chat.yaml").write_text(f"{SPEC}limits: {{total_bytes: 10}}\n")

    assert 5 == place.slipway("plan", "chat")
    assert "refused:" in place.out


def test_a_release_of_a_ref_that_is_not_there_starts_no_run(place: Line) -> None:
    """The Hub is asked before Prefect is."""
    assert 3 == place.slipway("release", "chat", "--ref", "nope")
    assert "nope" in place.err
    assert "flow run" not in place.err
