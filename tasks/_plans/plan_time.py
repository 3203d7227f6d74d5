"""How long a release will take: what each step took before, in the median, and what the spec itself sets."""

import statistics
from collections.abc import Iterable

from tasks._release.machine import PLANS
from tasks.records import Kind, Progress, StepName, Value
from tasks.spec import ServiceSpec

UNTIMED = frozenset({StepName.ROOM, StepName.APPROVE})
"""Steps that take no time, or a person's, which is in no median."""


class Expected(Value):
    """Seconds by step, in their order, and the steps of which nothing is known; a person's answer is not counted."""

    steps: dict[str, float]
    unknown: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Return the seconds of all known steps; None where none but the spec's own is known."""
        return sum(self.steps.values()) if self.steps.keys() - {StepName.BAKE.value, StepName.MIRROR.value} else None

    @property
    def sentence(self) -> str:
        """Return it for a person."""
        if self.seconds is None:
            return "not known: no release of this service has ended well yet"
        without = f", without {', '.join(self.unknown)}, of which nothing is known" if self.unknown else ""
        return f"about {max(self.seconds / 60, 0.1):.1f} minutes by earlier releases{without}"


def expected(past: Iterable[Progress], spec: ServiceSpec, mirror_s: float | None) -> Expected:
    """Return how long a release takes; ``mirror_s`` is what its bytes will take, in seconds, None if unknown."""
    ended = [progress for progress in past if progress.kind is Kind.RELEASE]
    steps: dict[str, float] = {}
    unknown = []
    for name in PLANS[Kind.RELEASE]:
        if name in UNTIMED:
            continue
        seconds = _seconds(name, ended, spec, mirror_s)
        if seconds is None:
            unknown.append(name.value)
        else:
            steps[name.value] = round(seconds, 1)
    return Expected(steps=steps, unknown=tuple(unknown))


def _seconds(name: StepName, ended: Iterable[Progress], spec: ServiceSpec, mirror_s: float | None) -> float | None:
    match name:
        case StepName.MIRROR:
            return mirror_s
        case StepName.BAKE:
            return spec.bake.seconds
    took = [step.seconds for one in ended if one.done(name) and (step := one.step(name)) is not None]
    return statistics.median(took) if took else None
