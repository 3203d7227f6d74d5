"""A Xet storage server with files to read, and a Hub's side of it: enough for the real hf-xet to download.

Chunks are stored as they are, under the header that every chunk has.  A client may rely on what the real service
promises: a reconstruction names the chunks that hold the bytes asked for and links to them, links are signed and
expire, a token opens reconstructions alone, and a link refuses requests that carry a token, as S3 does.  The name of
a file is no true Merkle hash; no client computes it anew.

    with running_cas() as cas, serving(root, middleware=cas.beside(token=TOKEN)) as hub:
        ...
"""

import hashlib
import json
import os
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.fakes.asgi import serving
from tests.fakes.hubs import Faults

CHUNK = 64 * 2**10
"""Bytes of every chunk but a file's last; the real ones vary around this size."""

HEADER = struct.Struct("<I I")
"""Version and stored length, compression and length; a byte and three bytes each."""


def xet_hash(sha256: str) -> str:
    """Return the name, in Xet storage, of the file with this sha256."""
    return hashlib.blake2s(sha256.encode()).hexdigest()


@dataclass
class Cas:
    """What the server holds and grants; ``files`` by name, ``granted`` times of expiry by token.

    Public fields may be changed while it serves.  ``xorb_chunks`` are the chunks of one xorb, 1024 at the real
    service.
    """

    endpoint: str = ""
    xorb_chunks: int = 1024
    token_lifetime_s: float = 3600.0
    link_lifetime_s: float = 3600.0
    files: dict[str, Path] = field(default_factory=dict)
    granted: dict[str, float] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def add(self, file: Path) -> str:
        """Serve ``file`` and return its name."""
        with file.open("rb") as data:
            name = xet_hash(hashlib.file_digest(data, "sha256").hexdigest())
        self.files[name] = file
        return name

    def grant(self) -> tuple[str, int]:
        """Return a new token, and when it expires."""
        token = f"cas_canary_{len(self.granted)}"
        self.granted[token] = time.time() + self.token_lifetime_s
        return token, int(self.granted[token])

    def application(self) -> ASGIApp:
        """Return the ASGI application, faults in front."""
        routes = [
            Route("/v2/reconstructions/{name}", self._reconstruct),
            Route("/xorbs/{name}/{number:int}", self._xorb),
            Route("/v1/telemetry", lambda _request: Response(), methods=["POST"]),
        ]
        return self.faults.around(Starlette(routes=routes))

    def beside(self, *, token: str | None = None) -> Callable[[ASGIApp], ASGIApp]:
        """Return a Hub's middleware: its token route (for ``token``, or for all), and names of what is here."""

        def around(hub: ASGIApp) -> ASGIApp:
            async def answer(scope: Scope, receive: Receive, send: Send) -> None:
                if "/xet-read-token/" in scope["path"]:
                    await self._admit(Request(scope), token)(scope, receive, send)
                elif "/tree/" in scope["path"]:
                    await self._tree(hub, scope, receive, send)
                else:
                    await hub(scope, receive, self._naming(send))

            return answer

        return around

    def _admit(self, request: Request, token: str | None) -> Response:
        if token is not None and request.headers.get("authorization") != f"Bearer {token}":
            status = 403 if "authorization" in request.headers else 401
            return JSONResponse({}, status_code=status, headers={"x-error-code": "GatedRepo"})
        access, expiry = self.grant()
        return JSONResponse(
            {"casUrl": self.endpoint, "accessToken": access, "exp": expiry},
            headers={
                "x-xet-cas-url": self.endpoint,
                "x-xet-access-token": access,
                "x-xet-token-expiration": str(expiry),
            },
        )

    def _naming(self, send: Send) -> Send:
        """Name a file that is here where a Hub links to it."""

        async def named(message: Message) -> None:
            headers = dict(message.get("headers", ()))
            linked = headers.get(b"x-linked-etag", b"").decode().strip('"')
            if (name := xet_hash(linked)) in self.files:
                message = {**message, "headers": [*message["headers"], (b"x-xet-hash", name.encode())]}
            await send(message)

        return named

    async def _tree(self, hub: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Name in a Hub's listing the files that are here."""
        start: Message = {}
        body = b""

        async def keep(message: Message) -> None:
            nonlocal body
            start.update(message if message["type"] == "http.response.start" else {})
            body += message.get("body", b"")

        await hub(scope, receive, keep)
        entries = json.loads(body)
        for entry in entries if start["status"] == 200 else ():
            if "lfs" in entry and (name := xet_hash(entry["lfs"]["oid"])) in self.files:
                entry["xetHash"] = name
        body = json.dumps(entries).encode()
        kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        await send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    async def _reconstruct(self, request: Request) -> Response:
        """Say which chunks hold a range of a file, and link to them."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.granted.get(token, 0) < time.time():
            raise HTTPException(401)
        name, size = self._file(request)
        first, last = _range(request, size)
        chunk, end = first // CHUNK, last // CHUNK + 1
        terms, xorbs = [], {}
        while chunk < end:
            number, index = divmod(chunk, self.xorb_chunks)
            stop = min(self.xorb_chunks, index + end - chunk)
            chunks = {"start": index, "end": stop}
            xorb = hashlib.blake2s(f"{name}/{number}".encode()).hexdigest()
            length = min(size, (chunk + stop - index) * CHUNK) - chunk * CHUNK
            sent = {"start": index * (CHUNK + HEADER.size), "end": stop * (CHUNK + HEADER.size) - 1}
            sent["end"] = min(sent["end"], sent["start"] + length + (stop - index) * HEADER.size - 1)
            terms.append({"hash": xorb, "unpacked_length": length, "range": chunks})
            xorbs[xorb] = [{"url": self._sign(name, number), "ranges": [{"chunks": chunks, "bytes": sent}]}]
            chunk += stop - index
        return JSONResponse({"offset_into_first_range": first % CHUNK, "terms": terms, "xorbs": xorbs})

    async def _xorb(self, request: Request) -> Response:
        """Serve whole chunks of a xorb, as the signed link and the range say."""
        if "authorization" in request.headers:
            raise HTTPException(400)
        name, size = self._file(request)
        number, expires = request.path_params["number"], request.query_params.get("expires", "0")
        if float(expires) < time.time() or request.query_params.get("signature") != self._seal(name, number, expires):
            raise HTTPException(403)
        first, last = _range(request, 2**40)
        chunk = number * self.xorb_chunks + first // (CHUNK + HEADER.size)
        pieces = _stored(self.files[name], size, chunk, last + 1 - first)
        headers = {"content-length": str(last + 1 - first)}
        return StreamingResponse(pieces, status_code=206, headers=headers)

    def _file(self, request: Request) -> tuple[str, int]:
        name: str = request.path_params["name"]
        if name not in self.files:
            raise HTTPException(404)
        return name, self.files[name].stat().st_size

    def _sign(self, name: str, number: int) -> str:
        expires = str(time.time() + self.link_lifetime_s)
        query = urlencode({"expires": expires, "signature": self._seal(name, number, expires)})
        return f"{self.endpoint}/xorbs/{name}/{number}?{query}"

    def _seal(self, name: str, number: int, expires: str) -> str:
        return hashlib.blake2s(f"{name}/{number}/{expires}".encode(), key=self._key).hexdigest()


@contextmanager
def running_cas(**options: Any) -> Iterator[Cas]:
    """Serve a CAS until the block is left; ``options`` are its fields."""
    cas = Cas(**options)
    with serving(cas.application()) as (endpoint, _server):
        cas.endpoint = endpoint
        yield cas


def _range(request: Request, size: int) -> tuple[int, int]:
    """Return the first and the last byte asked for."""
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    if int(first) >= size:
        raise HTTPException(416)
    return int(first), min(int(last or size), size - 1)


async def _stored(file: Path, size: int, chunk: int, length: int) -> AsyncIterator[bytes]:
    """Yield ``length`` bytes of chunks as they are stored, from number ``chunk`` of the file on."""
    with file.open("rb") as data:
        while length > 0:
            piece = bytearray()
            for one in range(chunk, chunk + 16):
                if len(piece) < length and (body := os.pread(data.fileno(), CHUNK, one * CHUNK)):
                    piece += HEADER.pack(len(body) << 8, len(body) << 8) + body
            yield bytes(piece[:length])
            length -= len(piece)
            chunk += 16
            assert chunk * CHUNK < size + 16 * CHUNK
