"""The bytes of files that a Hub keeps in Xet storage, through hf-xet: in order, from any byte on, and no disk.

As it comes hf-xet holds gigabytes in memory.  What it holds follows from what it asks for at once, because chunks
are joined in memory before they are handed over; here that is little, and all streams share one bound.

The Hub's token goes to the Hub alone, which grants the storage a token of its own for a while.  hf-xet's errors may
quote links, and a link's signature opens its file to whoever reads it: they are told by their kind, and dropped.
What comes is not trusted.  The reader compares its sha256; Xet's own hash merely names a file.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from pydantic import SecretStr

from tasks._weights.hub_errors import Asker
from tasks.errors import MachineError, Unreachable

FETCH_BYTES = 4_000_000
"""Asked for at once, in two requests.  Half as much costs a sixth more processor time, twice as much more than half
as much memory again."""

IN_FLIGHT_BYTES = 16_000_000
"""Of all streams together, between the network and whoever reads.  One stream holds 50 MB with it, four hold 60."""

SILENCE_S = 30.0
"""The longest silence of a connection."""

PIECE_S = 120.0
"""The longest wait for ``FETCH_BYTES``: a stream at less than 33 kB/s has stalled."""

API_TIMEOUT_S = 30.0
"""The longest wait for a token."""

SPARE_S = 60.0
"""A token is renewed so long before it expires; and used for as long at least, should the clocks differ."""

_CONFIGURATION = {
    "reconstruction.min_reconstruction_fetch_size": FETCH_BYTES,
    "reconstruction.max_reconstruction_fetch_size": FETCH_BYTES,
    "reconstruction.min_prefetch_buffer": 2 * IN_FLIGHT_BYTES,  # of links to the bytes, not of bytes
    "reconstruction.target_block_completion_time": "0s",  # otherwise far more links than can be used in time
    "reconstruction.download_buffer_size": IN_FLIGHT_BYTES,
    "reconstruction.download_buffer_perfile_size": 0,
    "reconstruction.download_buffer_limit": IN_FLIGHT_BYTES,
    "chunk_cache.size_bytes": 0,
    "client.connect_timeout": "10s",
    "client.read_timeout": f"{SILENCE_S:.0f}s",
    "client.retry_max_attempts": 1,  # to ask for a new link when one has expired; other retries are the reader's
    "client.retry_base_delay": "100ms",
    "telemetry.enabled": False,
}

T = TypeVar("T")

_NEVER = 2**62
"""When a token expires, as hf-xet is told: it is replaced here."""


@dataclass(frozen=True)
class _Grant:
    """What the Hub grants: ``token`` opens the storage at ``endpoint`` until ``until`` on the monotonic clock."""

    endpoint: str
    token: str = field(repr=False)
    until: float


def open_xet(hub_endpoint: str, token: SecretStr | None, model: str, commit: str) -> "XetDownloads | None":
    """Return what streams the Xet-backed files of ``commit``; None where hf-xet is not installed."""
    try:
        return XetDownloads(hub_endpoint, token, model, commit)
    except ImportError:
        return None


class XetDownloads:
    """Streams of files of one commit; for several threads.  ``received`` counts bytes, ``requests`` tokens."""

    def __init__(self, hub_endpoint: str, token: SecretStr | None, model: str, commit: str) -> None:
        import hf_xet  # type: ignore[import-untyped]  # noqa: PLC0415 - optional, and 14 MB

        # At DEBUG it writes the headers of answers, and one of them is the storage's token.
        logging.getLogger("httpcore2").setLevel(logging.INFO)
        self._endpoint, self._token, self._model, self._commit = hub_endpoint.rstrip("/"), token, model, commit
        self._asker = Asker(self._endpoint, has_token=token is not None)
        self._xet = hf_xet
        self._session: Any = None
        self._granted: _Grant | None = None
        self._opening, self._granting = Lock(), Lock()
        self.received = 0
        self.requests = 0

    def stream(self, path: str, xet_hash: str, size: int, start: int) -> Generator[bytes, None, None]:
        """Yield the bytes of a file of ``size`` bytes from ``start`` to its end, in pieces of some megabytes.

        Nothing is retried: only the reader knows from which byte to go on.  Closing the generator ends the download
        at once.  Raises ``Unreachable`` when the storage fails, stalls or ends early, and what the Hub's refusal of
        a token means (``AccessDenied``, ``NotFound``).
        """
        at = start
        while at < size:
            grant = self._grant()
            with self._opened(grant, path, xet_hash, at, size) as read:
                while at < size and time.monotonic() < grant.until:
                    piece = read()
                    if not piece:  # how hf-xet at times ends a stream that failed
                        raise self._failure(path, "ended early")
                    at += len(piece)
                    self.received += len(piece)
                    yield piece
                    del piece  # before the next one is there

    def stop(self) -> None:
        """End the streams under way, from any thread; who reads them gets ``Unreachable`` at once."""
        with self._opening:
            session, self._session = self._session, None
        if session is not None:
            session.sigint_abort()  # aborting a group or a stream ends no wait for bytes

    @contextmanager
    def _opened(
        self, grant: _Grant, path: str, xet_hash: str, start: int, stop: int
    ) -> Iterator[Callable[[], bytes]]:
        """Give what returns the next piece of a file from ``start`` up to ``stop``."""
        with self._opening:
            if self._session is None:
                self._session = self._xet.XetSession(self._xet.XetConfig().with_config(_CONFIGURATION))
            try:
                group = self._session.new_download_stream_group(
                    endpoint=grant.endpoint, token=grant.token, token_expiry_unix_secs=_NEVER
                )
            except OSError:  # nothing was sent yet
                raise MachineError(
                    "hf-xet cannot make its folder.",
                    remedy="Set HF_XET_CACHE to a folder that can be written, or SLIPWAY_HUB__XET=false.",
                ) from None
        file = self._xet.XetFileInfo(xet_hash, stop)
        with ThreadPoolExecutor(1, thread_name_prefix="xet") as thread:
            try:
                stream = self._wait(thread, path, partial(group.download_stream, file, start, stop))
                yield lambda: self._wait(thread, path, partial(next, stream, b""))
            finally:
                group.abort()

    def _wait(self, thread: ThreadPoolExecutor, path: str, call: Callable[[], T]) -> T:
        """Return what hf-xet returns, which waits in ``thread``: it neither hears an interrupt nor looks at a clock.

        One wait that has to end ends those of other streams as well, and they are taken up again like any other.
        """
        try:
            job = thread.submit(call)
            error = job.exception(PIECE_S)
        except BaseException as ended:  # a person's interrupt, at any moment since it began, or nothing came in time
            self.stop()
            if not isinstance(ended, TimeoutError):
                raise
            error = ended
        if error is None:
            return job.result()
        raise self._failure(path, type(error).__name__)

    def _failure(self, path: str, why: str) -> Unreachable:
        """Return the error to raise; the grant, which may be the reason, is not used again."""
        self._granted = None
        return Unreachable(f"Xet storage fails at {path} ({why}).", remedy="Try again later.")

    def _grant(self) -> _Grant:
        """Return a grant that holds for a while, asking the Hub if there is none."""
        with self._granting:
            if self._granted is None or self._granted.until < time.monotonic():
                self._granted = self._ask()
            return self._granted

    def _ask(self) -> _Grant:
        from huggingface_hub import get_session, hf_raise_for_status  # noqa: PLC0415 - slow

        url = f"{self._endpoint}/api/models/{self._model}/xet-read-token/{self._commit}"
        headers = {"authorization": f"Bearer {self._token.get_secret_value()}"} if self._token else {}
        self.requests += 1
        with self._asker.translated(f"{self._model}@{self._commit}"):
            answer = get_session().get(url, headers=headers, timeout=API_TIMEOUT_S)
            hf_raise_for_status(answer)
        try:
            lifetime = int(answer.headers["x-xet-token-expiration"]) - time.time()
            return _Grant(
                endpoint=answer.headers["x-xet-cas-url"],
                token=answer.headers["x-xet-access-token"],
                until=time.monotonic() + max(lifetime - SPARE_S, SPARE_S),
            )
        except (KeyError, ValueError):
            raise Unreachable(f"The Hub at {self._endpoint} grants no access to Xet storage.") from None
