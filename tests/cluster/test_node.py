"""A node leaves nothing behind, however its test ends."""

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.cluster.node import CABLE, GROUP, NODE, node

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("able")]

HOLD = """\
import pathlib, subprocess, sys, time
from tests.cluster.node import node
with node(pathlib.Path(sys.argv[1])) as inside:
    inside.start(sys.argv[2:], "sleep")
    inside.run("mount", "-t", "tmpfs", "left", sys.argv[1] + "/kubelet")
    inside.run("ip", "link", "add", "pods", "type", "bridge")
    inside.run(*"iptables -t nat -A PREROUTING -p tcp -d 198.19.0.1 -j DNAT --to 198.18.0.1".split())
    print("up", flush=True)
    time.sleep(600)
"""
SLEEPER = ["/bin/busybox", "sleep", "12345"]
DEADLINE_S = 60.0


def test_a_node_is_a_machine_of_its_own(tmp_path: Path) -> None:
    """Its processes, interfaces and mounts are not this machine's, and one cable leads there."""
    with node(tmp_path) as inside:
        names = inside.run("ip", "-brief", "link").split()
        processes = inside.run("ps", "-e", "-o", "comm=").split()
        inside.start(["/bin/busybox", "nc", "-l", "-p", "8000", "-e", "echo", "here"], "nc")
        assert b"here\n" == heard(NODE, 8000)

    assert not [name for name in names if name.startswith(CABLE)]
    assert 2 == len(processes), "its first process, and the one that asks"
    assert_that_nothing_is_left(tmp_path)


def test_nothing_is_left_of_a_node_whose_test_was_killed(tmp_path: Path) -> None:
    """The kernel ends it; what it keeps, the next one removes."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    killed = subprocess.Popen([sys.executable, "-c", HOLD, first, *SLEEPER], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert killed.stdout is not None
    try:
        assert b"up\n" == killed.stdout.readline()
        (sleeper,) = running(SLEEPER)
    finally:
        killed.kill()
        killed.communicate()

    psutil.wait_procs([sleeper], DEADLINE_S)
    assert not sleeper.is_running()
    with node(second) as inside:
        rules = inside.run("iptables", "-t", "nat", "-S")
        assert "pods" not in inside.run("ip", "-brief", "link")
    assert "DNAT" not in rules
    assert_that_nothing_is_left(first, second)


def running(command: list[str]) -> list[psutil.Process]:
    """Return the processes of a command, at the latest when its program was loaded."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == command]
        if found:
            return found
        time.sleep(0.05)
    return []


def heard(host: str, port: int) -> bytes:
    """Return what is said to who connects."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port), timeout=5) as connection:
            return connection.recv(100)
        time.sleep(0.05)
    return b""


def assert_that_nothing_is_left(*folders: Path) -> None:
    """Assert that no mount, interface or cgroup of a node is there."""
    deadline = time.monotonic() + DEADLINE_S
    while Path("/sys/class/net", CABLE).exists():
        assert time.monotonic() < deadline, "the cable is left"
        time.sleep(0.05)
    mounts = Path("/proc/self/mounts").read_text()
    assert not [folder for folder in folders if f" {folder}" in mounts]
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{GROUP}"))
