"""The flow ``verify``: whether a stored commit is still what was mirrored."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks import keeping
from tasks.parameters import Commit, Deep, Model
from tasks.settings import read_settings


@flow(name="verify", flow_run_name="verify {model}@{commit}")
def verify(model: Model, commit: Commit, deep: Deep = True) -> State[Any]:
    """Compare a stored commit with its manifest; the run fails when a file is damaged, and names it.

    Args:
        model: The model, org/name.
        commit: The stored commit, 40 hex digits; a branch or tag names none.
        deep: Read and hash every byte; otherwise the store is asked for its checksums.

    """
    return keeping.verify(read_settings(), model, commit, deep=deep)
