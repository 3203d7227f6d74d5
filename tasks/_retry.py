"""Retries, in one place: which errors, how often, how long, and how the other side is obeyed.

Clients retry their own requests with this and callers add nothing, so that attempts never multiply.  Only
``TransientError`` is tried again, bounded by count and by total time, with jitter so that many mirrors do not
come back at the same moment.  A server that says when to come back is believed, unless that is later than
the budget allows: then waiting would only delay the same answer.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import stamina

from tasks.errors import TransientError

T = TypeVar("T")
log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Tries of one request in all; with the waits below, about 8 seconds for a server that refuses at once."""

BUDGET_S = 120.0
"""Seconds after which no further try is started, whatever their number."""


def attempts() -> Iterable[stamina.Attempt]:
    """Yield context managers; leaving one without an error, or with a terminal one, ends the loop."""
    return stamina.retry_context(
        on=_pause, attempts=ATTEMPTS, timeout=BUDGET_S, wait_initial=0.5, wait_max=10.0, wait_jitter=1.0
    )


def retried(call: Callable[[], T]) -> T:
    """Return what ``call`` returns, calling it again while it raises ``TransientError``."""
    for attempt in attempts():
        with attempt:
            return call()
    raise AssertionError  # the last attempt has returned or raised


def _tell(details: stamina.instrumentation.RetryDetails) -> None:
    log.info("%s Trying again in %.1f s.", details.caused_by, details.wait_for)


stamina.instrumentation.set_on_retry_hooks((_tell,))  # instead of its own, which warns without a reason


def _pause(error: Exception) -> bool | float:
    """Say whether to try again, or the seconds to wait before it when the other side named them."""
    if not isinstance(error, TransientError):
        return False
    if error.retry_after is None:
        return True
    return max(error.retry_after, 0.1) if error.retry_after < BUDGET_S else False
