"""The pods of a release: one head on a CPU node, and workers that each hold one replica or one stage of it.

Both look like each other where Ray and Serve run on every node: image, variables, waits, folders.  They differ in
what they are given, and in when they count as ready: the head before Serve runs at all, since KubeRay submits the
application only then; a worker when its Serve proxy answers, since then requests come to it.

Probes ask by HTTP, so that an image needs neither a shell nor wget; paths and ports are those of KubeRay 1.7's own
probes.  These replace them: its readiness probe gives up after one late answer, which on a busy node took a healthy
worker out of service.
"""

from typing import Any

from k8s.drains import PRE_STOP_S, drains
from k8s.kinds import Object
from k8s.names import RELEASE, release_labels
from k8s.serve_config import SERVE_PORT
from k8s.spec import Spread
from k8s.spec_pods import GPU, Pod, Toleration
from k8s.volumes import CACHE, cache_folder, volumes_and_mounts
from k8s.workload import Workload

HEAD, WORKER = "ray-head", "ray-worker"
"""Names of the containers."""
NODE_TYPE = "ray.io/node-type"
"""KubeRay's label of pods: ``head`` or ``worker``."""
HOSTNAME = "kubernetes.io/hostname"
GPU_NODE = "nvidia.com/gpu.present"
"""Label that NVIDIA's feature discovery gives to nodes with a GPU."""

METRICS_PORT = 8080
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
WORKER_PORTS = {"serve": SERVE_PORT, "metrics": METRICS_PORT}
HEAD_PORTS = {"gcs-server": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, **WORKER_PORTS}
"""KubeRay finds ports by these names, and makes no RayService without ``serve`` and ``dashboard``."""

RAYLET_ALIVE = {"httpGet": {"path": "/api/local_raylet_healthz", "port": AGENT_PORT}}
CONTROL_READY = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}}
HEAD_LATE, WORKER_LATE = 10, 2
"""KubeRay's own probe of a head waits as long: while one is not ready, KubeRay does not ask for its application."""
PROXY_READY = {"httpGet": {"path": "/-/healthz", "port": SERVE_PORT}}


def head_template(workload: Workload) -> Object:
    """Return the pod template of the head, which has no GPU and takes no replica."""
    section = workload.kubernetes
    container = _container(workload, HEAD, HEAD_PORTS, section.head)
    container |= _probes(CONTROL_READY, HEAD_LATE)
    spec = _pod(workload, container, section.head, section.head.tolerations)
    spec["automountServiceAccountToken"] = workload.scales  # for KubeRay's autoscaler, which runs beside it
    if workload.gpus:
        spec["affinity"] = {"nodeAffinity": _away_from_gpus()}
    return _template(workload, spec)


def worker_template(workload: Workload) -> Object:
    """Return the pod template of the workers."""
    section = workload.kubernetes
    container = _container(workload, WORKER, WORKER_PORTS, section.worker)
    container |= _probes(PROXY_READY, WORKER_LATE)
    _add_devices(workload, container["resources"])
    tolerations = section.worker.tolerations + (section.gpu_tolerations if workload.gpus else ())
    spec = _pod(workload, container, section.worker, tolerations)
    spec["automountServiceAccountToken"] = False
    if workload.most_workers > 1:
        spec["affinity"] = {"podAntiAffinity": _apart(workload)}
    return _template(workload, spec)


def security_context() -> Object:
    """Return what every container of ours gives up."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _template(workload: Workload, spec: Object) -> Object:
    metadata: Object = {"labels": release_labels(workload.service, workload.release, workload.commit)}
    if not workload.kubernetes.evictable:
        metadata["annotations"] = {"karpenter.sh/do-not-disrupt": "true"}
    return {"metadata": metadata, "spec": spec}


def _pod(workload: Workload, container: Object, asked: Pod, tolerations: tuple[Toleration, ...]) -> Object:
    section = workload.kubernetes
    volumes, container["volumeMounts"] = volumes_and_mounts(workload, worker=container["name"] == WORKER)
    spec: Object = {
        "serviceAccountName": section.service_account.name or workload.service,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drains(workload.longest_s, workload.bake_s).grace,
        "securityContext": {
            "runAsUser": section.user,
            "runAsGroup": section.user,
            "runAsNonRoot": section.user != 0,
            "fsGroup": section.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if section.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in section.pull_secrets]
    if asked.node_selector:
        spec["nodeSelector"] = dict(asked.node_selector)
    if tolerations:
        spec["tolerations"] = [_toleration(each) for each in tolerations]
    return spec


def _container(workload: Workload, name: str, ports: dict[str, int], asked: Pod) -> Object:
    section = workload.kubernetes
    container: Object = {
        "name": name,
        "image": section.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in ports.items()],
        "env": _environment(workload),
        "resources": _resources(asked),
        "securityContext": security_context(),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
    }
    if section.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in section.secrets]
    return container


def _environment(workload: Workload) -> list[Object]:
    section = workload.kubernetes
    plain = {
        "SLIPWAY_CACHE": cache_folder(workload),
        **drains(workload.longest_s, workload.bake_s).environment(),
        **({"RAY_SERVE_ENABLE_HA_PROXY": "1"} if section.haproxy else {}),
        **section.environment,
    }
    told: list[Object] = [{"name": name, "value": value} for name, value in plain.items()]
    if (token := section.hub_token) is not None:
        told.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": token.secret, "key": token.key}}})
    return told


def _resources(asked: Pod) -> Object:
    most = {"memory": asked.memory, **({"cpu": asked.cpu} if asked.limit_cpu else {})}
    return {"requests": {"cpu": asked.cpu, "memory": asked.memory}, "limits": most}


def _add_devices(workload: Workload, resources: dict[str, Any]) -> None:
    if (size := workload.kubernetes.weights.size) is not None and cache_folder(workload) == CACHE:
        resources["requests"]["ephemeral-storage"] = size
    if workload.gpus:
        for side in resources.values():
            side[GPU] = str(workload.pod_gpus)


def _probes(ready: Object, late: int) -> Object:
    """Return the three probes; a pod is out of service when it was not ready ``late`` times in a row.

    Ray itself may take ten minutes to start on a cold disk.  Liveness is patient, because a busy node answers late
    and a pod that is restarted loads for minutes.
    """
    return {
        "startupProbe": {
            **RAYLET_ALIVE,
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "livenessProbe": {**RAYLET_ALIVE, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 12},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": late},
    }


def _toleration(toleration: Toleration) -> Object:
    return {
        "key": toleration.key,
        **({"operator": "Equal", "value": toleration.value} if toleration.value else {"operator": "Exists"}),
        **({"effect": toleration.effect.value} if toleration.effect else {}),
    }


def _away_from_gpus() -> Object:
    term = {"matchExpressions": [{"key": GPU_NODE, "operator": "NotIn", "values": ["true"]}]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}


def _apart(workload: Workload) -> Object:
    among = {"matchLabels": {RELEASE: workload.release, NODE_TYPE: "worker"}}
    term = {"labelSelector": among, "topologyKey": HOSTNAME}
    if workload.kubernetes.spread is Spread.REQUIRE:
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
