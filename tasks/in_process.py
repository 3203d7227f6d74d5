"""Runs a flow's own code in this process, where no Prefect server is configured: same outcome, nothing to look at.

The record is what matters, and the code that writes it is the same.  What only Prefect shows, names of steps,
artifacts and forms, is left out; a question to a person is answered by ``slipway approve``.  The run ends with the
process: what it leaves on its way then is finished by the next one, as after any crash.
"""

from collections.abc import Callable
from contextvars import ContextVar
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

from tasks.runs import RunState

_HERE: ContextVar[str] = ContextVar("run", default="")


def here() -> str:
    """Return the id of the run that this process itself is, empty in a run of Prefect's."""
    return _HERE.get()


class OwnRun:
    """A run that has begun in a thread of this process; ``error`` is what ended it, if it did not end by itself."""

    def __init__(self, flow: Callable[[], State[Any]]) -> None:
        self.id: UUID = uuid4()
        self.error: Exception | None = None
        self._ended: State[Any] | None = None
        self._thread = Thread(target=self._run, args=[flow], name="run", daemon=True)
        self._thread.start()

    def state(self) -> RunState:
        """Return how far it is, in Prefect's words."""
        if self._thread.is_alive():
            return RunState(name="Running", message="", begun=True, final=False, good=False)
        ended = self._ended
        good = ended is not None and ended.is_completed()
        message = ended.message or "" if ended is not None else str(self.error)
        return RunState(name="Completed" if good else "Failed", message=message, begun=True, final=True, good=good)

    def _run(self, flow: Callable[[], State[Any]]) -> None:
        _HERE.set(str(self.id))
        alone = {PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}
        try:
            with temporary_settings(alone):
                self._ended = flow()
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the run
            self.error = error
