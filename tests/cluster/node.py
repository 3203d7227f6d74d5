"""A machine within this one: processes, network and mounts of its own, so that nothing is left when it has gone.

    with node(folder) as inside:
        inside.start(["/usr/bin/containerd", ...], "containerd")

It goes with the test process, however that ends, by the kernel's hand: its first process is killed, and so all others
die, and no mount, no address and no rule of a firewall remains.  What the kernel keeps are its cgroups: they go when
it is left, or when the next one starts.  One cable leads to it, from ``HOST`` here to ``NODE`` there; it has no other
way out.  There is one on a machine at a time, and whoever wants another waits.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import psutil

from tests.kube import processes
from tests.kube.binaries import cache, one_at_a_time

NETWORK = IPv4Network("198.18.0.0/15")
"""Set aside for tests of networks (RFC 2544), so that no machine needs it for anything else."""
NODE, HOST = "198.18.0.1", "198.18.0.2"
PODS, SERVICES = IPv4Network("198.18.128.0/17"), IPv4Network("198.19.0.0/16")
CABLE, GROUP = "slipway0", "slipway-cluster"
"""The name of the cable here, and that of the node's cgroups."""
CGROUPS = Path("/sys/fs/cgroup")
DEADLINE_S = 60.0
_POLL_S = 0.05


class Node:
    """The running node; ``folder`` is its disk and holds the logs of what runs in it."""

    def __init__(self, folder: Path, first: int, starter: ThreadPoolExecutor) -> None:
        self.folder = folder
        self._first, self._starter = first, starter
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str | Path], name: str) -> "subprocess.Popen[bytes]":
        """Start a program in the node, with its output in ``NAME.log``; killing what is returned kills it."""
        inside = [*self._enter(), _found("setpriv"), "--pdeathsig", "KILL", "--", *command]
        process = self._starter.submit(processes.start, inside, self.folder / f"{name}.log").result()
        self._started.append(process)
        return process

    def run(self, *command: str | Path) -> str:
        """Run a program in the node and return its output; raises ``CalledProcessError``."""
        done = subprocess.run([*self._enter(), *command], check=True, capture_output=True, text=True, timeout=600)
        return done.stdout

    def close(self) -> None:
        """Kill what was started, and wait until it has gone."""
        for process in self._started:
            processes.kill(process)

    def _enter(self) -> list[str | Path]:
        return [_found("nsenter"), f"--target={self._first}", "--net", "--mount", "--pid", "--"]


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """Run a node in an empty folder until the block is left."""
    with one_at_a_time(cache() / "cluster"), ThreadPoolExecutor(1, "node") as starter:
        _forget_groups()
        _make_groups()
        (folder / "resolv.conf").write_text(f"nameserver {NODE}\n")
        first = starter.submit(processes.start, _first(folder), folder / "first.log").result()
        try:
            inside = Node(folder, _awaited(first, folder), starter)
            with closing(inside):
                _connect(inside)
                yield inside
        finally:
            _end(first)
            _forget_groups()


def _first(folder: Path) -> list[str | Path]:
    flags = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return [_found("unshare"), *flags, "--", sys.executable, "-I", Path(__file__).with_name("first.py"), folder]


def _found(program: str) -> str:
    path = shutil.which(program)
    assert path, f"this machine has no {program}"
    return path


def _awaited(first: "subprocess.Popen[bytes]", folder: Path) -> int:
    """Wait until the node's first process is at rest and return its number, as this machine counts."""
    deadline = time.monotonic() + DEADLINE_S
    while not (folder / "ready").exists():
        assert first.poll() is None, (folder / "first.log").read_text()
        assert time.monotonic() < deadline, "the node's first process does not come to rest"
        time.sleep(_POLL_S)
    (child,) = psutil.Process(first.pid).children()
    return child.pid


def _end(first: "subprocess.Popen[bytes]") -> None:
    """Kill the node; its first process is gone when all others are."""
    for child in psutil.Process(first.pid).children():
        child.kill()
        psutil.wait_procs([child], DEADLINE_S)
    processes.kill(first)


def _connect(inside: Node) -> None:
    """Lay the cable; one that a killed test left goes with its node, in a moment."""
    deadline = time.monotonic() + DEADLINE_S
    while Path("/sys/class/net", CABLE).exists():
        assert time.monotonic() < deadline, f"there is a network interface {CABLE} that is not ours"
        time.sleep(_POLL_S)
    _run("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "cable", "netns", str(inside._first))
    _run("ip", "address", "add", f"{HOST}/30", "dev", CABLE)
    _run("ip", "link", "set", CABLE, "up")
    inside.run("ip", "address", "add", f"{NODE}/30", "dev", "cable")
    inside.run("ip", "link", "set", "cable", "up")
    # A program of the node that asks a Service is led elsewhere only after a way to the Service was found.
    inside.run("ip", "route", "add", str(SERVICES), "dev", "cable")
    for network in (PODS, SERVICES):
        _run("ip", "route", "add", str(network), "via", NODE, "dev", CABLE)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _hierarchies() -> list[Path]:
    """Return where cgroups are made: one place on a machine with version 2 of them, several with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink()]


def _make_groups() -> None:
    for hierarchy in _hierarchies():
        (hierarchy / GROUP).mkdir(exist_ok=True)


def _forget_groups() -> None:
    """Remove the cgroups of a node that has gone; a process that is just dying holds one for a moment."""
    deadline = time.monotonic() + DEADLINE_S
    left = [hierarchy / GROUP for hierarchy in _hierarchies()]
    while left := [group for group in left if group.exists() and not _is_removed(group)]:
        assert time.monotonic() < deadline, f"processes are left in {left[0]}"
        time.sleep(_POLL_S)


def _is_removed(group: Path) -> bool:
    try:
        for inner, _, _ in os.walk(group, topdown=False):
            Path(inner).rmdir()
    except OSError:
        return False
    return True
