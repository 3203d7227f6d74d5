"""A server that refuses everything and tells everybody the credentials that it was shown, as careless ones do."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.fakes.s3 import BUCKET


@dataclass
class Echo:
    """Stands for a Hub, a Ray cluster, an S3 server or a Prefect server behind a careless gateway.

    ``status`` is what it answers.
    """

    status: int = 403

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, and tell why."""
        request = Request(scope, receive)
        shown = request.headers.get("authorization", "nothing")
        told = f"{shown} may not see {request.url}"
        headers = {"X-Error-Message": told, "WWW-Authenticate": told, "X-Request-Id": shown}
        if request.url.path.startswith(f"/{BUCKET}"):
            xml = f"<Error><Code>AccessDenied</Code><Message>{told}</Message></Error>"
            await Response(xml, self.status, headers, "application/xml")(scope, receive, send)
        else:
            status = {"kind": "Status", "status": "Failure", "message": told, "error": told}
            await JSONResponse(status, self.status, headers)(scope, receive, send)
