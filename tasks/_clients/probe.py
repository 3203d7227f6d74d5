"""The probe: clients that ask the live address for as long as a release takes, and write down what they met.

It runs in a thread with a loop of its own.  A process would keep its clock free of the controller's work, but
would outlive a killed controller and need a protocol to be steered by; instead the loop measures how late it was
(``stall_s``), so that a gap which may be the probe's own can be told from the server's.  Reading a
stream costs about 0.1 ms of CPU per event.  What the clients do is in ``_probe_clients``.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tasks._clients.probe_clients import Clients, Load
from tasks._clients.receipt import ProbeReport, report_of
from tasks._clients.requests import Beat, Kind, Request, open_journal
from tasks.errors import Unreachable

WAIT_STEP_S = 0.05
START_S = 5.0
"""Longest wait for the first beat, in seconds; it takes milliseconds."""


class Probe:
    """Clients of one address; steered from any thread, and ended by ``stop``.

    ``rate`` plain requests are started each second, and ``streams`` streams are held open.  ``deadline_s`` bounds one
    request, ``max_tokens`` a stream, ``plain_tokens`` a plain answer: short ones see a switch soon, while the
    streams are still busy.  ``pause_s`` is the rest of a stream's client between two.  ``options`` are further fields
    of each request's body.  Requests are numbered from ``seed`` and ask the ``prompts`` in turn from there.
    ``await_live`` lets nothing be asked until the address first answers with a release.  ``journal`` is a file that
    each ended request, and a beat each second, is appended to.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        prompts: Sequence[str],
        rate: float = 1.0,
        streams: int = 4,
        deadline_s: float = 120.0,
        max_tokens: int = 64,
        plain_tokens: int = 4,
        temperature: float = 0.0,
        pause_s: float = 0.0,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        await_live: bool = True,
        journal: Path | None = None,
    ) -> None:
        self._load = Load(
            address=address.rstrip("/"),
            body={"model": model, "temperature": temperature, **(options or {})},
            prompts=tuple(prompts),
            tokens={Kind.STREAM: max_tokens, Kind.PLAIN: plain_tokens},
            rate=rate,
            streams=streams,
            deadline_s=deadline_s,
            pause_s=pause_s,
            first_id=seed,
            await_live=await_live,
        )
        self._clients = Clients(self._load, self._keep)
        self._journal_path = journal
        self._journal: IO[bytes] | None = None
        self._requests: list[Request] = []
        self._beats: list[Beat] = []
        self._abandoned = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crash: BaseException | None = None

    def start(self) -> Self:
        """Start the clients and wait for their first beat; raises ``OSError`` where the journal cannot be opened.

        What happens from then on is seen: traffic that moves right after a run took over is not moved in a hole.
        """
        if self._journal_path is not None:
            self._journal = open_journal(self._journal_path)
        self._thread.start()
        self._begun.wait(START_S)
        return self

    def stop(self, grace_s: float | None = None) -> tuple[Request, ...]:
        """Start no more requests, wait for those in flight, and return all of them.

        Those in flight have their own deadline, or ``grace_s`` seconds where that is given; what has not
        ended by then is counted as lost.  Raises what ended the probe before its time, if anything did.
        """
        self._tell(lambda: self._clients.stop(grace_s))
        self._thread.join()
        if self._crash is not None:
            raise self._crash
        return self.requests

    def abandon(self) -> None:
        """End at once and judge nothing: what is in flight is left out, as by a kill, and is part of the hole."""
        self._abandoned = True
        self._tell(lambda: self._clients.stop(0))
        self._thread.join()

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
        return report_of(tuple(self._beats))

    def set_streams(self, count: int, *, max_tokens: int | None = None) -> None:
        """Keep ``count`` streams open from now on; those begun later hold up to ``max_tokens`` tokens."""
        self._load.tokens[Kind.STREAM] = max_tokens or self._load.tokens[Kind.STREAM]
        self._load.streams = count
        self._tell(self._clients.look_again)

    def open_streams(self) -> int:
        """Return how many streams have had their first token and are still open."""
        return self._clients.open_streams()

    def wait_until_live(self, timeout_s: float) -> None:
        """Wait until the address has answered with a release; raises ``Unreachable`` after ``timeout_s``."""
        if not self._wait(lambda: self._clients.is_live, timeout_s):
            raise Unreachable(
                f"{self._load.address} did not answer with a release within {timeout_s:g} s.",
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

    def _tell(self, what: Callable[[], None]) -> None:
        """Call ``what`` in the loop; one that has not begun or has ended finds the state itself."""
        with suppress(RuntimeError):
            if self._loop is None:
                what()
            else:
                self._loop.call_soon_threadsafe(what)

    def _keep(self, line: Request | Beat) -> None:
        if self._abandoned:
            return
        if isinstance(line, Request):
            self._requests.append(line)
        else:
            self._beats.append(line)
        if self._journal is not None:
            self._journal.write(line.model_dump_json().encode() + b"\n")
        self._begun.set()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as crash:  # noqa: BLE001 - raised again in the thread that stops the probe
            self._crash = crash
        finally:
            self._begun.set()
            if self._journal is not None:
                self._journal.close()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._clients.run()
