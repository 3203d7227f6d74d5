"""The double of a scheduler and a kubelet: pods get a node, start, become ready, crash, and go when they are told to.

A pod's container is a ``RayPod``.  What was recorded: the statuses of pods that start, whose image cannot be pulled,
that fit no node, or whose container crashes; that workers wait for their head; that a worker is ready only when its
Serve proxy has an application to serve, a head before that; and what SIGTERM does (see ``ray_pods``).
Not recorded: the words of the events, and that GPUs are what is missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx

from tests.fakes import kube_pod_statuses as statuses
from tests.fakes.kube_client import EVENT, LONGEST_PAUSE_S, POD, ApiServer, Cache, Refused
from tests.fakes.kube_statuses import UNSCHEDULABLE, Object, is_worker, merged, now, requested
from tests.fakes.kuberay_orders import Orders, Trouble, cluster_of, release_of
from tests.fakes.ray_pods import RayPod, ending

POLL_S = 0.02
NO_GPU = (
    "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes are"
    " available: 1 Preemption is not helpful for scheduling."
)
HEAD_PROBE = 3
"""Times as long as a container takes to start."""
UNREADY_AFTER_S = 3.0
"""From SIGTERM until a worker's probe fails: 2 to 4 s."""
FIRST_PAUSE_S, LONGEST_CRASH_PAUSE_S = 10.0, 300.0


