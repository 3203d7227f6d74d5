"""Whether this machine's clock agrees with those it shares leases, signatures and timelines with."""

import email.utils
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import httpx

from tasks._doctor.finding import Finding
from tasks.settings import Settings

CLOCK = "clock"
MOST_SKEW_S = 30.0
"""Seconds of difference that a lease of ours stands; S3 refuses what was signed a quarter of an hour away."""
ANSWER_S = 2.0
"""Seconds for one answer: they are asked one after another, so that none shares its moment with a busy thread."""


def clock_findings(settings: Settings) -> Iterator[Finding]:
    """Ask every server with an address for the time; who does not answer is another check's finding."""
    for who, url in addresses(settings).items():
        before = datetime.now(UTC)
        try:
            date = httpx.get(url, timeout=ANSWER_S, trust_env=False).headers.get("date", "")
        except (httpx.HTTPError, httpx.InvalidURL):
            continue
        yield from skew(who, date, before, datetime.now(UTC))


def addresses(settings: Settings) -> Mapping[str, str]:
    """Return where to ask each server that has an address."""
    known = {
        "the store": settings.store.endpoint or (f"https://s3.{settings.store.region}.amazonaws.com"),
        "the Prefect server": f"{settings.prefect_api}/health" if settings.prefect_api else None,
        "the Ray cluster": settings.ray.dashboard,
    }
    if settings.store.url.startswith("file:"):
        del known["the store"]
    return {who: url for who, url in known.items() if url}


def skew(who: str, date: str, before: datetime, after: datetime) -> Iterator[Finding]:
    """Yield that the ``Date`` of an answer, which came between two moments here, is too far from both.

    HTTP's times are in GMT: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
    """
    parsed = email.utils.parsedate(date)
    if parsed is None:
        return
    there = datetime(*parsed[:6], tzinfo=UTC)
    seconds = max((before - there).total_seconds(), (there - after).total_seconds())
    if seconds > MOST_SKEW_S:
        yield Finding(
            about=CLOCK,
            what=f"The clock of this machine and that of {who} differ by {seconds:,.0f} s.",
            remedy="Let both follow a time server (chrony or systemd-timesyncd).",
        )
