"""The only place that reads a clock or waits, so that tests can put another clock in its place."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime


class Clock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        time.sleep(seconds)

    def ticks(self, deadline: float, interval: float) -> Iterator[float]:
        """Yield the seconds passed, now and after every ``interval``, until ``deadline`` seconds are over."""
        start = self.monotonic()
        while (passed := self.monotonic() - start) < deadline:
            yield passed
            self.sleep(interval)
