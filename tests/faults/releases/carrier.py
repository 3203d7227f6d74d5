"""A run that carries one request, in a process of its own that can be killed, stopped and woken.

It is what a flow run is without Prefect.  Runs are forked from a server that has imported everything, because what
judges answers takes four seconds to import: each has its own process id, group, log and death all the same.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tasks import _processes
from tasks._checks.quality import quality
from tasks._clock import Clock
from tasks._release import lease
from tasks._release.engine import Engine
from tasks._release.world import World, open_world
from tasks.errors import SlipwayError
from tasks.records import Request
from tasks.settings import read_settings

HASTE = 5
"""How much shorter the waits of a run alone are; of many that look again and again, none is."""

LEFT = 143
"""Exit status of a run that was told to go, as a shell names it."""


@dataclass(frozen=True)
class Orders:
    """What a run is to do, with which environment, and where to: ``out`` gets how it ended, ``log`` all it says.

    It stops itself at the boundary ``stop_at``.  ``asks`` are made at once, each by an engine of its own.  With one
    alone its waits are ``haste`` times shorter.  It judges answers itself, unless ``apart`` from it.  With a
    ``machine`` it knows nothing of the processes of any other.
    """

    environment: dict[str, str]
    request: Request
    out: Path
    log: Path
    stop_at: str = ""
    lifetime_s: float = lease.LIFETIME_S
    asks: int = 1
    haste: float = HASTE
    apart: bool = False
    machine: str = ""


class Hasty(Clock):
    """Waits a part of what it is asked to; deadlines stay as long as they are."""

    def __init__(self, haste: float) -> None:
        self._haste = haste

    def sleep(self, seconds: float) -> None:
        """Wait, but not for long."""
        super().sleep(seconds / self._haste)


def main(orders: Orders) -> None:
    """Do as ordered and exit as the command line does."""
    os.setsid()
    log = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(orders.environment)
    tempfile.tempdir = None  # the server has looked already
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True, format="%(relativeCreated)d %(message)s")
    signal.signal(signal.SIGTERM, _leave)
    lease.LIFETIME_S, lease.RENEW_S = orders.lifetime_s, orders.lifetime_s / 4
    if orders.machine:
        _processes._machine = cache(lambda: orders.machine)
    try:
        lines = _carry_each(orders)
    except SlipwayError as error:
        logging.exception("ended by an error")
        sys.exit(error.exit_code)
    orders.out.write_text("\n".join(lines))


def _carry_each(orders: Orders) -> list[str]:
    if orders.asks == 1:  # in the main thread, which a signal interrupts
        return [_carry(orders)]
    with ThreadPoolExecutor(orders.asks) as pool:
        return list(pool.map(_carry, [orders] * orders.asks))


def _carry(orders: Orders) -> str:
    settings = read_settings()
    with open_world(settings) as opened:
        cross = _stopping(opened.cross, orders.stop_at)
        clock = Hasty(orders.haste) if orders.asks == 1 else Clock()
        judge = opened.judge if orders.apart else quality
        world: World = replace(opened, clock=clock, cross=cross, judge=judge)
        engine = Engine(world, orders.request.release.service, run=f"run-of-{os.getpid()}")
        wanted = engine.ask(orders.request)
        ended = engine.carry(wanted) if wanted else None
    return ended.model_dump_json() if ended else ""


def _stopping(cross: Callable[[str], None], stop_at: str) -> Callable[[str], None]:
    def told(name: str) -> None:
        logging.info("crosses %s", name)
        cross(name)
        if name == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    return told


def _leave(*_: object) -> None:
    """End as Prefect has a run end that is told to go: by an exception that nothing catches."""
    raise SystemExit(LEFT)
