"""What a test orders of the double of a cluster: how fast it is, and what goes wrong."""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network

from tests.fakes.engine import Engine
from tests.fakes.kube_statuses import Object
from tests.fakes.ray_pods import MakeEngine, Ray


class Trouble(StrEnum):
    """What keeps a release from running, for as long as it is ordered."""

    NONE = "none"
    IMAGE = "image"  # recorded: the head's image cannot be pulled, and the workers wait for the head
    WORKER_IMAGE = "worker image"  # not recorded: the same of the workers alone
    CPU = "cpu"  # recorded: no node has the CPUs, for any pod
    CRASH = "crash"  # recorded: the head starts, fails, and is started again, after longer and longer pauses
    WORKER_CRASH = "worker crash"  # not recorded: the same of the workers alone
    DEPLOYING = "deploying"  # the application never ends to deploy
    FAILED = "failed"  # recorded: the application's constructor raises; so does an engine that is ``None``
    QUOTA = "quota"  # not recorded: no pod may be made; see ``kube_quota`` for real quotas


@dataclass
class Orders:
    """How the double plays; every field may be changed at any time, and holds for what begins from then on.

    ``engine`` makes a release's engine from its application's arguments, ``None`` for one whose constructor fails.
    Seconds: ``pod_s`` a pod takes to find its node and then to start, ``start_s`` an application to deploy,
    ``late_s`` a worker is ready after its release is Ready, ``drain_s`` a new ``user_config`` is on its way (2 to 5
    really),
    ``slice_s`` an endpoint's change takes into a slice, and ``proxy_s`` from there to the node's rules.  What objects
    themselves say in seconds, grace periods and drains, is multiplied by ``time_scale``.
    ``gpus`` is how many GPUs all nodes have together, ``None`` for enough; all pods go to ``node``.
    ``lag_s`` holds a release's observedGeneration back by one for so long after its creation, while all else it says
    is true: that was not recorded.  Pods have addresses of ``network``.  ``behind_haproxy`` lets Ray's own proxies be
    HAProxy, see ``ray_pods``.
    """

    engine: MakeEngine = lambda args: Engine(
        release=args["release"], commit=args["commit"], model=args["served_model_name"]
    )
    pod_s: float = 0.02
    start_s: float = 0.05
    late_s: float = 0.05
    drain_s: float = 0.02
    slice_s: float = 0.0
    proxy_s: float = 0.0
    time_scale: float = 0.01
    gpus: int | None = None
    node: str = "node-of-the-double"
    trouble: Trouble = Trouble.NONE
    troubles: dict[str, Trouble] = field(default_factory=dict)
    lag_s: dict[str, float] = field(default_factory=dict)
    behind_haproxy: bool = False
    network: IPv4Network = field(default_factory=lambda: IPv4Network("127.15.0.0/16"))
    rays: dict[str, Ray] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)

    def trouble_of(self, release: str) -> Trouble:
        """Return what is ordered for a release."""
        return self.troubles.get(release, self.trouble)

    def ray(self, cluster: str) -> Ray:
        """Return the Ray cluster in the pods of the RayCluster of that name."""
        if cluster not in self.rays:
            release = release_of(cluster)
            self.rays[cluster] = Ray(
                lambda args: None if self.trouble_of(release) is Trouble.FAILED else self.engine(args),
                lambda: float("inf") if self.trouble_of(release) is Trouble.DEPLOYING else self.start_s,
                lambda: self.drain_s,
                self.behind_haproxy,
            )
        return self.rays[cluster]


def release_of(cluster: str) -> str:
    """Return the RayService that a RayCluster was made for."""
    return cluster.rpartition("-")[0]


def cluster_of(pod: Object) -> str:
    """Return the RayCluster that a pod is part of."""
    return str(pod["metadata"]["labels"]["ray.io/cluster"])
