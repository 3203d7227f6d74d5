"""What a whole cluster needs of this machine: Linux, root, and some programs of the distribution.

``python -m tests.cluster.machine`` gets what is not here, on Debian and its kin, and builds Kubernetes' own programs,
once.  Where there can be no cluster it says so, and its tests are skipped.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.images import BUSYBOX
from tests.kube.binaries import SOURCES, report, say

PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where distributions, and where others, put the programs that connect pods."""
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Programs, and Debian's packages that hold them."""


def lacking() -> str:
    """Return why no cluster can be brought up here, as a sentence; empty when one can."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return "A whole cluster needs Linux and root: it has a network, mounts and containers of its own."
    if packages := _missing():
        return f"A whole cluster needs programs that are not here; Debian's packages are {' '.join(packages)}."
    return ""


def plugins() -> Path:
    """Return the folder of the programs that connect pods."""
    return next(folder for folder in PLUGINS if (folder / "bridge").exists())


def _missing() -> list[str]:
    missing = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if not any((folder / "bridge").exists() for folder in PLUGINS):
        missing.add("containernetworking-plugins")
    if not BUSYBOX.exists():
        missing.add("busybox-static")
    return sorted(missing)


def main() -> int:
    """Get and build what is missing; return the exit status."""
    if os.geteuid() == 0 and (packages := _missing()) and shutil.which("apt-get"):
        say(f"Installing {' '.join(packages)}.")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", "--quiet", *command], check=False, env=environment)
    if why := lacking():
        say(why)
        return 0
    return report(SOURCES)


if __name__ == "__main__":
    sys.exit(main())
