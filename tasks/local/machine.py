"""Whether this machine can hold the embedded stack, asked before anything is started."""

import shutil
from pathlib import Path

import psutil

from tasks.errors import MachineError
from tasks.local import environments

_MB = 2**20
DISK_MB = 3000  # three commits of 270 MB on the Hub, in the store and in the cache, with logs and databases
MEMORY_MB = 9000  # measured: 3 GB for the parts, and 3.2 GB each for the live release and the candidate


def check(home: Path, *, ray_starts: bool) -> None:
    """Raise ``MachineError`` with the remedy where the payload, disk or memory is missing for what will start."""
    if reason := environments.unsupported_processor():
        raise MachineError(reason)
    if not environments.is_current("payload"):
        raise MachineError(
            "The payload environment is missing or not what its lock says.", remedy="Run `make install`."
        )
    disk = shutil.disk_usage(home).free // _MB
    if disk < DISK_MB:
        raise MachineError(
            f"The stack needs {DISK_MB} MB of disk and {home} has {disk} MB free.", remedy="Free some space."
        )
    memory = available_memory() // _MB
    if ray_starts and memory < MEMORY_MB:
        raise MachineError(
            f"The stack needs {MEMORY_MB} MB of memory and {memory} MB are available.",
            remedy="End other programs, or use a larger machine.",
        )


def available_memory(limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that programs may still take: the machine's, or what its container leaves."""
    free = psutil.virtual_memory().available
    try:
        limit = (limits / "memory.max").read_text().strip()
        used = int((limits / "memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)
