"""The moments at which a run may die: before each effect, after it, and after it was written down.

Whoever tests that a release survives its run names one of them in ``SLIPWAY_CRASH_AT``, and the run kills itself
there with SIGKILL, as the kernel does when memory is short: nothing is flushed, no hook runs.  The names are made of
the steps themselves, so that a new step is tested without a new test.
"""

import os
import signal
from collections.abc import Callable

from tasks.records import StepName

MOMENTS = ("intent", "effect", "outcome")
"""After the intent was written, after the effect, after the outcome was written."""
AROUND = ("asked", "leased", "opened", "ledger", "closed")
"""After the request, the lease, the opening, the ledger's entry and the end were written."""

BOUNDARIES = (*AROUND, *(f"{step.value}:{moment}" for step in StepName for moment in MOMENTS))


def boundary(crash_at: str) -> Callable[[str], None]:
    """Return what is told of every boundary, and ends the process at the one called ``crash_at``."""

    def cross(name: str) -> None:
        if name == crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return cross
