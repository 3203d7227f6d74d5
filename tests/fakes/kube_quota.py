"""The double of the resource quota controller, which tells the API server's own admission what is used.

The API server enforces a quota only when its status says what is hard and what is used; that is all that is done
here, so a pod above the quota is refused by the real admission, in its words.  Counted are pods and their requests.
"""

from tests.fakes.kube_client import QUOTA, ApiServer, Cache
from tests.fakes.kube_statuses import Object, milli, requested
from tests.fakes.kube_worker import Worker
from tests.fakes.kuberay_orders import Orders

_COUNTED = {"pods", "count/pods"}


class Quotas:
    """Plays for all ResourceQuotas of a cache."""

    def __init__(self, server: ApiServer, quotas: Cache, pods: Cache, orders: Orders) -> None:
        self._server, self._quotas, self._pods = server, quotas, pods
        self.worker = Worker(self._reconcile, orders.failures)
        quotas.heard.append(self._quota_changed)
        pods.heard.append(self._pod_changed)

    def _quota_changed(self, _before: Object | None, after: Object | None) -> None:
        if after is not None:
            self.worker.poke(after["metadata"]["name"])

    def _pod_changed(self, before: Object | None, after: Object | None) -> None:
        if before is None or after is None:
            for name in self._quotas.objects:
                self.worker.poke(name)

    async def _reconcile(self, name: str) -> None:
        quota = self._quotas.objects.get(name)
        if quota is None:
            return
        hard = quota["spec"].get("hard") or {}
        status = {"hard": hard, "used": {resource: self._used(resource) for resource in hard}}
        before = quota.get("status") or {}
        if before.get("hard") != hard or not _is_same(before.get("used") or {}, status["used"]):
            version = quota["metadata"]["resourceVersion"]
            change = {"metadata": {"resourceVersion": version}, "status": status}
            self._quotas.put(await self._server.merge(QUOTA, name, change, "status"))

    def _used(self, resource: str) -> str:
        pods = [pod for pod in self._pods.objects.values() if pod.get("status", {}).get("phase") != "Failed"]
        if resource in _COUNTED:
            return str(len(pods))
        name = resource.removeprefix("requests.").removeprefix("limits.")
        total = sum(requested(pod["spec"]).get(name, 0) for pod in pods)
        return f"{total}m" if total % 1000 else str(total // 1000)


def _is_same(one: dict[str, str], other: dict[str, str]) -> bool:
    return one.keys() == other.keys() and all(milli(one[name]) == milli(other[name]) for name in one)
