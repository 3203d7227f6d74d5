"""The RayService of one release: made once, and never edited but for the drain switch.

KubeRay's own upgrade is off, because it has no gate before traffic and no way back: which release takes requests is
decided by the stable Service alone.
"""

import json

from k8s import names
from k8s.kinds import RAY_SERVICE, Object
from k8s.pods import head_template, security_context, worker_template
from k8s.serve_config import serve_config
from k8s.spec import Redis
from k8s.workload import Workload

GROUP = "engine"
"""The one group of workers."""


def ray_service(workload: Workload) -> Object:
    """Return the RayService of the release."""
    spec = {
        "upgradeStrategy": {"type": "None"},
        "serveConfigV2": serve_config(workload),
        "rayClusterConfig": _cluster(workload),
    }
    return {
        "apiVersion": RAY_SERVICE.api_version,
        "kind": RAY_SERVICE.kind,
        "metadata": {
            "name": workload.release,
            "namespace": workload.namespace,
            "labels": names.release_labels(workload.service, workload.release, workload.commit),
            "annotations": {names.RENDERED: json.dumps(spec, sort_keys=True, separators=(",", ":"))},
        },
        "spec": spec,
    }


def _cluster(workload: Workload) -> Object:
    section = workload.kubernetes
    cluster: Object = {
        "rayVersion": section.ray_version,
        "authOptions": {"mode": "token", **({"secretName": section.ray_token} if section.ray_token else {})},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104
            "template": head_template(workload),
        },
        "workerGroupSpecs": [_workers(workload)],
    }
    if section.redis is not None:
        cluster["gcsFaultToleranceOptions"] = _redis(section.redis)
    if workload.scales:
        cluster["enableInTreeAutoscaling"] = True
        cluster["autoscalerOptions"] = {"upscalingMode": "Default", "securityContext": security_context()}
    return cluster


def _workers(workload: Workload) -> Object:
    return {
        "groupName": GROUP,
        "replicas": workload.workers,
        "minReplicas": workload.workers,
        "maxReplicas": workload.most_workers,
        "rayStartParams": {"num-cpus": str(workload.pod_cpus), "num-gpus": str(workload.pod_gpus)},
        "template": worker_template(workload),
    }


def _redis(redis: Redis) -> Object:
    """Return where Ray keeps its control state, under KubeRay's own key for it.

    That is the RayCluster's uid.  A name of ours (``externalStorageNamespace``) would let a new cluster find what
    another one left behind.
    """
    options: Object = {"redisAddress": redis.address}
    if redis.username:
        options["redisUsername"] = {"value": redis.username}
    if (password := redis.password) is not None:
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": {"name": password.secret, "key": password.key}}}
    return options
