"""Everything that a release is on Kubernetes, as objects: the same for the same workload, and made without a cluster.

What is applied by the target is what ``slipway render`` prints.
"""

from k8s.kinds import Object
from k8s.rayservice import ray_service
from k8s.surroundings import (
    disruption_budget,
    http_route,
    network_policies,
    release_service,
    service_account,
    stable_service,
)
from k8s.workload import Workload


def service_objects(workload: Workload, live: str | None = None) -> tuple[Object, ...]:
    """Return what all releases of the service share, to be applied before the first of them.

    With ``live`` the stable Service leads to the release of that name.  Without, it says nothing of that, and
    applying it moves no traffic.
    """
    section = workload.kubernetes
    account = (service_account(workload),) if section.service_account.create else ()
    policies = network_policies(workload) if section.network.policy else ()
    route = http_route(workload)
    return *account, *policies, stable_service(workload, live), *((route,) if route else ())


def release_objects(workload: Workload) -> tuple[Object, ...]:
    """Return what belongs to the release alone, its RayService first; all bear its name."""
    return ray_service(workload), release_service(workload), disruption_budget(workload)
