"""The second host: bytes of large files for whoever holds a signed link, as the Hub's CDN serves them.

No account exists here.  An ``Authorization`` header is refused with 400, as S3 does beside a signed query, so
that a client which leaks its token to the second host is noticed.
"""

import re
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tasks.local.hub.access import SignedLinks
from tasks.local.hub.repositories import large_blob_path

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Bytes(FileResponse):
    """A file, streamed in pieces of 1 MiB, whole or by range; its ETag names the content."""

    chunk_size = 1024 * 1024

    def __init__(self, path: Path, *, etag: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(
            path, headers={**(headers or {}), "ETag": f'"{etag}"'}, media_type="application/octet-stream"
        )


def content_host(root: Path, links: SignedLinks) -> Starlette:
    """Return the application of the second listener."""

    def large_file(request: Request) -> Response:
        sha256, query = request.path_params["sha256"], request.query_params
        if "authorization" in request.headers:
            return PlainTextResponse("Only one kind of authorization is allowed.", status_code=400)
        if not _SHA256.fullmatch(sha256) or not links.hold(
            sha256, query.get("expires", ""), query.get("signature", "")
        ):
            return PlainTextResponse("This link is not valid, or has expired.", status_code=403)
        return Bytes(large_blob_path(root, sha256), etag=sha256)

    def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/lfs/{sha256}", large_file), Route("/healthz", healthz)])
