"""``slipway approve`` and ``slipway reject``: a person's answer, written into the record itself.

The record is the truth, and the run that asks looks at it every two seconds, so the store is all that is needed: a
Prefect server that is away keeps nobody from answering.  An answer belongs to the question that the person saw.
"""

from contextlib import closing
from datetime import UTC, datetime

from tasks._release import transitions
from tasks._release.journal import Journal
from tasks._release.lease import is_free, read_lease
from tasks._spec_file import load_spec
from tasks._stores.store import Store, open_store
from tasks.errors import Conflict, NotFound, Refused
from tasks.records import Approval, Progress, ServiceRecord
from tasks.settings import Settings


def answer(settings: Settings, service: str, *, granted: bool, who: str, why: str) -> tuple[Progress, Approval, bool]:
    """Answer what is asked of ``service``; return of which release, what was written, and whether a run carries it.

    Raises ``NotFound`` when nothing is asked, ``Refused`` when the time to answer is over, and ``Conflict`` when
    somebody else answered first.
    """
    with closing(open_store(settings.store)) as store:
        journal = Journal(store, service)
        if journal.record == ServiceRecord(service=service):
            load_spec(settings.services, service)
        progress, approval = _answered(journal, granted=granted, who=who, why=why)
        return progress, approval, _is_carried(store, service)


def _answered(journal: Journal, *, granted: bool, who: str, why: str) -> tuple[Progress, Approval]:
    progress, now = journal.record.current, datetime.now(UTC)
    question = progress.question if progress else None
    if progress is None or question is None:
        service = journal.record.service
        raise NotFound(f"Nothing of {service} waits for a person.", remedy=f"`slipway explain {service}` says why.")
    if now >= question.until:
        raise Refused(
            f"{progress.release.name} waited for an answer until {question.until:%Y-%m-%d %H:%M} UTC, "
            "and none is a refusal.",
            remedy="Release it again.",
        )
    approval = Approval(step=question.step, granted=granted, who=who, why=why, at=now)

    def written(record: ServiceRecord) -> ServiceRecord:
        if record.current is None or record.current.question != question:
            raise Conflict(
                f"Somebody else answered for {progress.release.name} first, or it ended.",
                remedy="`slipway status` shows what goes on.",
            )
        return transitions.answered(record, approval)

    journal.change(written)
    return progress, approval


def _is_carried(store: Store, service: str) -> bool:
    lease = read_lease(store, service)
    return lease is not None and not is_free(lease, datetime.now(UTC))
