"""The example specs render to the deployments that they are modelled on.

``mistral`` is the RayService of "RayServe with vLLM" (data-on-eks) and of "RayService with vLLM on EKS"
(sample-genai-on-eks); ``llama-70b`` the tensor-parallel one of "Ray Serve and vLLM Integration Architecture".
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.kinds import Object
from k8s.rendering import release_objects, service_objects
from tasks._release.wishes import wanted
from tasks._release.workloads import workload_of
from tasks._spec_file import load_spec
from tests.k8s.matrix import COMMIT

SERVICES = Path(__file__).parents[2] / "serve" / "services"


def rendered(service: str) -> dict[str, Object]:
    """Return a service's first release by kind, its RayService's cluster under ``cluster``."""
    spec = load_spec(SERVICES, service)
    release = wanted(spec, COMMIT, "https://huggingface.co", number=1)
    workload = workload_of(release, f"s3://models/models/{spec.model}/{COMMIT}", "rayserve-vllm")
    objects = {one["kind"]: one for one in (*release_objects(workload), *service_objects(workload))}
    return {**objects, "cluster": objects["RayService"]["spec"]["rayClusterConfig"]}


def pod(group: dict[str, Any]) -> tuple[Object, Object]:
    """Return the pod of a group and its only container."""
    spec = group["template"]["spec"]
    return spec, spec["containers"][0]


def test_mistral_is_one_gpu_worker_beside_a_head_on_a_cpu_node() -> None:
    """Head: 2 CPUs and 12 GB on m5.xlarge; one worker: one GPU and 28 GB; weights at /models; the token a Secret."""
    cluster = rendered("mistral")["cluster"]
    head, ray = pod(cluster["headGroupSpec"])
    group = cluster["workerGroupSpecs"][0]
    worker, engine = pod(group)

    assert ({"cpu": "2", "memory": "12G"}, "m5.xlarge") == (
        ray["resources"]["limits"],
        head["nodeSelector"]["node.kubernetes.io/instance-type"],
    )
    assert (1, 1, 1) == tuple(group[name] for name in ("replicas", "minReplicas", "maxReplicas"))
    assert {"memory": "28G", "nvidia.com/gpu": "1"}.items() <= engine["resources"]["limits"].items()
    assert "g6e.2xlarge" == worker["nodeSelector"]["node.kubernetes.io/instance-type"]
    for container in (ray, engine):
        assert {"name": "weights", "mountPath": "/models"} in container["volumeMounts"]
        token = next(one for one in container["env"] if one["name"] == "HF_TOKEN")
        assert {"secretKeyRef": {"name": "hf-token", "key": "token"}} == token["valueFrom"]
    assert {6379, 8265, 8000} <= {port["containerPort"] for port in ray["ports"]}


def test_llama_is_four_gpus_a_replica_and_scales_with_the_load() -> None:
    """Two workers at first, each with four GPUs for one tensor-parallel engine, on nodes that Karpenter brings."""
    objects = rendered("llama-70b")
    cluster = objects["cluster"]
    head, ray = pod(cluster["headGroupSpec"])
    group = cluster["workerGroupSpecs"][0]
    worker, engine = pod(group)
    args = yaml.safe_load(objects["RayService"]["spec"]["serveConfigV2"])["applications"][0]["args"]

    assert {"cpu": "4", "memory": "16Gi"} == ray["resources"]["limits"]
    assert "nodeSelector" not in head
    assert (2, 2, 8) == tuple(group[name] for name in ("replicas", "minReplicas", "maxReplicas"))
    assert "4" == engine["resources"]["limits"]["nvidia.com/gpu"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in worker["tolerations"]
    assert {"karpenter.k8s.aws/instance-family": "g6e"} == worker["nodeSelector"]
    assert 4 == args["engine"]["tensor_parallel_size"]
    assert (2, 8, 5, 30, 300) == tuple(
        args["resources"]["autoscaling"][name]
        for name in (
            "min_replicas",
            "max_replicas",
            "target_ongoing_requests",
            "upscale_delay_s",
            "downscale_delay_s",
        )
    )


@pytest.mark.parametrize("service", ["mistral", "llama-70b"])
def test_only_the_serve_port_leaves_the_namespace(service: str) -> None:
    """The dashboard is reached by port-forward, through the namespace's own access rules."""
    assert ("ClusterIP", [8000]) == (
        rendered(service)["Service"]["spec"]["type"],
        [port["port"] for port in rendered(service)["Service"]["spec"]["ports"]],
    )
