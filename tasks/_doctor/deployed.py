"""How a Prefect server differs from what ``slipway bootstrap`` would make, as findings."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from tasks._deploying.things import POOL, Change, Sort, What
from tasks._doctor.finding import Finding
from tasks.settings import Settings

PREFECT = "Prefect"
SILENCE = timedelta(seconds=90)
"""Three of the beats that a worker sends every 30 s: https://docs.prefect.io/v3/concepts/workers"""
BOOTSTRAP = "`slipway bootstrap` sets it right."


def difference(change: Change) -> Iterator[Finding]:
    """Yield what differs, and what a person paused, which bootstrap leaves alone."""
    what = f"The {change.sort.value} {change.name}"
    match change.what:
        case What.MADE:
            yield Finding(about=PREFECT, what=f"{what} is missing.", remedy="`slipway bootstrap` makes it.")
        case What.CHANGED:
            seen = f"{what} is not as it should be: {', '.join(change.fields)}."
            yield Finding(about=PREFECT, what=seen, remedy=BOOTSTRAP)
        case What.REMOVED:
            seen = f"{what} carries the tag of bootstrap, and no file here speaks of it any more."
            yield Finding(about=PREFECT, what=seen, remedy="`slipway bootstrap` removes it.")
    if change.paused:
        how = "`prefect work-pool resume slipway`" if change.sort is Sort.POOL else "resume it in the Prefect UI"
        seen = f"{what} is paused, or its schedule is, so nothing of it starts by itself."
        if change.sort is Sort.AUTOMATION:
            seen, how = f"{what} is switched off.", f"`prefect automation resume {change.name}`"
        yield Finding(about=PREFECT, what=seen, remedy=f"If nobody wants that any more, {how}.")


def idle(beats: Sequence[datetime | None], now: datetime, settings: Settings) -> Finding | None:
    """Return that no worker of the pool has been heard of lately; ``beats`` are their last ones."""
    if any(beat is not None and now - beat < SILENCE for beat in beats):
        return None
    how = "`slipway up` repairs the embedded one; elsewhere keep "
    command = f"prefect worker start --pool {POOL} --type {settings.worker.kind}"
    return Finding(
        about=PREFECT,
        what=f"No worker polls the work pool {POOL}, so no flow run begins.",
        remedy=f"{how}`{command}` running.",
    )


def two_servers(configured: str, own: str | None) -> Finding | None:
    """Return that the settings and Prefect's own speak of different servers."""
    if not configured or not own or configured.rstrip("/") == own.rstrip("/"):
        return None
    return Finding(
        about=PREFECT,
        what=f"SLIPWAY_PREFECT_API is {configured}, and Prefect itself is set up with {own}: commands ask one server,"
        " and flows report to the other.",
        remedy="Unset one of SLIPWAY_PREFECT_API and PREFECT_API_URL, or set both to the same.",
    )
