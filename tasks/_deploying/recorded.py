"""Which releases the records of services name as having been live."""

from contextlib import closing

from tasks._deploying.wanted import Recorded
from tasks._release.journal import Journal
from tasks._stores.store import open_store
from tasks.errors import SlipwayError
from tasks.records import Outcome
from tasks.settings import Settings

MOST = 5
"""Releases of one service that a form tells of."""


def read_recorded(settings: Settings, services: tuple[str, ...]) -> Recorded:
    """Return the newest releases of each service that took live traffic; none without a store that answers."""
    try:
        with closing(open_store(settings.store)) as store:
            return tuple(name for service in services for name in _promoted(Journal(store, service)))
    except SlipwayError:
        return ()


def _promoted(journal: Journal) -> tuple[str, ...]:
    past = (one.release.name for one in reversed(journal.record.past) if one.outcome is Outcome.PROMOTED)
    return tuple(dict.fromkeys(past))[:MOST]
