"""Says what is wrong with a Slipway set-up, and how to mend each thing; nothing is changed by looking.

All checks look at once, and none is waited for longer than ``DEADLINE_S``, so that the answer comes when everything
is away too.  What Prefect holds is compared with what ``slipway bootstrap`` would make: see ``tasks.deploying``.
"""

from collections.abc import Iterator
from importlib.metadata import version

import httpx

from tasks._doctor.clocks import CLOCK, clock_findings
from tasks._doctor.configuration import SETTINGS, SPECS, settings_findings, spec_findings
from tasks._doctor.deployed import PREFECT
from tasks._doctor.finding import Check, Finding, look
from tasks._doctor.surroundings import (
    ANSWER_S,
    HUB,
    MACHINE,
    STORE,
    hub_findings,
    machine_findings,
    store_findings,
)
from tasks._doctor.target import TARGET, target_findings
from tasks.settings import Settings

__all__ = ["Finding", "examine"]

DEADLINE_S = 13.0
"""Seconds that all checks together may take: a person waits fifteen, starting and printing included."""


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Return everything that was found; nothing is good news."""
    checks: dict[str, Check] = {
        SETTINGS: lambda: settings_findings(settings),
        SPECS: lambda: spec_findings(settings),
        PREFECT: lambda: prefect_findings(settings),
        STORE: lambda: store_findings(settings),
        HUB: lambda: hub_findings(settings),
        TARGET: lambda: target_findings(settings),
        CLOCK: lambda: clock_findings(settings),
        MACHINE: lambda: machine_findings(settings),
    }
    return look(checks, DEADLINE_S)


def prefect_findings(settings: Settings) -> Iterator[Finding]:
    """Ask the Prefect server what it is and holds; Prefect itself is loaded only once something answers there.

    Raises what ``tasks.deploying.compare`` raises.
    """
    if settings.prefect_api:
        away = _away(settings.prefect_api.rstrip("/"))
        if away is not None:
            yield away
            return
    from tasks.inspecting import holdings, workers  # noqa: PLC0415 - two seconds

    yield from holdings(settings)
    yield from workers(settings)


def _away(api: str) -> Finding | None:
    try:
        answer = httpx.get(f"{api}/admin/version", timeout=ANSWER_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(
            about=PREFECT,
            what=f"The Prefect server at {api} does not answer ({type(error).__name__}).",
            remedy="Start it (`slipway up` for the embedded one), or mend SLIPWAY_PREFECT_API.",
        )
    return other_version(api, answer.json() if answer.is_success else None, version("prefect"))


def other_version(api: str, served: object, ours: str) -> Finding | None:
    """Return that a server is of another minor version, whose API may differ; None where it does not say."""
    if not isinstance(served, str) or served.split(".")[:2] == ours.split(".")[:2]:
        return None
    return Finding(
        about=PREFECT,
        what=f"The Prefect server at {api} is of version {served}, and this controller of {ours}.",
        remedy=f"Run the server at {ours}: prefect=={ours}.",
    )
