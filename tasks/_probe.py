"""The probe: clients that keep requests open against the live address for as long as a release takes.

Each client asks, reads the answer to its end, and asks again; half of them keep their connection, half take a
new one each time, because the two meet a switch differently.  There are no retries and no excluded window:
every request that was started ends as one ``Request``, those still open at ``stop`` included.

It runs in a thread with a loop of its own.  A process would keep its clock free of the controller's work, but
would outlive a killed controller and need a protocol to be steered by; instead the loop measures how late it was
(``stall_s``), so that a gap which may be the probe's own can be told from the server's.  Reading a
stream costs about 0.1 ms of CPU per event.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from tasks._answers import Answer, ask
from tasks._receipt import ProbeReport
from tasks._requests import Kind, Outcome, Request
from tasks.errors import Unreachable

POLL_S = 0.2
POLL_DEADLINE_S = 5.0
WAIT_STEP_S = 0.05
AFTER_FAILURE_S = 0.2
BEAT_S = 0.1


class Probe:
    """Clients of one address; steered from any thread, and ended by ``stop``.

    ``deadline_s`` bounds one request, ``max_tokens`` a stream, ``plain_tokens`` a plain answer: short ones on new
    connections see a switch soon, while the streams are still busy.  ``pause_s`` is the rest of a client
    between two requests.  ``options`` are further fields of each request's body.  ``prompts`` are asked in turn from
    the ``seed``-th.  ``journal`` is a file that each ended request is appended to, as one line of JSON.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        prompts: Sequence[str],
        streams: int = 4,
        plain: int = 1,
        deadline_s: float = 120.0,
        max_tokens: int = 64,
        plain_tokens: int = 4,
        temperature: float = 0.0,
        pause_s: float = 0.0,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        journal: Path | None = None,
    ) -> None:
        self._address = address.rstrip("/")
        self._prompts = tuple(prompts)
        self._body = {"model": model, "temperature": temperature, **(options or {})}
        self._tokens = {Kind.STREAM: max_tokens, Kind.PLAIN: plain_tokens}
        self._deadline_s, self._pause_s, self._seed = deadline_s, pause_s, seed
        self._wanted = {Kind.STREAM: streams, Kind.PLAIN: plain}
        self._journal_path = journal
        self._journal: IO[bytes] | None = None
        self._requests: list[Request] = []
        self._answers: dict[int, Answer] = {}
        self._next_id = self._resting = 0
        self._asked_s = self._open_s = self._stall_s = self._cpu_s = self._wall_s = 0.0
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed, self._stopped = asyncio.Event(), asyncio.Event()
        self._grace_s: float | None = None
        self._is_live = False
        self._crash: BaseException | None = None

    def start(self) -> Self:
        """Start the clients; they ask from the moment that the address first answers with a release.

        Raises ``OSError`` where the journal cannot be opened.
        """
        if self._journal_path is not None:
            self._journal = self._journal_path.open("ab", buffering=0)
        self._thread.start()
        return self

    def stop(self, grace_s: float | None = None) -> tuple[Request, ...]:
        """Start no more requests, wait for those in flight, and return all of them.

        Those in flight have their own deadline, or ``grace_s`` seconds where that is given; what has not
        ended by then is counted as lost.  Raises what ended the probe before its time, if anything did.
        """
        self._grace_s = grace_s
        self._tell(self._stopped)
        self._thread.join()
        if self._crash is not None:
            raise self._crash
        return self.requests

    def __enter__(self) -> Self:
        return self if self._thread.is_alive() else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop(None if kind is None else 0.0)

    @property
    def requests(self) -> tuple[Request, ...]:
        """Return the requests that have ended so far."""
        return tuple(self._requests)

    @property
    def report(self) -> ProbeReport:
        """Return what the probe itself did and cost; complete after ``stop``."""
        return ProbeReport(
            asked_s=round(self._asked_s, 3),
            open_s=round(self._open_s, 3),
            cpu_s=round(self._cpu_s, 3),
            wall_s=round(self._wall_s, 3),
            stall_s=round(self._stall_s, 3),
        )

    def set_streams(self, count: int, *, max_tokens: int | None = None) -> None:
        """Keep ``count`` streams open from now on; those begun later hold up to ``max_tokens`` tokens."""
        self._tokens[Kind.STREAM] = max_tokens or self._tokens[Kind.STREAM]
        self._wanted[Kind.STREAM] = count
        self._tell(self._changed)

    def set_plain(self, count: int) -> None:
        """Keep ``count`` plain requests open from now on; one that is open ends first."""
        self._wanted[Kind.PLAIN] = count
        self._tell(self._changed)

    def open_streams(self) -> int:
        """Return how many streams have had their first token and are still open."""
        return sum(a.is_open for a in list(self._answers.values()) if a.kind is Kind.STREAM)

    def wait_until_live(self, timeout_s: float) -> None:
        """Wait until the address has answered with a release; raises ``Unreachable`` after ``timeout_s``."""
        if not self._wait(lambda: self._is_live, timeout_s):
            raise Unreachable(
                f"{self._address} did not answer with a release within {timeout_s:g} s.",
                remedy="Look whether a release is live.",
            )

    def wait_until_open(self, count: int, timeout_s: float) -> None:
        """Wait until ``count`` streams are open at once; raises ``Unreachable`` after ``timeout_s``."""
        if not self._wait(lambda: self.open_streams() >= count, timeout_s):
            raise Unreachable(
                f"{self.open_streams()} of {count} streams were open after {timeout_s:g} s.",
                remedy="Ask for fewer or longer streams.",
            )

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or not self._thread.is_alive():
                return condition()
            time.sleep(WAIT_STEP_S)
        return True

    def _tell(self, event: asyncio.Event) -> None:
        """Set an event of the loop; one that has not begun or has ended finds the state itself."""
        with suppress(RuntimeError):
            if self._loop is None:
                event.set()
            else:
                self._loop.call_soon_threadsafe(event.set)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            asyncio.run(self._main())
        except BaseException as crash:  # noqa: BLE001 - raised again in the thread that stops the probe
            self._crash = crash
        finally:
            self._cpu_s, self._wall_s = time.thread_time(), time.monotonic() - began
            if self._journal is not None:
                self._journal.close()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        none = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        all_ = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)
        async with self._http(none) as new, self._http(all_) as kept:
            await self._until_live(new)
            heart = asyncio.create_task(self._beat())
            try:
                await self._supervise({False: new, True: kept})
            finally:
                heart.cancel()

    def _http(self, limits: httpx.Limits) -> httpx.AsyncClient:
        """Return a client without limits of its own: each request has one deadline."""
        return httpx.AsyncClient(timeout=None, trust_env=False, limits=limits)  # noqa: S113

    async def _until_live(self, client: httpx.AsyncClient) -> None:
        while not self._stopped.is_set():
            with suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(POLL_DEADLINE_S):
                    response = await client.get(f"{self._address}/v1/models")
                if response.is_success and "x-slipway-release" in response.headers:
                    self._is_live = True
                    return
            await asyncio.sleep(POLL_S)

    async def _beat(self) -> None:
        """Measure how late the loop is, and how much of what was asked is open."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT_S)
            passed = time.monotonic() - before
            self._stall_s = max(self._stall_s, passed - BEAT_S)
            if not self._stopped.is_set():
                asked = max(sum(self._wanted.values()) - self._resting, 0)
                self._asked_s += passed * asked
                self._open_s += passed * min(len(self._answers), asked)

    async def _supervise(self, http: Mapping[bool, httpx.AsyncClient]) -> None:
        """Run as many clients as are wanted until the stop, then see the last requests to their end."""
        clients: dict[tuple[Kind, int], asyncio.Task[None]] = {}
        stop = asyncio.create_task(self._stopped.wait())
        while not stop.done():
            self._changed.clear()
            for kind, count in self._wanted.items():
                for index in range(count):
                    if (kind, index) not in clients:
                        clients[kind, index] = asyncio.create_task(self._ask_on(http, kind, index))
            change = asyncio.create_task(self._changed.wait())
            await asyncio.wait({stop, change, *clients.values()}, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            for key in [key for key, client in clients.items() if client.done()]:
                clients.pop(key).result()
        if clients:
            _, late = await asyncio.wait(clients.values(), timeout=self._grace_s)
            for client in late:
                client.cancel()
        for ended in await asyncio.gather(*clients.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _ask_on(self, http: Mapping[bool, httpx.AsyncClient], kind: Kind, index: int) -> None:
        """Be one client: ask, read, note, again, for as long as this client is wanted."""
        keeps_alive = index % 2 == 1
        while index < self._wanted[kind] and not self._stopped.is_set():
            ended = await self._ask(http[keeps_alive], keeps_alive, kind)
            rest_s = self._pause_s if ended.outcome is Outcome.OK else max(self._pause_s, AFTER_FAILURE_S)
            if rest_s:
                self._resting += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), rest_s)
                self._resting -= 1

    async def _ask(self, http: httpx.AsyncClient, keeps_alive: bool, kind: Kind) -> Request:
        number, self._next_id = self._next_id, self._next_id + 1
        prompt = self._prompts[(self._seed + number) % len(self._prompts)]
        body = self._body | {
            "messages": [{"role": "user", "content": prompt}],
            "stream": kind is Kind.STREAM,
            "max_tokens": self._tokens[kind],
        }
        at, answer = datetime.now(UTC), Answer(kind, time.monotonic())
        self._answers[number] = answer
        try:
            await ask(http, f"{self._address}/v1/chat/completions", body, answer, self._deadline_s)
        finally:
            del self._answers[number]
            read = asdict(answer)
            read.pop("done")
            request = Request(id=number, kept_alive=keeps_alive, at=at, **read)
            self._requests.append(request)
            if self._journal is not None:
                self._journal.write(request.model_dump_json().encode() + b"\n")
        return request
