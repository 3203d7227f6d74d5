"""A release as what Kubernetes is to run, and the section of the spec that says how."""

import pytest

from tasks._release.wishes import wanted
from tasks._release.workloads import workload_of
from tasks._spec_file import parse_spec
from tasks.errors import BadInput
from tasks.records import Release

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = f"s3://models/models/org/name/{COMMIT}"
SMALL = f"""
service: chat
model: org/name
target: kuberay
resources: {{cpus: 6, gpus: 1}}
kubernetes:
  image: registry.example.com/payload@sha256:{"5" * 64}
  worker: {{cpu: 6, memory: 28Gi}}
"""


def release(text: str) -> Release:
    """Return the first release of a spec."""
    return wanted(parse_spec(text, "chat.yaml"), COMMIT, "https://hub")


def test_a_few_lines_are_a_service_on_kubernetes() -> None:
    """What is not said has a default; the longest request and the bake decide every wait."""
    workload = workload_of(release(SMALL), WEIGHTS, "llm")

    assert ("chat-r1", "llm", 1, 1, 120, 20) == (
        workload.release,
        workload.namespace,
        workload.workers,
        workload.pod_gpus,
        workload.longest_s,
        workload.bake_s,
    )


def test_every_pod_has_its_replica() -> None:
    """Two small replicas in one pod would leave another without, which then never becomes ready."""
    one_node = workload_of(release(SMALL), WEIGHTS, "llm").arguments["resources"]
    piped = SMALL.replace("gpus: 1", "gpus: 2") + "engine: {pipeline_parallel_size: 2}\n"
    across = workload_of(release(piped), WEIGHTS, "llm")

    assert 1 == one_node["max_replicas_per_node"]
    assert "max_replicas_per_node" not in across.arguments["resources"]
    assert (2, 1, 2) == (across.workers, across.pod_gpus, across.endpoints)


def test_layers_cut_without_gpus_stay_in_one_pod() -> None:
    """Serve places such a replica as one actor."""
    text = SMALL.replace("gpus: 1", "gpus: 0") + "engine: {pipeline_parallel_size: 2}\n"

    assert 1 == workload_of(release(text), WEIGHTS, "llm").workers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("service: chat\nmodel: org/name\ntarget: kuberay\n", "the target kuberay needs this section"),
        (SMALL.replace("target: kuberay\n", ""), "line 5: kubernetes: Value error, the target ray has no use for"),
        (SMALL.replace("@sha256:" + "5" * 64, ":1.2"), "line 7: kubernetes.image: Value error, an image without a"),
        (SMALL.replace("28Gi", "28 GB"), "line 8: kubernetes.worker.memory: Value error, a quantity is written"),
        (SMALL.replace("image:", "imagge:"), "line 7: unknown key 'kubernetes.imagge'"),
    ],
)
def test_a_section_that_does_not_fit_is_told_with_its_line(text: str, said: str) -> None:
    """A person finds the place and what to write there."""
    with pytest.raises(BadInput) as caught:
        parse_spec(text, "chat.yaml")

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "weights", "said"),
    [
        ("service: chat\nmodel: org/name\n", WEIGHTS, "Set `target: kuberay`"),
        (SMALL.replace("gpus: 1", "gpus: 1.5"), WEIGHTS, "1.5 GPUs: a pod is given whole ones"),
        (SMALL, f"file:///store/{COMMIT}", "which no pod sees: set `kubernetes.weights.claim`"),
    ],
)
def test_what_kubernetes_cannot_run_is_wrong_input(text: str, weights: str, said: str) -> None:
    """The target refuses it before it touches a cluster."""
    with pytest.raises(BadInput) as caught:
        workload_of(release(text), weights, "llm")

    assert said in str(caught.value)
