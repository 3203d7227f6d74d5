"""The first process of a node: it makes the node's folders its own, and takes in every process whose parent has gone.

With it goes all of the node: the kernel kills the processes, and forgets the mounts and the network.
"""

import signal
import subprocess
import sys
from pathlib import Path

KEPT = ("cni", "containerd", "kubelet")
"""What its programs keep in ``/var/lib`` is in the node's own folder."""


def main(folder: Path) -> None:
    """Make the folders that programs share the node's own, say so in ``ready``, and stay."""
    for place in ("/run", "/var/log"):
        _run("mount", "-t", "tmpfs", "node", place)
    for name in KEPT:
        (folder / name).mkdir()
        Path("/var/lib", name).mkdir(exist_ok=True)
        _run("mount", "--bind", str(folder / name), f"/var/lib/{name}")
    _name_server(folder / "resolv.conf")
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    (folder / "ready").touch()
    while True:
        signal.pause()


def _name_server(configuration: Path) -> None:
    """Have the node's own programs ask the cluster for names."""
    place = Path("/etc/resolv.conf").resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    _run("mount", "--bind", str(configuration), str(place))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
