"""The steps of ``k8s/README.md`` that need no more than an API server, run as they are written."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.k8s.matrix import text
from tests.kube.control_plane import ADMIN, ControlPlane

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMESPACE = "llm"


def commands(step: int) -> str:
    """Return the commands of a step of the guide's first section."""
    section = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8").split("\n## ")[1]
    body = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[step]
    block = re.search(r"```\n(.*?)```", body, re.DOTALL)
    assert block, f"step {step} has no commands"
    return "\n".join(line.strip() for line in block[1].splitlines())


def run(script: str, kubeconfig: Path, folder: Path, given: str | None = None) -> str:
    """Run commands in a folder that holds ``k8s/``; return what they print, errors included."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH, and the guide is written for it")
def test_the_account_of_the_guide_can_apply_what_is_rendered(kube: ControlPlane, tmp_path: Path) -> None:
    """Namespace, account and kubeconfig as the guide makes them; with that one, a dry run of a whole release."""
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    admin = kube.kubeconfig(ADMIN)
    run(commands(1), admin, tmp_path)
    authority = (
        f"kubectl create configmap kube-root-ca.crt -n {NAMESPACE} --from-file=ca.crt={admin.parent / 'ca.crt'}"
    )
    run(authority, admin, tmp_path)  # as every cluster's controller manager does
    own = tmp_path / "slipway.kubeconfig"
    try:
        for step in (2, 3):
            run(commands(step), admin, tmp_path)
        check(own, tmp_path)
    finally:
        run("kubectl delete --wait=false -f k8s/rbac.yaml -f k8s/rbac-capacity.yaml", admin, tmp_path)


def check(own: Path, folder: Path) -> None:
    """Check what the kubeconfig of the account leads to."""
    run("until kubectl auth can-i create rayservices.ray.io; do sleep 0.2; done", own, folder)
    assert f"system:serviceaccount:{NAMESPACE}:slipway" in run("kubectl auth whoami", own, folder)
    assert own.stat().st_mode & 0o077 == 0
    applied = run("kubectl apply --dry-run=server -f -", own, folder, text("gpu"))
    assert "rayservice.ray.io/chat-r7 created (server dry run)" in applied
    assert "service/chat created (server dry run)" in applied
