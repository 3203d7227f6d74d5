"""What a step leaves for the record."""

from dataclasses import dataclass

from tasks.records import CheckResult, Release
from tasks.spec import ServiceSpec


@dataclass(frozen=True)
class StepResult:
    """What a step did, in one sentence, and the verdicts it gave.

    ``question`` is what a person must decide before the release goes on; ``dark`` when nothing takes the traffic now;
    ``outage`` when the live release has to go before the candidate can start.
    """

    detail: str
    checks: tuple[CheckResult, ...] = ()
    question: str = ""
    dark: bool = False
    outage: bool = False


def spec_of(release: Release) -> ServiceSpec:
    """Return the spec that the release was made with."""
    return ServiceSpec.model_validate(release.spec)
