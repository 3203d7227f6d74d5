"""One conversation with Prefect at a time for each service; calls that come meanwhile share the next one.

So a thousand calls at once cost two conversations, and none of them overlaps another that looks for the same run.
"""

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

import anyio

from tasks.records import Value

AT_ONCE = 4
"""Services that are talked about with Prefect at once; each takes a thread."""


class Asked(Value):
    """The run that will look for what a call told of; ``new`` when that call made it."""

    service: str
    run: UUID
    url: str
    state: str
    new: bool


Call = str | None
"""The commit that a call told of; None where it told none."""
Converse = Callable[[str, tuple[Call, ...]], Mapping[Call, Asked]]
"""Returns the run for each of several calls of one service; blocks while Prefect is asked."""


class Desk:
    """Takes calls of services to ``converse``."""

    def __init__(self, converse: Converse) -> None:
        self._converse = converse
        self._waiting: dict[str, list[tuple[Call, asyncio.Future[Asked]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def ask(self, service: str, call: Call) -> Asked:
        """Return the run for a call; raises what ``converse`` raises."""
        answer: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        if service not in self._waiting:
            self._waiting[service] = []
            task = asyncio.create_task(self._talk(service))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._waiting[service].append((call, answer))
        return await answer

    async def _talk(self, service: str) -> None:
        while batch := self._waiting[service]:
            self._waiting[service] = []
            calls = tuple(dict.fromkeys(call for call, _ in batch))
            try:
                found = await anyio.to_thread.run_sync(self._converse, service, calls, limiter=self._limiter)
            except Exception as error:  # noqa: BLE001 - each of those who wait is told
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            self._tell(batch, found)
        del self._waiting[service]

    def _tell(self, batch: list[tuple[Call, asyncio.Future[Asked]]], found: Mapping[Call, Asked]) -> None:
        """Answer everybody; of those who share a new run, the first is told that it is."""
        told: set[UUID] = set()
        for call, answer in batch:
            asked = found[call]
            if not answer.done():
                answer.set_result(asked.model_copy(update={"new": asked.new and asked.run not in told}))
            told.add(asked.run)
