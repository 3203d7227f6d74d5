"""Keeps what a process holds in the store alive while it works: a claim on weights, the lease on a service."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tasks.errors import Conflict, SlipwayError

log = logging.getLogger(__name__)


@contextmanager
def renewing(renew: Callable[[], None], every_s: float, what: str) -> Iterator[None]:
    """Call ``renew`` every ``every_s`` seconds, in a thread that has ended when the block is left.

    A renewal that raises ``Conflict`` is the last: ``what`` was lost, and whoever acts or writes next finds out too.
    """
    ended = Event()

    def keep() -> None:
        while not ended.wait(every_s):
            try:
                renew()
            except Conflict:
                return
            except SlipwayError as error:
                log.warning("The %s could not be renewed: %s", what, error)

    keeper = Thread(target=keep, name=what, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
