"""The flow ``collect-garbage``: frees the store of commits that nothing refers to any more."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import keeping
from tasks.parameters import Delete, GraceDays
from tasks.settings import read_settings


@flow(name="collect-garbage")
def collect_garbage(delete: Delete = False, grace_days: GraceDays = 7.0) -> State[Any]:
    """Mark commits that no release and no ref refers to, and delete those that were marked a grace ago.

    Args:
        delete: Mark and delete; otherwise only say what would be.
        grace_days: Days between mark and deletion.

    """
    return keeping.collect_garbage(read_settings(), delete=delete, grace_days=grace_days)
