"""Which process holds something in the store, told so that another one on the same machine can see it die.

A process is named by machine and boot, process namespace, id and start: an id alone is used again after a while.
"""

import os
from functools import cache
from pathlib import Path

import psutil


def this_process() -> str:
    """Return what tells this process from every other."""
    return f"{_machine()}/{os.getpid()}/{_started(os.getpid())}"


def is_dead(process: str) -> bool:
    """Say whether a process, named as above, has ended for certain: nothing is known of those of other machines."""
    machine, pid, started = process.rsplit("/", 2)
    return machine == _machine() and _started(int(pid)) != started


@cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> str:
    """Return when a process began; nothing for one that is gone, or has ended and waits to be collected."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""
