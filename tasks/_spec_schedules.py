"""The ``schedules`` section of a service spec: when what is done for a service is done by itself.

Read by ``slipway bootstrap``, which gives each its own deployment on the Prefect server.  Times are cron strings in
five fields: minute, hour, day of the month, month, day of the week.
"""

import re
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from tasks.records import Value

_FIELD = r"([0-9*/,-]|[A-Za-z]{3})+"


def _is_cron(text: str) -> str:
    """Return a cron string that Prefect's own reader takes too, and that some day comes true."""
    wrong = "five fields of a cron string are needed, that some day comes true"
    if not re.fullmatch(rf"{_FIELD}( {_FIELD}){{4}}", text):
        raise ValueError(wrong)
    try:
        next(CronSim(text, datetime.now(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(wrong) from error
    return text


def _is_timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("a name from the IANA time zone database is needed, e.g. Europe/Berlin")
    return name


Cron = Annotated[str, AfterValidator(_is_cron), Field(examples=["*/15 * * * *"])]


class Schedules(Value):
    """When a service is looked after without anybody asking; none of it without a cron string."""

    refresh: Cron | None = Field(None, description="looks whether the ref has moved, as `slipway refresh` does")
    check: Cron | None = Field(None, description="asks the live release its golden prompts, as `slipway check` does")
    drill: Cron | None = Field(None, description="rehearses a roll back on live traffic, as `slipway drill` does")
    timezone: Annotated[str, AfterValidator(_is_timezone)] = Field("UTC", description="what the times are in")
