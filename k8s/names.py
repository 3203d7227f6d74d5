"""What Slipway's objects are called and marked with: by these alone a later run finds what an earlier one made.

Names follow from the service and the release, so whoever makes an object again makes the same one.
"""

import re

SERVICE = "slipway.dev/service"
RELEASE = "slipway.dev/release"
COMMIT = "slipway.dev/commit"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "slipway"
"""Value of ``MANAGED_BY``, and the field manager of what is applied."""

SERVES = "ray.io/serve"
"""KubeRay's label: ``"true"`` on workers always, on the head while its proxy is healthy."""

RENDERED = "slipway.dev/rendered"
"""Annotation: the spec as it was rendered, as JSON; what differs from it was edited by a foreign hand."""
DRAINING_SINCE = "slipway.dev/draining-since"
"""Annotation: when the release was told to drain, in ISO 8601."""

RELEASE_HEADER = "x-slipway-release"
"""Header of a request that leads it to the release of that name, where a Gateway routes."""

NOBODY = "none"
"""Value of ``RELEASE`` in the selector of a stable Service that leads nowhere; no release is called so."""

MOST_LETTERS = 47
"""Of a RayService's name: KubeRay 1.7 adds up to 16 to it, and refuses longer ones."""

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")  # RFC 1035, as for the Services that share it


def name_fault(name: str) -> str | None:
    """Return what speaks against a RayService of that name, as the end of a sentence."""
    if len(name) > MOST_LETTERS:
        return f"has {len(name)} letters, and KubeRay takes {MOST_LETTERS}"
    if not _NAME.fullmatch(name):
        return "is no DNS label: lower-case letters, digits and dashes, beginning with a letter"
    return None


def service_labels(service: str) -> dict[str, str]:
    """Return the labels of what all releases of a service share."""
    return {MANAGED_BY: MANAGER, SERVICE: service}


def release_labels(service: str, release: str, commit: str) -> dict[str, str]:
    """Return the labels of what belongs to one release, its pods included."""
    return {**service_labels(service), RELEASE: release, COMMIT: commit}


def traffic_selector(service: str, release: str | None) -> dict[str, str]:
    """Return the selector of pods of ``release`` that take requests; None selects no pod."""
    return {SERVICE: service, RELEASE: release or NOBODY, SERVES: "true"}
