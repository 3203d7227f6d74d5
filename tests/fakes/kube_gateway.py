"""The double of a Gateway's data plane: an HTTP proxy that obeys HTTPRoutes.  Nothing of it was recorded.

It follows the Gateway API's words: of the rules that match by path and headers the most specific acts, and of its
backends one is taken by weight for each request; a rule without weight is answered 500, a Service without ready pods
503.  A connection of a client is its own, not the pod's, so that each request may meet another release.  Every
HTTPRoute of the namespace counts, whichever Gateway it names, and its status says that it was accepted.
"""

import random
import socket
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.fakes.asgi import LOOPBACK
from tests.fakes.kube_client import ROUTE, ApiServer, Cache
from tests.fakes.kube_proxy import KubeProxy
from tests.fakes.kube_statuses import Object, condition, merged
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_orders import Orders
from tests.fakes.pod_server import begin, end, started

CONTROLLER = "slipway.dev/gateway-of-the-tests"
BETWEEN_TWO = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
"""Headers of one connection, which no proxy passes on: RFC 9110, section 7.6.1."""


class Gateway:
    """Plays for all HTTPRoutes of a cache."""

    def __init__(self, server: ApiServer, routes: Cache, proxy: KubeProxy, orders: Orders) -> None:
        self._server, self._routes, self._proxy, self._orders = server, routes, proxy, orders
        self._rules: dict[str, list[Object]] = {}
        self.url = ""
        self.worker = Worker(self._apply, orders.failures)
        routes.heard.append(self._changed)

    async def start(self) -> None:
        """Begin to serve, on a free port of the loopback."""
        bound = socket.create_server((LOOPBACK, 0))
        self._front, self._serving = begin(self._answer, [bound])
        await started(self._front, self._serving)
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(None), limits=limits)
        self.url = f"http://{LOOPBACK}:{bound.getsockname()[1]}"

    async def stop(self) -> None:
        """Stop, and cut what is open."""
        await end(self._front, self._serving)
        await self._http.aclose()

    def _changed(self, before: Object | None, after: Object | None) -> None:
        if before is None or after is None or before["spec"] != after["spec"]:
            self.worker.poke((after or before or {})["metadata"]["name"], self._orders.proxy_s)

    async def _apply(self, name: str) -> None:
        route = self._routes.objects.get(name)
        if route is None:
            self._rules.pop(name, None)
            return
        self._rules[name] = route["spec"].get("rules") or []
        meta = route["metadata"]
        parents = route["spec"].get("parentRefs") or []
        known = {str(one["parentRef"]): one for one in (route.get("status") or {}).get("parents", [])}
        told = [_accepted(parent, meta["generation"], known.get(str(parent), {})) for parent in parents]
        change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": {"parents": told}}
        self._routes.put(await self._server.merge(ROUTE, name, change, "status"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        rule = self._rule(request)
        if rule is None:
            return PlainTextResponse("No route matches.", 404)
        backend = _by_weight(rule.get("backendRefs") or [])
        if backend is None:
            return PlainTextResponse("No backend has any weight.", 500)
        places = self._proxy.backends(backend["name"])
        if not places:
            return PlainTextResponse("No pod is ready.", 503)
        return await self._pass_on(request, random.choice(places))  # noqa: S311 - balances load

    async def _pass_on(self, request: Request, place: tuple[str, int]) -> Response:
        url = f"http://{place[0]}:{place[1]}{request.url.path}"
        headers = [(name, value) for name, value in request.headers.items() if name not in BETWEEN_TWO]
        asked = self._http.build_request(
            request.method, url, params=request.query_params, headers=headers, content=await request.body()
        )
        try:
            got = await self._http.send(asked, stream=True)
        except httpx.TransportError:
            return PlainTextResponse("The pod does not answer.", 502)

        async def body() -> Any:
            try:
                async for piece in got.aiter_raw():
                    yield piece
            finally:
                await got.aclose()

        kept = {name: value for name, value in got.headers.items() if name not in BETWEEN_TWO}
        return StreamingResponse(body(), got.status_code, kept)

    def _rule(self, request: Request) -> Object | None:
        matching = [
            (specific, rule)
            for rules in self._rules.values()
            for rule in rules
            for match in rule.get("matches") or [{}]
            if (specific := _match(match, request)) is not None
        ]
        return max(matching, key=lambda found: found[0], default=(None, None))[1]


def _match(match: Object, request: Request) -> tuple[int, int] | None:
    """Return how specific a match is; none where the request does not match."""
    path = (match.get("path") or {}).get("value", "/")
    headers = match.get("headers") or []
    fits = f"{request.url.path}/".startswith(path.rstrip("/") + "/")
    if not fits or any(request.headers.get(one["name"].lower()) != one["value"] for one in headers):
        return None
    return len(path), len(headers)


def _by_weight(backends: list[Object]) -> Object | None:
    weights = [backend.get("weight", 1) for backend in backends]
    return random.choices(backends, weights)[0] if sum(weights) else None  # noqa: S311 - divides load


def _accepted(parent: Object, generation: int, before: Object) -> Object:
    conditions = [
        condition("Accepted", True, "Accepted", "Route is accepted", observedGeneration=generation),
        condition("ResolvedRefs", True, "ResolvedRefs", "References are resolved", observedGeneration=generation),
    ]
    kept = merged(before.get("conditions", []), conditions)
    return {"parentRef": parent, "controllerName": CONTROLLER, "conditions": kept}
