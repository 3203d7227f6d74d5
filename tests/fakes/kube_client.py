"""What the doubles of a cluster's controllers need of its API server: requests, and caches that a watch keeps fresh.

Own code on plain HTTP, so that a fault of the product's client is not repeated in what it is tested against.  A cache
lists, then watches; it begins anew when the watch ends, and loses events only on demand.
"""

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
Changed = Callable[[Object | None, Object | None], None]
"""Is told what an object was and what it is; ``None`` where there is none."""

PAGE = 500
LONGEST_PAUSE_S = 1.0
CLOSE_S = 3.0


@dataclass(frozen=True)
class Kind:
    """One kind of object; ``api`` is the first part of its path."""

    api: str
    name: str
    plural: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return the group and version that objects name."""
        return self.api.partition("/")[2]


RAY_SERVICE = Kind("apis/ray.io/v1", "RayService", "rayservices")
RAY_CLUSTER = Kind("apis/ray.io/v1", "RayCluster", "rayclusters")
POD = Kind("api/v1", "Pod", "pods")
SERVICE = Kind("api/v1", "Service", "services")
EVENT = Kind("api/v1", "Event", "events")
QUOTA = Kind("api/v1", "ResourceQuota", "resourcequotas")
SECRET = Kind("api/v1", "Secret", "secrets")
SLICE = Kind("apis/discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
ROUTE = Kind("apis/gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")


class Refused(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Access:
    """Where an API server is, and as whom to speak to it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | bool = True


