"""Every wait follows from the longest generation."""

import pytest

from k8s.drains import SHUTDOWN_MARGIN_S, drains
from serve.placement import SHUTDOWN_MARGIN_S as OF_THE_PAYLOAD


@pytest.mark.parametrize("longest", [0.5, 20, 120, 3600])
def test_no_wait_ends_before_a_request_could(longest: float) -> None:
    """A request begun at the last moment that a release takes one still ends."""
    waits = drains(longest, 20)

    assert waits.graceful >= longest
    assert waits.drain >= waits.graceful + longest + 10
    assert waits.grace >= waits.drain + 15
    assert waits.hard_stop >= longest


@pytest.mark.parametrize(("bake", "keep_alive"), [(600, 90), (20, 19), (0.5, 1)])
def test_idle_connections_end_before_the_bake_does(bake: float, keep_alive: int) -> None:
    """When the release before is removed, no client holds a connection that it has not used for long."""
    assert keep_alive == drains(120, bake).keep_alive


def test_the_payload_waits_as_long_as_is_reckoned_with() -> None:
    """Both sides know the engine's own end."""
    assert OF_THE_PAYLOAD == SHUTDOWN_MARGIN_S
