"""Whether somebody else edited a RayService: what is there against what was rendered.

A release never changes but for its drain switch.  The API server adds defaults and the operator, which writes the
whole object once to add its finalizer, drops empty values and writes quantities its own way, so the rendered spec
has to be contained in what is there, not to be equal to it.
"""

import json
from functools import lru_cache

import yaml
from kubernetes.utils.quantity import parse_quantity

from k8s import names
from k8s.kinds import Object
from k8s.parts import serve_config
from k8s.serve_config import with_drain


def edited(ray_service: Object) -> str | None:
    """Return the first place where the spec is not as it was rendered, e.g. ``serveConfigV2``; None when it is."""
    annotations = ray_service["metadata"].get("annotations") or {}
    spec = ray_service.get("spec") or {}
    try:
        rendered = dict(json.loads(annotations[names.RENDERED]))
        is_ours = _is_ours(str(spec.get("serveConfigV2")), rendered["serveConfigV2"])
    except (LookupError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return f"metadata.annotations[{names.RENDERED}]"
    return _difference("", _plain(rendered), _plain(spec)) if is_ours else "serveConfigV2"


def _plain(spec: Object) -> Object:
    return {key: value for key, value in spec.items() if key != "serveConfigV2"}


@lru_cache(maxsize=64)
def _is_ours(config: str, rendered: str) -> bool:
    """Say whether Serve is to run what was rendered, the drain switch untouched, on or off."""
    ours = (rendered, with_drain(rendered, on=True), with_drain(rendered, on=False))
    return serve_config({"serveConfigV2": config}) in [yaml.safe_load(one) for one in ours]


def _difference(path: str, wanted: object, found: object) -> str | None:
    """Return where ``wanted`` is not contained in ``found``; what is empty counts as absent."""
    if not wanted and not found:
        return None
    if isinstance(wanted, dict) and isinstance(found, dict):
        places = ((f"{path}.{key}".lstrip("."), value, found.get(key)) for key, value in wanted.items())
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        places = ((f"{path}[{at}]", *pair) for at, pair in enumerate(zip(wanted, found, strict=True)))
    else:
        return None if _same(wanted, found) else path
    return next((place for one in places if (place := _difference(*one))), None)


def _same(wanted: object, found: object) -> bool:
    if wanted == found:
        return True
    try:
        return bool(parse_quantity(wanted) == parse_quantity(found))
    except (ValueError, TypeError):
        return False
