"""The target: one Ray cluster or one namespace of Kubernetes, our rights and the payload's version there."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tasks._doctor.finding import Finding, told
from tasks._doctor.surroundings import ANSWER_S
from tasks.settings import KubernetesSettings, RaySettings, Settings

TARGET = "target"
LOCK = Path(__file__).resolve().parents[2] / "serve" / "requirements-gpu.lock"
"""What the payload's image is made from; it pins the same Ray as the lock for this machine."""


def target_findings(settings: Settings) -> Iterator[Finding]:
    """Ask the one target that is configured; which one it should be is no matter of this check."""
    if settings.kubernetes.namespace:
        yield from _kubernetes(settings.kubernetes)
    elif settings.ray.dashboard:
        yield from _ray(settings.ray)


def _ray(settings: RaySettings) -> Iterator[Finding]:
    bearer = {"Authorization": f"Bearer {settings.token.get_secret_value()}"} if settings.token else {}
    base = settings.dashboard.rstrip("/")
    try:
        with httpx.Client(headers=bearer, timeout=ANSWER_S, trust_env=False) as client:
            status = client.get(f"{base}/api/serve/applications/").status_code
            version = client.get(f"{base}/api/version")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Finding(
            about=TARGET,
            what=f"The Ray cluster at {base} does not answer ({type(error).__name__}).",
            remedy="Start it (`slipway up` for the embedded one), or mend SLIPWAY_RAY__DASHBOARD.",
        )
        return
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        yield Finding(
            about=TARGET,
            what=f"The Ray cluster at {base} refuses the token with status {status}.",
            remedy="Set SLIPWAY_RAY__TOKEN to the cluster's own.",
        )
    elif status != httpx.codes.OK:
        yield Finding(
            about=TARGET,
            what=f"What answers at {base} does not know Ray Serve's applications (status {status}).",
            remedy="Set SLIPWAY_RAY__DASHBOARD to the address of a Ray dashboard.",
        )
    elif version.is_success:
        yield from other_version(f"The Ray cluster at {base}", version.json().get("ray_version"), pinned_ray())


def pinned_ray(lock: Path = LOCK) -> str:
    """Return the version of Ray that the payload is locked to."""
    found = re.search(r"^ray==(\S+)", lock.read_text(), re.MULTILINE)
    return found[1] if found else ""


def other_version(who: str, version: object, pinned: str) -> Iterator[Finding]:
    """Yield that somebody runs another Ray than the payload was built and measured with."""
    if isinstance(version, str) and pinned and version != pinned:
        yield Finding(
            about=TARGET,
            what=f"{who} runs Ray {version}, and the payload is locked to {pinned}.",
            remedy="Use the image built from serve/ of this version, or install the version that made the cluster.",
        )


def _kubernetes(settings: KubernetesSettings) -> Iterator[Finding]:
    """Ask for what a release needs to read, and rehearse what it writes; nothing is changed."""
    from k8s.access import Access  # noqa: PLC0415 - the client takes 0.3 s that other targets need not pay
    from k8s.api import Api  # noqa: PLC0415
    from k8s.errors import ApiError, Reason  # noqa: PLC0415
    from k8s.kinds import ENDPOINT_SLICE, POD, RAY_CLUSTER, RAY_SERVICE, SERVICE  # noqa: PLC0415
    from tasks._release.kuberay import translate  # noqa: PLC0415

    access = Access(kubeconfig=settings.kubeconfig, context=settings.context, namespace=settings.namespace)
    try:
        with closing(Api(access)) as api:
            for kind in (RAY_SERVICE, RAY_CLUSTER, SERVICE, POD, ENDPOINT_SLICE):
                try:
                    listed = api.list(kind, patient=False)
                except ApiError as error:
                    yield told(TARGET, translate(error))
                    if error.reason not in (Reason.FORBIDDEN, Reason.NOT_SERVED):
                        return
                    continue
                if kind is RAY_SERVICE:
                    for one in listed.items:
                        yield from _of_service(one)
            api.apply(_SERVICE, dry_run=True)
    except ApiError as error:
        yield told(TARGET, translate(error))


def _of_service(one: dict[str, Any]) -> Iterator[Finding]:
    config = one.get("spec", {}).get("rayClusterConfig", {})
    yield from other_version(f"The release {one['metadata']['name']}", config.get("rayVersion"), pinned_ray())


_SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "slipway-doctor"},
    "spec": {"ports": [{"port": 8000}], "selector": {"slipway.dev/doctor": "nobody"}},
}
