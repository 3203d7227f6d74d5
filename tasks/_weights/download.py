"""The bytes of one file of a Hub, from any byte on, as the network delivers them.

huggingface_hub's download functions write a cache, compare sizes only, and cannot hand over a stream; the HTTP
library beneath it moves 64 KiB at a time through two buffers, at four times urllib3's CPU time per gigabyte.

The token is sent to the Hub's own origin alone: a redirect to another host or port is followed without it.  Every
request asks the Hub anew, because the links that it redirects to expire.  Nothing is retried here: only the reader
knows from which byte to go on.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr

from tasks._weights.hub_errors import Asker
from tasks._weights.xet import XetDownloads, open_xet
from tasks.errors import IntegrityError, TerminalError, TransientError, Unreachable

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

PIECE_BYTES = 2**20
"""The most bytes of one read: few calls, and small enough to stay in the processor's cache until they are hashed."""

SILENCE_S = 30.0
"""The longest silence within a stream of bytes."""

WATCH_S = 20.0
LEAST_BYTES_PER_S = 16 * 2**10
"""A stream that is slower than this over ``WATCH_S`` seconds has stalled: a new connection is likely to be faster.
One file at this rate would need 18 hours for a gigabyte."""

REDIRECTS = 5


class Downloads:
    """Streams from the Hub at ``endpoint``; for several threads.  ``received`` counts bytes.

    With ``xet``, files that the Hub keeps in Xet storage come from there, where hf-xet is installed; one that broke
    off there comes over plain HTTP.
    """

    def __init__(self, endpoint: str, token: SecretStr | None, asker: Asker, *, xet: bool) -> None:
        # At DEBUG it writes every URL, and the signature of a signed link opens its file to whoever reads that.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)
        self._endpoint, self._token, self._asker, self._xet = endpoint, token, asker, xet
        self._pools: dict[str | None, PoolManager] = {}
        self._storages: dict[tuple[str, str], XetDownloads | None] = {}
        self._spurned: set[str] = set()
        self._lock = Lock()
        self._asked = 0
        self.received = 0

    @property
    def requests(self) -> int:
        """Return how many requests were sent; what Xet storage is asked for beside its tokens is not counted."""
        return self._asked + sum(storage.requests for storage in tuple(self._storages.values()) if storage)

    def stream(self, model: str, commit: str, path: str, *, start: int, stop: int | None) -> Generator[bytes]:
        """Yield the bytes of a file from ``start`` up to ``stop`` (None: to its end); see ``Hub.stream``."""
        url = f"{self._endpoint}/{model}/resolve/{commit}/{quote(path)}"
        what = f"{path} of {model}"

        def storage(answer: "BaseHTTPResponse") -> XetDownloads | None:
            wanted = self._xet and stop is None and path not in self._spurned
            return self._storage(model, commit) if wanted and _is_in_xet(answer) else None

        with self._asker.translated(what), self._answer(url, commit, what, _range(start, stop), storage) as answer:
            if (kept := storage(answer)) is not None:
                headers = answer.headers
                pieces: Iterator[bytes] = kept.stream(
                    path, headers["x-xet-hash"], int(headers["x-linked-size"]), start
                )
            else:
                pieces = _from(start if answer.status == 200 else 0, _pieces(answer))  # noqa: PLR2004 - no range
            try:
                for piece in pieces:
                    self.received += len(piece)
                    yield piece
                    del piece  # before the next one is there
            except TransientError:
                self._spurned |= {path} if kept else set()
                raise

    def interrupt(self) -> None:
        """End waits that do not look whether they should, in other threads; their streams raise ``Unreachable``."""
        for storage in tuple(self._storages.values()):
            if storage:
                storage.stop()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.clear()

    def _storage(self, model: str, commit: str) -> XetDownloads | None:
        key = (model, commit)
        with self._lock:
            if key not in self._storages:
                self._storages[key] = open_xet(self._endpoint, self._token, model, commit)
            return self._storages[key]

    @contextmanager
    def _answer(
        self,
        url: str,
        commit: str,
        what: str,
        headers: dict[str, str],
        storage: "Callable[[BaseHTTPResponse], XetDownloads | None]",
    ) -> "Iterator[BaseHTTPResponse]":
        """Follow redirects to an answer that holds bytes, or names a ``storage`` that does; raises for any other."""
        for hop in range(REDIRECTS + 1):
            answer = self._ask(url, headers)
            try:
                self._judge(answer, commit, what, redirected=hop > 0)
                location = answer.get_redirect_location()
                if not location or storage(answer) is not None:
                    yield answer
                    return
                answer.drain_conn()
                url = urljoin(url, location)
            finally:
                answer.close() if answer.length_remaining else answer.drain_conn()
                answer.release_conn()
        raise TerminalError(f"The Hub redirects {what} without end.", remedy="Report it to the Hub.")

    def _judge(self, answer: "BaseHTTPResponse", commit: str, what: str, *, redirected: bool) -> None:
        if answer.headers.get("x-repo-commit", commit) != commit:
            raise IntegrityError(
                f"The Hub answered for {what} with commit {answer.headers['x-repo-commit']}.",
                remedy="Resolve the ref again.",
            )
        if answer.status == 416:  # noqa: PLR2004 - Range Not Satisfiable
            raise IntegrityError(f"{what} is shorter at the Hub than it declares.")
        if redirected and answer.status in (401, 403):
            raise Unreachable(f"The link to {what} no longer holds.", remedy="Try again.")
        if answer.status >= 400:  # noqa: PLR2004
            raise self._asker.refusal(answer.status, answer.headers, what)

    def _ask(self, url: str, headers: dict[str, str]) -> "BaseHTTPResponse":
        import urllib3  # noqa: PLC0415

        self._asked += 1
        if self._token and _origin(url) == _origin(self._endpoint):
            headers = headers | {"authorization": f"Bearer {self._token.get_secret_value()}"}
        return self._pool(url).request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=10.0, read=SILENCE_S),
        )

    def _pool(self, url: str) -> "PoolManager":
        """Return the connections for ``url``, through the proxy that the environment names for it, if any."""
        import urllib3  # noqa: PLC0415

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise urllib3.exceptions.LocationValueError(parts.scheme)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        if proxy not in self._pools:
            options = {"ssl_context": self._trust, "maxsize": 16} if parts.scheme == "https" else {"maxsize": 16}
            self._pools[proxy] = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        return self._pools[proxy]

    @cached_property
    def _trust(self) -> object:
        """Return the certificates that huggingface_hub trusts."""
        import httpx2  # noqa: PLC0415

        return httpx2.create_ssl_context()


def _pieces(answer: "BaseHTTPResponse") -> Iterator[bytes]:
    """Yield what arrives; raises ``Unreachable`` when too little does."""
    waited, received = 0.0, 0
    while True:
        begun = time.monotonic()
        piece = answer.read1(PIECE_BYTES, decode_content=False)
        waited += time.monotonic() - begun  # not the time that the reader takes, whose store may be slow
        if not piece:
            return
        received += len(piece)
        yield piece
        if waited > WATCH_S:
            if received < LEAST_BYTES_PER_S * waited:
                raise Unreachable("The Hub sends almost nothing.", remedy="Check the network, or try again later.")
            waited, received = 0.0, 0


def _is_in_xet(answer: "BaseHTTPResponse") -> bool:
    """Say whether the Hub sends its client to a file that it keeps in Xet storage."""
    known = "x-xet-hash" in answer.headers and answer.headers.get("x-linked-size", "").isdigit()
    return known and bool(answer.get_redirect_location())


def _from(skipped: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out the first bytes."""
    for piece in pieces:
        if skipped < len(piece):
            yield piece[skipped:] if skipped else piece
        skipped = max(0, skipped - len(piece))


def _range(start: int, stop: int | None) -> dict[str, str]:
    wanted = "" if stop is None else str(stop - 1)
    span = {"range": f"bytes={start}-{wanted}"} if start or stop is not None else {}
    return {"accept-encoding": "identity", **span}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
