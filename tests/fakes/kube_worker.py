"""Work that is done for whoever was poked, one at a time for each, and again after trouble."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from tests.fakes.kube_client import LONGEST_PAUSE_S, Refused

HOPELESS = (400, 415, 422)
"""What the API server answers to requests that are wrong, and stay so."""


class Worker:
    """Does ``work`` for each key that was poked, one at a time for each, and again after trouble with the API server.

    ``paused`` it only remembers what was poked.  Any other error is kept in ``failures``: it is one of the double.
    """

    def __init__(self, work: Callable[[str], Awaitable[None]], failures: list[BaseException]) -> None:
        self.paused = False
        self._work, self._failures = work, failures
        self._poked: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}

    def poke(self, key: str, after_s: float = 0.0) -> None:
        """Have the work done for ``key``, now or ``after_s`` seconds later."""
        if after_s > 0:
            asyncio.get_running_loop().call_later(after_s, self.poke, key)
            return
        self._poked.add(key)
        if key not in self._running and not self.paused:
            self._running[key] = asyncio.create_task(self._go(key))

    def resume(self) -> None:
        """Do all that was poked meanwhile."""
        self.paused = False
        for key in list(self._poked):
            self.poke(key)

    async def stop(self) -> None:
        """Do nothing any more."""
        self.paused = True
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _go(self, key: str) -> None:
        pause_s = 0.01
        try:
            while key in self._poked and not self.paused:
                self._poked.discard(key)
                try:
                    await self._work(key)
                    pause_s = 0.01
                except (Refused, httpx.TransportError) as error:
                    if isinstance(error, Refused) and error.status in HOPELESS:
                        raise
                    self._poked.add(key)
                    await asyncio.sleep(pause_s)
                    pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        except Exception as error:  # noqa: BLE001 - told when the double is closed
            self._failures.append(error)
        finally:
            del self._running[key]