def read_kubeconfig(text: str) -> Access:
    """Return the access that the current context of a kubeconfig gives."""
    config = yaml.safe_load(text)
    contexts = {one["name"]: one["context"] for one in config["contexts"]}
    context = contexts[config["current-context"]]
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
    user = next(one["user"] for one in config["users"] if one["name"] == context["user"])
    tls = ssl.create_default_context(cadata=_content(cluster, "certificate-authority") or None)
    if "client-certificate" in user or "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
            pair.write(_content(user, "client-certificate") + "\n" + _content(user, "client-key"))
            pair.flush()
            tls.load_cert_chain(pair.name)
    headers = {"authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return Access(cluster["server"], headers, tls)


def _content(part: Object, name: str) -> str:
    if f"{name}-data" in part:
        return base64.b64decode(part[f"{name}-data"]).decode()
    return Path(part[name]).read_text(encoding="utf-8") if name in part else ""


class ApiServer:
    """Requests about the objects of one namespace."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.namespace = namespace
        self._open: set[asyncio.Task[httpx.Response]] = set()
        self._http = httpx.AsyncClient(
            base_url=access.url,
            headers=access.headers,
            verify=access.tls,
            trust_env=False,
            timeout=httpx.Timeout(10.0),
            limits=httpx.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Let requests that are open come to their end, and close all connections."""
        if self._open:
            await asyncio.wait(self._open, timeout=CLOSE_S)
        await self._http.aclose()

    async def create(self, kind: Kind, new: Object) -> Object:
        """Create an object."""
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **new}
        return await self._ask("POST", self._path(kind), whole)

    async def merge(self, kind: Kind, name: str, change: Object, part: str = "") -> Object:
        """Patch an object, or a ``part`` of it such as its status, by a JSON merge."""
        path = self._path(kind, name) + (f"/{part}" if part else "")
        return await self._ask("PATCH", path, change, **{"content-type": "application/merge-patch+json"})

    async def put_status(self, kind: Kind, whole: Object, status: Object) -> Object:
        """Give an object, as it was read, another status; whoever has written meanwhile is not overwritten."""
        name, kept = whole["metadata"]["name"], {key: value for key, value in status.items() if value is not None}
        new = {**whole, "apiVersion": kind.api_version, "kind": kind.name, "status": kept}
        return await self._ask("PUT", f"{self._path(kind, name)}/status", new)

    async def bind(self, pod: str, node: str) -> None:
        """Give a pod its node."""
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"name": node}}
        await self._ask("POST", f"{self._path(POD, pod)}/binding", binding)

    async def delete(self, kind: Kind, name: str, uid: str | None = None, grace_s: int | None = None) -> None:
        """Delete an object, if it is there and is still the one with that ``uid``."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        options |= {"gracePeriodSeconds": grace_s} if grace_s is not None else {}
        try:
            await self._ask("DELETE", self._path(kind, name), options)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    async def list(self, kind: Kind) -> tuple[list[Object], str]:
        """Return all objects of a kind, and the version of the list; none where the kind does not exist."""
        items: list[Object] = []
        parameters: dict[str, Any] = {"limit": PAGE}
        while True:
            answer = await self._http.get(self._path(kind), params=parameters)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return [], ""
            page = _checked(answer)
            items += page["items"]
            parameters["continue"] = page["metadata"].get("continue", "")
            if not parameters["continue"]:
                return items, page["metadata"]["resourceVersion"]

    async def watch(self, kind: Kind, version: str, took: Callable[[str, Object], None]) -> None:
        """Tell ``took`` of every event after ``version`` until the watch ends."""
        parameters = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        path = self._path(kind)
        async with self._http.stream(
            "GET", path, params=parameters, timeout=httpx.Timeout(10.0, read=None)
        ) as answer:
            if answer.is_error:
                await answer.aread()
                _checked(answer)
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Refused(event["object"].get("code", 500), "Expired", event["object"].get("message", ""))
                took(event["type"], event["object"])

    def _path(self, kind: Kind, name: str = "") -> str:
        place = f"/{kind.api}/namespaces/{self.namespace}" if kind.is_namespaced else f"/{kind.api}"
        return f"{place}/{kind.plural}" + (f"/{name}" if name else "")

    async def _ask(self, method: str, path: str, body: Object, **headers: str) -> Object:
        """Send a request, which goes on to its end even if who sent it does not, so that no connection is lost."""
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        asking = asyncio.create_task(self._http.request(method, path, content=content, headers=headers))
        self._open.add(asking)
        asking.add_done_callback(self._ended)
        return _checked(await asyncio.shield(asking))

    def _ended(self, asking: "asyncio.Task[httpx.Response]") -> None:
        self._open.discard(asking)
        if not asking.cancelled():
            asking.exception()  # seen here, if by nobody else


def _checked(answer: httpx.Response) -> Object:
    if answer.is_success:
        return dict(answer.json())
    try:
        told = answer.json()
    except ValueError:
        told = {}
    raise Refused(answer.status_code, told.get("reason", ""), told.get("message", answer.text))


class Cache:
    """What is stored of one kind, by name; ``objects`` is kept fresh by ``run``.

    ``lose`` events are not seen when they come, but only ``resync_s`` seconds later, by a new list.
    """

    def __init__(self, server: ApiServer, kind: Kind, resync_s: float) -> None:
        self.objects: dict[str, Object] = {}
        self.heard: list[Changed] = []
        self.lose = 0
        self.is_filled = asyncio.Event()
        self._server, self._kind, self._resync_s = server, kind, resync_s
        self._gone: set[str] = set()
        self._again: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """List and watch until cancelled."""
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s + 0.05)
            try:
                version = await self._refresh()
                if not version:
                    return
                await self._server.watch(self._kind, version, self._take)
                pause_s = 0.05
            except (Refused, httpx.TransportError, ValueError):
                continue  # a line that was cut is no JSON

    def put(self, new: Object) -> None:
        """Take what an own write returned, or what a watch told, unless something newer is known."""
        name, before = new["metadata"]["name"], self.objects.get(new["metadata"]["name"])
        if new["metadata"]["uid"] in self._gone or (before is not None and _version(before) >= _version(new)):
            return
        self.objects[name] = new
        self._tell(before, new)

    async def _refresh(self) -> str:
        items, version = await self._server.list(self._kind)
        for new in items:
            self.put(new)
        kept = {new["metadata"]["name"]: new["metadata"]["uid"] for new in items}
        for name, known in list(self.objects.items()):
            if kept.get(name) != known["metadata"]["uid"] and _version(known) <= int(version or 0):
                self._forget(known)
        self.is_filled.set()
        return version

    def _take(self, kind: str, new: Object) -> None:
        if kind == "BOOKMARK":
            return
        if self.lose > 0:
            self.lose -= 1
            asyncio.get_running_loop().call_later(self._resync_s, self._resync)
        elif kind == "DELETED":
            self._forget(new)
        else:
            self.put(new)

    def _resync(self) -> None:
        task = asyncio.create_task(self._look_again())
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def _look_again(self) -> None:
        try:
            await self._refresh()
        except (Refused, httpx.TransportError):
            asyncio.get_running_loop().call_later(self._resync_s, self._resync)

    def _forget(self, old: Object) -> None:
        self._gone.add(old["metadata"]["uid"])
        known = self.objects.get(old["metadata"]["name"])
        if known is not None and known["metadata"]["uid"] == old["metadata"]["uid"]:
            del self.objects[old["metadata"]["name"]]
            self._tell(known, None)

    def _tell(self, before: Object | None, after: Object | None) -> None:
        for told in self.heard:
            told(before, after)


def _version(known: Object) -> int:
    return int(known["metadata"]["resourceVersion"])
