"""A small server that answers Prometheus's instant queries, and fails in chosen ways.

It promises what Prometheus 3 does: ``GET /api/v1/query`` gives ``status``, ``resultType`` and samples as a moment and
a text; a query that it cannot read is a 400 with an ``errorType``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes import asgi


@dataclass
class Prometheus:
    """What the server answers; every field may be changed while it serves.

    ``values`` are the series of a vector, or the scalar where ``scalar`` is set; ``body`` is sent in place of JSON.
    ``asked`` is the log of queries.
    """

    values: list[str] = field(default_factory=lambda: ["0"])
    scalar: bool = False
    status: int = 200
    body: bytes | None = None
    asked: list[str] = field(default_factory=list)

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(routes=[Route("/api/v1/query", self._query)])

    async def _query(self, request: Request) -> Response:
        self.asked.append(request.query_params["query"])
        if self.status != 200:
            error = {"status": "error", "errorType": "bad_data", "error": "parse error"}
            return JSONResponse(error, status_code=self.status)
        if self.body is not None:
            return Response(self.body)
        return JSONResponse({"status": "success", "data": self._data()})

    def _data(self) -> dict[str, Any]:
        now = time.time()
        if self.scalar:
            return {"resultType": "scalar", "result": [now, self.values[0]]}
        series = [{"metric": {"pod": str(n)}, "value": [now, value]} for n, value in enumerate(self.values)]
        return {"resultType": "vector", "result": series}


@contextmanager
def serving(prometheus: Prometheus) -> Iterator[str]:
    """Serve ``prometheus`` on a free port of the loopback and give its base URL."""
    with asgi.serving(prometheus.application()) as (url, _server):
        yield url
