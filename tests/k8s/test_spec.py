"""The section ``kubernetes`` of a spec: what fits is read, what does not is told in one sentence."""

import pytest
from pydantic import ValidationError

from k8s.spec import Kubernetes
from k8s.workload import Workload

IMAGE = "registry.example.com/payload@sha256:" + "5" * 64


def section(**given: object) -> Kubernetes:
    """Return a section with an image and ``given``."""
    return Kubernetes.model_validate({"image": IMAGE, **given})


def test_an_image_is_all_that_must_be_said() -> None:
    """Everything else has a default that works."""
    assert ("2", "8Gi", "ClusterIP") == (section().head.cpu, section().head.memory, section().access.type)


def test_quantities_are_written_as_yaml_reads_them() -> None:
    """A number without quotes is a quantity too."""
    worker = section(worker={"cpu": 2, "memory": "1.5Gi"}).worker

    assert ("2", "1.5Gi") == (worker.cpu, worker.memory)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "registry.example.com/payload:1.2"}, "write name@sha256:..., which the registry shows"),
        ({"image": "a b", "allow_tag": True}, "write name@sha256:"),
        ({"worker": {"memory": "28 GB"}}, "a quantity is written 2, 500m, 28Gi or 12G"),
        ({"worker": {"memory": "0"}}, "a quantity is written"),
        ({"worker": {"cpu": True}}, "valid string"),
        ({"weights": {"claim": "a", "host_path": "/b"}}, "name one"),
        ({"weights": {"host_path": "/b", "size": "1Gi"}}, "leave it out"),
        ({"weights": {"path": "/"}}, "a path is absolute and plain"),
        ({"weights": {"path": "/a/../b"}}, "a path is absolute and plain"),
        ({"mounts": [{"path": "/a"}]}, "a mount has one of"),
        ({"mounts": [{"path": "/a", "claim": "b", "secret": "c"}]}, "a mount has one of"),
        ({"environment": {"HF_TOKEN": "x"}}, "HF_TOKEN follows from the rest of the spec: leave it out"),
        ({"redis": {"address": "redis://user:word@host:6379"}}, "should match pattern"),
        ({"network": {"clients": ["a"]}, "access": {"type": "NodePort"}}, "leave one of them out"),
        ({"hub_token": "hf_secret"}, "valid dictionary or instance of SecretKey"),
        ({"spread": "never"}, "'prefer' or 'require'"),
        ({"replicas": 2}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, object], said: str) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(ValidationError) as caught:
        section(**given)

    assert said in str(caught.value)


def test_a_tag_is_taken_where_the_spec_says_so() -> None:
    """On one's own machine images have no digest yet."""
    assert "payload:dev" == section(image="payload:dev", allow_tag=True).image


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"release": "c" * 40 + "-r1234567"}, "has 49 letters, and KubeRay takes 47"),
        ({"release": "Chat-r1"}, "is no DNS label"),
        ({"gpus": 0.5}, "a pod is given whole ones"),
        ({"gpus": 3, "pipeline": 2}, "cannot be dealt out evenly to 2 stages"),
        ({"replicas": 3, "most_replicas": 2}, "at most 2 replicas, but 3 at the start"),
        ({"arguments": {"weights": "file:///models/a"}}, "set `kubernetes.weights.claim`"),
        (
            {"arguments": {"weights": "file:///store/a"}, "kubernetes": section(weights={"claim": "models"})},
            "the weights lie in /store/a, which no pod sees",
        ),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_made(given: dict[str, object], said: str) -> None:
    """A release that no cluster could run is refused without asking one."""
    fits = {"service": "chat", "release": "chat-r1", "commit": "0" * 40, "arguments": {}, "longest_s": 60}
    with pytest.raises(ValidationError) as caught:
        Workload.model_validate({**fits, "kubernetes": section(), "namespace": "llm", **given})

    assert said in str(caught.value)
