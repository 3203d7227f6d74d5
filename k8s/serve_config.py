"""``serveConfigV2``: what KubeRay hands to Serve's REST API, and the one thing in it that changes later.

https://docs.ray.io/en/releases-2.60.0/serve/api/index.html#serve-rest-api-config-schema
"""

from typing import Any

import yaml

from k8s.drains import drains
from k8s.workload import Workload

IMPORT_PATH = "serve.app:build"
DEPLOYMENT = "engine"
"""The payload's one deployment, to which the drain switch is addressed."""
SERVE_PORT = 8000


def serve_config(workload: Workload) -> str:
    """Return the document for a release that is not draining, as YAML."""
    return _text(
        {
            "proxy_location": "EveryNode",
            "http_options": {
                "host": "0.0.0.0",  # noqa: S104 - a pod's own address; policies say who reaches it
                "port": SERVE_PORT,
                "keep_alive_timeout_s": drains(workload.longest_s, workload.bake_s).keep_alive,
            },
            "applications": [
                {
                    "name": workload.release,
                    "route_prefix": "/",
                    "import_path": IMPORT_PATH,
                    "args": workload.arguments,
                }
            ],
        }
    )


def with_drain(config: str, *, on: bool) -> str:
    """Return ``config`` with the drain switch set, which Serve takes without starting a replica anew."""
    told = yaml.safe_load(config)
    switched = [
        {**app, "deployments": [{"name": DEPLOYMENT, "user_config": {"drain": on}}]} for app in told["applications"]
    ]
    return _text({**told, "applications": switched})


def is_draining(config: str) -> bool:
    """Say whether every application of ``config`` has the drain switch on."""
    applications = (yaml.safe_load(config) or {}).get("applications") or [{}]
    return all(_switch(application) for application in applications)


def _switch(application: dict[str, Any]) -> bool:
    deployments = application.get("deployments") or [{}]
    return (deployments[0].get("user_config") or {}).get("drain") is True


def _text(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=10**6)
