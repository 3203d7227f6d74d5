"""The double of kube-proxy: real listeners on Services' cluster addresses that pass connections on to ready pods.

As in iptables mode each new connection is given to one ready endpoint by chance, and stays there for as long as it
lives, whatever becomes of endpoint or Service; without a ready endpoint it goes to one that is told to go and still
serves; and without either it is refused.  It follows EndpointSlices by a watch, so that an API server that is down
freezes what it does.

Unlike the kernel it takes a connection before it has reached the pod: what a pod refuses, a client sees as a reset.
"""

import asyncio
import random
import socket
from typing import Any

from tests.fakes.kube_client import Cache
from tests.fakes.kube_slices import SERVICE_NAME, inward
from tests.fakes.kube_statuses import Object
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_orders import Orders
from tests.fakes.pod_server import reset

Place = tuple[str, int]


class KubeProxy:
    """Plays for all Services with a cluster address."""

    def __init__(self, services: Cache, slices: Cache, orders: Orders) -> None:
        self._services, self._slices, self._orders = services, slices, orders
        self._rules: dict[str, dict[Place, list[Place]]] = {}
        self._listeners: dict[Place, asyncio.Server] = {}
        self._open: set[_Side] = set()
        self.worker = Worker(self._apply, orders.failures)
        services.heard.append(self._service_changed)
        slices.heard.append(self._slice_changed)

    def backends(self, service: str) -> list[Place]:
        """Return where new connections to a Service go."""
        return sorted({place for places in self._rules.get(service, {}).values() for place in places})

    async def stop(self) -> None:
        """Listen no more, and reset what is open."""
        await self.worker.stop()
        for listener in self._listeners.values():
            listener.close()
        for side in list(self._open):
            side.cut()
        await asyncio.sleep(0)

    def _service_changed(self, before: Object | None, after: Object | None) -> None:
        service = after or before
        assert service is not None
        self.worker.poke(service["metadata"]["name"], self._orders.proxy_s)

    def _slice_changed(self, before: Object | None, after: Object | None) -> None:
        one = after or before
        assert one is not None
        self.worker.poke(one["metadata"]["labels"].get(SERVICE_NAME, ""), self._orders.proxy_s)

    async def _apply(self, name: str) -> None:
        service = self._services.objects.get(name)
        rules = self._wanted(service) if service else {}
        for place in self._rules.get(name, {}):
            if not rules.get(place) and place in self._listeners:
                self._listeners.pop(place).close()
        self._rules[name] = rules
        for place, backends in rules.items():
            if backends and place not in self._listeners:
                self._listeners[place] = await _listen(place, lambda place=place: _Side(self, name, place))

    def _wanted(self, service: Object) -> dict[Place, list[Place]]:
        """Return the pods behind each port of a Service."""
        spec, name = service["spec"], service["metadata"]["name"]
        if spec.get("clusterIP") in (None, "", "None"):
            return {}
        found: dict[Place, list[Place]] = {(spec["clusterIP"], port["port"]): [] for port in spec.get("ports") or []}
        for one in self._slices.objects.values():
            if one["metadata"]["labels"].get(SERVICE_NAME) != name:
                continue
            numbers = {port.get("name", ""): port["port"] for port in one.get("ports") or []}
            for port in spec.get("ports") or []:
                if port.get("name", "") in numbers:
                    addresses = _chosen(one.get("endpoints") or [])
                    places = [(address, numbers[port.get("name", "")]) for address in addresses]
                    found[spec["clusterIP"], port["port"]] += places
        return found

    def choose(self, service: str, place: Place) -> Place | None:
        """Return where a new connection goes, if there is any place."""
        backends = self._rules.get(service, {}).get(place)
        return random.choice(backends) if backends else None  # noqa: S311 - as kube-proxy does

    def opened(self, side: "_Side") -> None:
        """Know a connection, to cut it when all ends."""
        self._open.add(side)

    def closed(self, side: "_Side") -> None:
        """Forget a connection."""
        self._open.discard(side)


def _chosen(endpoints: list[Object]) -> list[str]:
    ready = [one for one in endpoints if one["conditions"].get("ready")]
    going = [one for one in endpoints if one["conditions"].get("serving") and one["conditions"].get("terminating")]
    return [inward(address) for one in ready or going for address in one["addresses"]]


async def _listen(place: Place, protocol: Any) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(protocol, *place, backlog=1024)


class _Side(asyncio.Protocol):
    """One side of a connection that is passed on; the client's side looks for the pod's."""

    def __init__(
        self, proxy: KubeProxy, service: str = "", place: Place = ("", 0), other: "_Side | None" = None
    ) -> None:
        self._proxy, self._service, self._place = proxy, service, place
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._is_at_end = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: on the client's side, by finding a pod."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._proxy.opened(self)
        if self.other is None:
            transport.pause_reading()
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        backend = self._proxy.choose(self._service, self._place)
        assert self.transport is not None
        try:
            if backend is None:
                raise ConnectionRefusedError
            loop = asyncio.get_running_loop()
            _, other = await loop.create_connection(lambda: _Side(self._proxy, other=self), *backend)
        except OSError:
            self.cut()
            return
        self.other = other
        if self.transport.is_closing():
            other.cut()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass on that no more comes; the other direction stays open."""
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write_eof()
            self._is_at_end = True
        return not (self.other is not None and self.other._is_at_end)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side in the same way: in order, or by a reset."""
        self._proxy.closed(self)
        if self.other is None or self.other.transport is None or self.other.transport.is_closing():
            return
        if exc is None:
            self.other.transport.close()
        else:
            self.other.cut()

    def pause_writing(self) -> None:
        """Let the other side wait."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def cut(self) -> None:
        """End by a reset."""
        if self.transport is not None:
            reset(self.transport)
