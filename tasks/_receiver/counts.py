"""What the receiver counts, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Counts:
    """The figures of one receiver, since it started."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._answers = Counter(
            "slipway_receiver_answers", "Calls of the webhook, by status.", ["status"], registry=self._registry
        )
        self._forged = self._answers.labels("401")
        self._runs = Counter(
            "slipway_receiver_runs_started", "Flow runs started.", ["service"], registry=self._registry
        )
        self._called = Gauge(
            "slipway_receiver_seconds_since_genuine_call",
            "Seconds since somebody called who knew the secret; NaN before the first.",
            registry=self._registry,
        )
        self._called.set_function(lambda: time.monotonic() - self._last)
        self.in_hand = Gauge(
            "slipway_receiver_calls_in_hand", "Genuine calls that are not answered yet.", registry=self._registry
        )
        self.prefect = Gauge(
            "slipway_receiver_prefect_reachable", "1 when Prefect answered last time.", registry=self._registry
        )
        self.services = Gauge("slipway_receiver_services", "Services that are followed.", registry=self._registry)
        self.broken = Gauge(
            "slipway_receiver_broken_specs", "Specs that cannot be read now.", registry=self._registry
        )
        self._last = float("nan")
        self._refused = 0

    def refuse(self) -> None:
        """Count a call that showed no secret of ours."""
        self._forged.inc()
        self._refused += 1

    def take_refused(self) -> int:
        """Return how many calls were refused since this was last asked."""
        refused, self._refused = self._refused, 0
        return refused

    def genuine(self) -> None:
        """Note that somebody called who knew a secret."""
        self._last = time.monotonic()

    def answered(self, status: int) -> None:
        """Count the answer to a genuine call."""
        self._answers.labels(str(status)).inc()

    def started(self, service: str) -> None:
        """Count a flow run that was started for ``service``."""
        self._runs.labels(service).inc()

    def page(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self._registry)
