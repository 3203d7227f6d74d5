"""Retries are bounded, only for errors that may pass, and obey the other side's wish."""

import time

import pytest
import stamina

from tasks import _retry
from tasks._retry import retried
from tasks.errors import NotFound, SlipwayError, Unreachable


class Flaky:
    """Fails with the given errors, then answers; counts its calls."""

    def __init__(self, *errors: SlipwayError) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        """Fail or answer."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_transient_errors_are_tried_again() -> None:
    """Two refusals and an answer make an answer."""
    call = Flaky(Unreachable("No."), Unreachable("No."))
    with stamina.set_testing(testing=True, attempts=3):
        assert retried(call) == "answer"


def test_terminal_errors_are_not() -> None:
    """Where trying again cannot help there is one call."""
    call = Flaky(NotFound("No."))
    with pytest.raises(NotFound):
        retried(call)
    assert call.calls == 1


def test_attempts_are_bounded() -> None:
    """A server that refuses for ever is asked a few times, and its last error is the one seen."""
    call = Flaky(*(Unreachable(str(n)) for n in range(99)))
    with stamina.set_testing(testing=True, attempts=_retry.ATTEMPTS), pytest.raises(Unreachable, match="4"):
        retried(call)
    assert call.calls == _retry.ATTEMPTS


def test_retry_after_is_obeyed() -> None:
    """The wait is the one that the server named."""
    begun = time.monotonic()
    assert retried(Flaky(Unreachable("No.", retry_after=0.3))) == "answer"
    assert 0.3 <= time.monotonic() - begun < 0.5


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    """A server that wants an hour gets no second call."""
    call = Flaky(Unreachable("No.", retry_after=3600))
    with pytest.raises(Unreachable):
        retried(call)
    assert call.calls == 1
