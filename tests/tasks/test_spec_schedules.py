"""The ``schedules`` of a spec: what Prefect would refuse is refused where it is written."""

import pytest
from prefect.client.schemas.schedules import CronSchedule

from tasks._spec_file import parse_spec
from tasks.errors import BadInput


def schedules(text: str) -> str:
    """Return a spec with these schedules."""
    return f"service: chat\nmodel: a/b\nschedules:\n  {text}\n"


@pytest.mark.parametrize("cron", ["*/15 * * * *", "0 4 * * MON-FRI", "30 2 1,15 JAN *", "0 0 29 2 *"])
def test_what_is_accepted_prefect_accepts_too(cron: str) -> None:
    """Both read it, each by a library of its own."""
    spec = parse_spec(schedules(f"refresh: '{cron}'"), "spec")

    assert cron == spec.schedules.refresh == CronSchedule(cron=cron, timezone=spec.schedules.timezone).cron


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("refresh: '61 * * * *'", "five fields of a cron string"),
        ("check: '@daily'", "five fields of a cron string"),
        ("drill: '* * * * * *'", "five fields of a cron string"),
        ("drill: '0 0 30 2 *'", "five fields of a cron string"),
        ("drill: '* * * * 5L'", "five fields of a cron string"),
        ("timezone: Europe/Berln", "IANA"),
        ("refersh: '* * * * *'", "did you mean 'refresh'"),
    ],
)
def test_what_can_never_be_is_refused_with_its_line(text: str, what: str) -> None:
    """A schedule that never comes true would be missed by nobody."""
    with pytest.raises(BadInput, match=f"line 4: .*{what}"):
        parse_spec(schedules(text), "spec")