class Kubelet:
    """Plays for all pods of a cache that are part of a Ray cluster."""

    def __init__(self, server: ApiServer, pods: Cache, orders: Orders) -> None:
        self._server, self._pods, self._orders = server, pods, orders
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._machines: dict[str, RayPod] = {}
        self._placed: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()
        pods.heard.append(self._changed)

    def machine(self, pod: str) -> RayPod | None:
        """Return what runs in the pod of that name."""
        known = self._pods.objects.get(pod)
        return self._machines.get(known["metadata"]["uid"]) if known else None

    async def stop(self) -> None:
        """Stop every pod at once."""
        tasks = [*self._tasks.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for machine in list(self._machines.values()):
            await machine.kill()

    def _changed(self, before: Object | None, after: Object | None) -> None:
        pod = after or before
        if pod is None or "ray.io/cluster" not in pod["metadata"].get("labels", {}):
            return
        uid = pod["metadata"]["uid"]
        if after is None:
            self._begin(self._vanish(uid))
        elif "deletionTimestamp" in after["metadata"]:
            if before is None or "deletionTimestamp" not in before["metadata"]:
                self._begin(self._end(after))
        elif uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._guarded(self._live(after)))

    def _begin(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(ending))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _guarded(self, life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - told when the double is closed
            self._orders.failures.append(error)

    async def _live(self, pod: Object) -> None:
        await asyncio.sleep(self._orders.pod_s)
        await self._find_node(pod)
        await self._write(pod, statuses.creating(pod))
        await self._pull(pod)
        ray = self._orders.ray(cluster_of(pod))
        while is_worker(pod) and not self._head_runs(pod):  # noqa: ASYNC110 - the trouble may end at any time
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(self._orders.pod_s)
        machine = self._machines[pod["metadata"]["uid"]] = RayPod(ray, self._orders.network, is_worker(pod))
        pause_s, restarts = FIRST_PAUSE_S, 0
        while True:
            ip = await machine.start(machine.ip)
            await self._run(pod, machine, restarts)
            if not is_worker(pod):
                ray.lose_everything()
            await self._write(pod, statuses.crashed(pod, ip, restarts, 0))
            await self._write(pod, statuses.crashed(pod, ip, restarts, pause_s))
            await asyncio.sleep(pause_s * self._orders.time_scale)
            pause_s, restarts = min(LONGEST_CRASH_PAUSE_S, 2 * pause_s), restarts + 1

    async def _find_node(self, pod: Object) -> None:
        told = ""
        while "nodeName" not in pod["spec"]:
            message = self._missing(pod)
            if not message:
                self._placed.add(pod["metadata"]["uid"])
                with suppress(_Gone):  # or bound already, by a request whose reply was lost
                    await self._insist(lambda: self._server.bind(pod["metadata"]["name"], self._orders.node))
                return
            if message != told:
                told = message
                await self._write(pod, statuses.unschedulable(message))
                await self._report(pod, "Warning", "FailedScheduling", message, "default-scheduler")
            await asyncio.sleep(POLL_S)

    def _missing(self, pod: Object) -> str:
        """Return why no node takes a pod."""
        if self._orders.trouble_of(release_of(cluster_of(pod))) is Trouble.CPU:
            return UNSCHEDULABLE
        if self._orders.gpus is None:
            return ""
        on_nodes = [one for one in self._pods.objects.values() if one["metadata"]["uid"] in self._placed]
        used = sum(requested(one["spec"])["nvidia.com/gpu"] for one in [*on_nodes, pod])
        return NO_GPU if used > 1000 * self._orders.gpus and requested(pod["spec"])["nvidia.com/gpu"] else ""

    async def _pull(self, pod: Object) -> None:
        tries = iter((False, True))
        while self._is_troubled(pod, Trouble.IMAGE, Trouble.WORKER_IMAGE):
            for is_again in tries:
                status = statuses.not_pulled(pod, is_again)
                await self._write(pod, status)
                state = status["containerStatuses"][0]["state"]["waiting"]
                reason = "BackOff" if is_again else "Failed"
                await self._report(pod, "Warning", reason, state["message"], "kubelet")
            await asyncio.sleep(POLL_S)

    def _is_troubled(self, pod: Object, of_head: Trouble, of_workers: Trouble) -> bool:
        trouble = self._orders.trouble_of(release_of(cluster_of(pod)))
        return trouble is (of_workers if is_worker(pod) else of_head)

    def _head_runs(self, pod: Object) -> bool:
        others = [one for one in self._pods.objects.values() if cluster_of_any(one) == cluster_of(pod)]
        return any(not is_worker(one) and one.get("status", {}).get("phase") == "Running" for one in others)

    async def _run(self, pod: Object, machine: RayPod, restarts: int) -> None:
        """Let the container run, and be ready when it is, until it has ended."""
        await self._write(pod, statuses.running(pod, machine.ip, False, restarts))
        was_ready = False
        while machine.is_up:
            if self._is_troubled(pod, Trouble.CRASH, Trouble.WORKER_CRASH):
                await machine.kill()
                return
            is_ready = not is_worker(pod) or machine.ray.has_proxy(machine)
            if is_ready != was_ready:
                await asyncio.sleep(self._until_ready_s(pod) if is_ready else 0)
                await self._write(pod, statuses.running(pod, machine.ip, is_ready, restarts))
                was_ready = is_ready
            await asyncio.sleep(POLL_S)

    def _until_ready_s(self, pod: Object) -> float:
        """Return how long a pod takes that could be ready; a head's probe begins when its workers run."""
        return self._orders.late_s if is_worker(pod) else HEAD_PROBE * self._orders.pod_s

    async def _end(self, pod: Object) -> None:
        uid, scale = pod["metadata"]["uid"], self._orders.time_scale
        self._stop(uid)
        machine = self._machines.get(uid)
        if machine is not None and machine.is_up:
            how = ending(pod, machine.ray.shutdown_s(), scale)
            going = asyncio.create_task(machine.terminate(how))
            try:
                await asyncio.sleep(min(how.end_s, how.told_s + UNREADY_AFTER_S * scale))
                if is_worker(pod):
                    await self._write(pod, statuses.running(pod, machine.ip, False, 0))
                await going
            finally:
                going.cancel()
        await self._insist(lambda: self._server.delete(POD, pod["metadata"]["name"], uid, grace_s=0))

    async def _vanish(self, uid: str) -> None:
        self._stop(uid)
        if uid in self._machines:
            await self._machines[uid].kill()
            self._machines.pop(uid, None)

    def _stop(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()

    async def _write(self, pod: Object, status: Object) -> None:
        name = pod["metadata"]["name"]
        known = self._pods.objects.get(name, pod).get("status", {}).get("conditions", [])
        status = status | {"conditions": merged(known, status["conditions"])}
        change = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        written = await self._insist(lambda: self._server.merge(POD, name, change, "status"))
        self._pods.put(written)

    async def _report(self, pod: Object, kind: str, reason: str, message: str, source: str) -> None:
        await self._insist(lambda: self._server.create(EVENT, event(pod, "Pod", kind, reason, message, source)))

    async def _insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until the API server answers; raises ``_Gone`` where the pod is not there any more."""
        pause_s = 0.01
        while True:
            try:
                return await ask()
            except Refused as refused:
                is_race = refused.status == httpx.codes.CONFLICT and "has been modified" in str(refused)
                if refused.status in (404, 409) and not is_race:
                    raise _Gone from refused
                # A server that was started again refuses with 403 until it has read its roles.
                if refused.status < httpx.codes.INTERNAL_SERVER_ERROR and refused.status not in (403, 409, 429):
                    raise
            except httpx.TransportError:
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


class _Gone(Exception):
    """The pod is not there any more."""


def cluster_of_any(pod: Object) -> str | None:
    """Return the RayCluster that a pod is part of, if it is part of one."""
    return pod["metadata"].get("labels", {}).get("ray.io/cluster")


def event(about: Object, kind_of: str, kind: str, reason: str, message: str, source: str) -> Object:
    """Return an event about an object of the kind ``kind_of``."""
    meta = about["metadata"]
    reference = {"kind": kind_of, "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    return {
        "metadata": {"generateName": f"{meta['name']}."},
        "involvedObject": reference,
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": source},
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
    }
