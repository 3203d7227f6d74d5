"""The payload on a whole cluster without a registry: the environment ``serve/.venv`` as the image of a service.

The image is a skeleton.  What it lacks, this machine's ``/usr``, its Python, the environment and ``serve/``, comes as
folders of the node, read-only and under the same names, by ``kubernetes.mounts`` of the service's spec.  So nothing
is copied, and what runs in the pods is what runs on one machine.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tasks.local.environments import ROOT, environment_python
from tests.cluster.images import Entry, Image

IMAGE = "slipway.test/payload:1"
SECRET = "store"
"""The Secret with the keys of the store."""
USER = 1000
SPEC: dict[str, Any] = {
    "service": "chat",
    "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "target": "kuberay",
    "resources": {"cpus": 2},
    "engine": {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 8},
    "bake": {"seconds": 20},
    "checks": {"performance": {"requests": 4, "tokens": 16}},
    "deadlines": {"ready": 1500, "request": 60},
    "probe": {"rate": 0.5, "streams": 1, "stream_tokens": 32},
}
"""As in ``serve/services/chat.yaml``, for releases that share a machine with their cluster."""
ON_A_SHARED_MACHINE = {"RAY_worker_niceness": "0"}
"""Ray's workers make way for all other work of a machine, which a node of their own does not have."""
SMALL = {"cpu": "100m", "limit_cpu": False}


def image() -> Image:
    """Return the skeleton: a user, folders to write to, and links into ``/usr``."""
    environment = environment_python("payload").parent.parent
    links = {name: Entry(link=f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")}
    entries = {
        **{name: Entry() for name in ("app", "app/serve", "dev", "etc", "home", "proc", "sys", "usr", "var")},
        **links,
        "cache": Entry(owner=USER),
        "home/ray": Entry(owner=USER),
        "tmp": Entry(mode=0o1777),
        "etc/passwd": Entry(f"root:x:0:0::/root:/bin/sh\nray:x:{USER}:{USER}::/home/ray:/bin/bash\n".encode()),
        "etc/group": Entry(f"root:x:0:\nray:x:{USER}:\n".encode()),
    }
    variables = {
        "PATH": f"{environment / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/app",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/home/ray",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return Image(IMAGE, entries, environment=variables)


def mounts() -> list[dict[str, str]]:
    """Return the folders that the skeleton lacks, as a spec names them."""
    environment = environment_python("payload").parent.parent
    python = Path(os.path.realpath(environment_python("payload"))).parent.parent
    places = {folder: folder for folder in (Path("/usr"), environment, python)} | {ROOT / "serve": Path("/app/serve")}
    within_usr = [folder for folder in places if folder != Path("/usr") and folder.is_relative_to("/usr")]
    return [{"host_path": str(here), "path": str(there)} for here, there in places.items() if here not in within_usr]


def write_service(folder: Path, endpoint: str) -> str:
    """Write the service's spec and prompts into ``folder`` and return its name; its store is at ``endpoint``."""
    section = {
        "image": IMAGE,
        "allow_tag": True,
        "head": {**SMALL, "memory": "2Gi"},
        "worker": {**SMALL, "memory": "4Gi"},
        "mounts": mounts(),
        "secrets": [SECRET],
        "environment": {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1", **ON_A_SHARED_MACHINE},
    }
    service = str(SPEC["service"])
    (folder / f"{service}.yaml").write_text(yaml.safe_dump({**SPEC, "kubernetes": section}, sort_keys=False))
    prompts = f"{service}.prompts.yaml"
    shutil.copyfile(ROOT / "serve" / "services" / prompts, folder / prompts)
    return service
