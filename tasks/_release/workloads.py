"""A release as the pods that run it: what the targets tell the payload, and what Kubernetes is to provide.

Pure: a release carries its spec, so that what is made of it is the same whoever makes it.
"""

from typing import Any

from pydantic import ValidationError

from k8s.workload import Workload
from tasks._release.step_result import spec_of
from tasks.errors import BadInput
from tasks.records import Release
from tasks.spec import ServiceSpec


def payload_arguments(release: Release, weights: str) -> dict[str, Any]:
    """Return the arguments of ``serve.app:build`` for the release with its weights at the store URL ``weights``."""
    spec = spec_of(release)
    return {
        "service": release.service,
        "release": release.name,
        "commit": release.commit,
        "model": release.model,
        "served_model_name": release.service,
        "weights": weights,
        "engine": spec.engine,
        "resources": spec.resources.model_dump(mode="json", exclude_none=True),
        "longest_request_s": spec.deadlines.request,
    }


def workload_of(release: Release, weights: str, namespace: str) -> Workload:
    """Return what is to run in ``namespace``; raises ``BadInput`` for a spec that cannot run on Kubernetes."""
    spec = spec_of(release)
    if spec.kubernetes is None:
        raise BadInput(
            f"The spec of {release.name} does not say how it runs on Kubernetes.",
            remedy="Set `target: kuberay`, and `image` in its section `kubernetes`.",
        )
    try:
        return Workload(
            service=release.service,
            release=release.name,
            commit=release.commit,
            arguments=_arguments(release, weights, spec),
            longest_s=spec.deadlines.request,
            bake_s=spec.bake.seconds,
            replicas=spec.resources.at_first,
            most_replicas=spec.resources.autoscaling.max_replicas if spec.resources.autoscaling else 0,
            cpus=spec.resources.cpus,
            gpus=spec.resources.gpus,
            pipeline=_stages(spec),
            kubernetes=spec.kubernetes,
            namespace=namespace,
        )
    except ValidationError as error:
        faults = "; ".join(_fault(detail["loc"], detail["msg"]) for detail in error.errors())
        raise BadInput(f"{release.name} cannot run on Kubernetes: {faults}.", remedy="Mend the spec.") from error


def _arguments(release: Release, weights: str, spec: ServiceSpec) -> dict[str, Any]:
    """Return the payload's arguments, with one replica to a pod: one without would never be ready."""
    told = payload_arguments(release, weights)
    if _stages(spec) > 1:
        return told
    return {**told, "resources": {**told["resources"], "max_replicas_per_node": 1}}


def _stages(spec: ServiceSpec) -> int:
    """Return how many pods a replica is; without GPUs it is one, however its layers are cut."""
    return int(spec.engine.get("pipeline_parallel_size", 1)) if spec.resources.gpus else 1


def _fault(where: tuple[int | str, ...], said: str) -> str:
    text = said.removeprefix("Value error, ")
    return f"{'.'.join(map(str, where))}: {text}" if where else text
