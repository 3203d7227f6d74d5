"""Ctrl-C where a program watches: noticed at once, acted on between two looks."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks._clock import Clock

CLOCK = Clock()


@contextmanager
def interruptible() -> Iterator[Callable[[float], None]]:
    """Yield a pause that raises ``KeyboardInterrupt`` after Ctrl-C or SIGTERM; only a second one raises anywhere.

    Pydantic turns one that is raised in the midst of its work into an error of its own, or swallows it.
    """
    asked = 0

    def note(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt

    def pause(seconds: float) -> None:
        if not asked:
            CLOCK.sleep(seconds)
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pause
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
