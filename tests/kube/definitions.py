"""The custom resource definitions that tests install: the real ones where they can be had.

KubeRay's come from a folder of the real ones, when ``SLIPWAY_KUBERAY_CRDS`` names it or it lies beside the checkout;
otherwise from ``crds/``, which was written from the documentation and accepts whatever the tests' objects hold.
Those of Gateway API, Karpenter and the Prometheus operator are in Go modules, pinned in ``modules/crds``.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

from tests.kube.binaries import go

HERE = Path(__file__).parent
_BESIDE = HERE.parents[2] / "shared" / "crds" / "kuberay-1.7.0"
_KUBERAY = ("ray.io_rayservices.yaml", "ray.io_rayclusters.yaml")
_IN_MODULES = {
    "sigs.k8s.io/gateway-api": ("config/crd/standard", "gateway.networking.k8s.io", "gateways httproutes"),
    "sigs.k8s.io/karpenter": ("pkg/apis/crds", "karpenter.sh", "nodepools"),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd",
        "monitoring.coreos.com",
        "podmonitors servicemonitors prometheusrules",
    ),
}


def real_kuberay() -> Path | None:
    """Return the folder of KubeRay's own definitions, where it is there: the one place that looks for it."""
    folder = Path(os.environ.get("SLIPWAY_KUBERAY_CRDS") or _BESIDE)
    return folder if all((folder / name).is_file() for name in _KUBERAY) else None


def kuberay() -> list[Path]:
    """Return the files of the definitions of RayService and RayCluster."""
    folder = real_kuberay() or HERE / "crds"
    return [folder / name for name in _KUBERAY]


@functools.cache
def from_modules() -> list[Path]:
    """Return the files of those of Gateway API, Karpenter and the Prometheus operator.

    Raises ``MissingProgram`` without Go, and ``BuildFailed``.
    """
    found = []
    places = _decoded(go("mod", "download", "-json", *_IN_MODULES, module="crds"))
    for place in places:
        folder, group, plurals = _IN_MODULES[place["Path"]]
        found += [Path(place["Dir"]) / folder / f"{group}_{plural}.yaml" for plural in plurals.split()]
    return found


def _decoded(text: str) -> list[dict[str, Any]]:
    """Return the JSON documents that follow each other in a text."""
    documents, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents
