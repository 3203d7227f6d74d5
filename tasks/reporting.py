"""What a person sees in the Prefect UI beside the timeline: verdicts, the report of a release, the receipt.

Texts are built from recorded values alone, which hold no secrets.
"""

import base64
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import UUID

import httpx
from prefect import runtime
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from pydantic import ValidationError

from tasks._checks.rendering import TITLES, one_line, plain, results_markdown, worst_first
from tasks._clients.receipt import Receipt
from tasks._clients.receipt_text import markdown as receipt_markdown
from tasks._clients.receipt_text import sentence
from tasks._clients.witness import RECEIPT, TIMELINE
from tasks._weights.carrying import Progress as Moved
from tasks.errors import SlipwayError
from tasks.in_process import here
from tasks.records import Approval, CheckResult, Progress, Question, Step, StepName, StepState, Verdict
from tasks.runs import send_artifact

RENEWED_EVERY_S = 2.0
"""Seconds between two requests to Prefect for a bar that grows."""

SUMMARY_LENGTH = 300
"""Characters of what a check found that a cell shows."""

_PAGE = (
    "The whole story on one page, with answers side by side and what clients saw: "
    "`slipway report {release.service} {release.name}`"
)

log = logging.getLogger(__name__)
logging.getLogger("tasks").setLevel(logging.INFO)  # Prefect takes what they let pass, and gives them no level


def name_run(name: str) -> None:
    """Give the flow run of this moment a name that tells one from another in a list."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(runtime.flow_run.id), name=name)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("The flow run is not called %r: %s", name, type(error).__name__)


@contextmanager
def shown_progress(title: str) -> Iterator[Moved]:
    """Show, as a bar in the Prefect UI, the bytes that the block tells of; of the run that this is called in."""
    moved = total = 0
    ended = Event()

    def told(now: int, of: int) -> None:
        nonlocal moved, total
        moved, total = now, of

    def renew(artifact: UUID) -> None:
        shown, last = 0.0, False
        while not last:
            last = ended.wait(RENEWED_EVERY_S)
            share = 100.0 * moved / total if total else 100.0 * last
            if share != shown:
                _update(artifact, share, f"{title}: {moved / 1e6:,.0f} of {total / 1e6:,.0f} MB")
            shown = share

    artifact = _begin_progress(title)
    renewing = Thread(target=renew, args=[artifact], name="progress", daemon=True) if artifact else None
    if renewing is not None:
        renewing.start()
    try:
        yield told
    finally:
        ended.set()
        if renewing is not None:
            renewing.join()


def publish_checks(release: str, step: StepName, checks: tuple[CheckResult, ...]) -> None:
    """Show the verdicts of one step of the release called ``release``."""
    title = f"{release}: {TITLES[step]}"
    publish(
        key=f"{release}-{step.value}",
        markdown=f"# {title}\n\n{results_markdown(checks)}",
        description=f"{title}: {counted(checks)}",
    )


def publish_release(ended: Progress) -> None:
    """Show how a release ended or what it waits for, its steps with their seconds, and its checks."""
    publish(
        key=f"release-{ended.release.service}",
        markdown=release_markdown(ended),
        description=f"{ended.release.name}: {_state(ended)}; {counted(ended.checks)}",
    )


def publish_table(ended: Progress) -> None:
    """Show every verdict of a release as a table, worst first, under one key for all releases of its service."""
    if here():
        return
    rows = [
        {
            "check": check.name,
            "verdict": check.verdict.value,
            "what was found": one_line(check.summary, SUMMARY_LENGTH),
        }
        for check in worst_first(ended.checks)
    ]
    try:
        create_table_artifact(
            rows,
            key=f"verdicts-{ended.release.service}",
            description=f"{ended.release.name}: {counted(ended.checks)}",
        )
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("The verdicts are not shown in Prefect: %s", type(error).__name__)


def publish_what_clients_saw(ended: Progress, evidence: Callable[[str], bytes | None]) -> None:
    """Show what clients saw during a release, drawn over time, where ``evidence`` has its receipt by that name."""
    try:
        written, drawing = evidence(RECEIPT), evidence(TIMELINE)
        receipt = Receipt.from_json(written) if written else None
    except (SlipwayError, ValidationError) as error:
        log.warning("The receipt is not shown in Prefect: %s", type(error).__name__)
        return
    if receipt is None or drawing is None:
        return
    publish(
        key=f"receipt-{ended.release.service}",
        markdown=f"# {ended.release.name}: what clients saw\n\n{_drawn(receipt, drawing)}",
        description=f"{ended.release.name}: {sentence(receipt)}",
    )


def publish_receipt(api: str, service: str, receipt: Receipt, drawing: Path) -> None:
    """Show, on the Prefect server at ``api``, what clients of the service saw, with its ``drawing`` (SVG).

    It spans several flow runs and belongs to none of them.
    """
    try:
        send_artifact(
            api,
            key=f"receipt-{service}",
            markdown=_drawn(receipt, drawing.read_bytes()),
            description=f"{service}: receipt of {receipt.requests} requests",
        )
    except SlipwayError as error:
        log.warning("The receipt is not shown in Prefect: %s", error)


def release_markdown(ended: Progress) -> str:
    """Return the report of a release as Markdown; its lists have no numbers, which Prefect's pages cut off."""
    release = ended.release
    reasons = ended.failure.reason.split("; ") if ended.failure else []
    lines = [
        f"# {release.name}: {_state(ended)}",
        "",
        f"`{release.model}` at commit `{release.commit}`, {_asked(ended)}",
        "",
        *(f"- {plain(reason)}" for reason in reasons),
        *((f"- {plain(ended.question.text)}",) if ended.question else ()),
        *(f"- {plain(_answer(approval))}" for approval in ended.approvals),
        "",
        "## Steps",
        "",
        *(f"- **{TITLES[step.name]}** ({_how(step)}): {plain(_what(step))}" for step in ended.steps),
        "",
        "## Checks",
        "",
        results_markdown(ended.checks) if ended.checks else "No check was reached.",
        *(("", _PAGE.format(release=release)) if ended.outcome else ()),
    ]
    return "\n".join(lines) + "\n"


def counted(checks: tuple[CheckResult, ...]) -> str:
    """Return how many checks passed, and the names of those that did not."""
    if not checks:
        return "no check was reached"
    others = [check for check in worst_first(checks) if check.verdict is not Verdict.PASS]
    passed = f"{len(checks) - len(others)} of {len(checks)} checks passed"
    named = ", ".join(f"{check.name}: {check.verdict.value}" for check in others)
    return f"{passed}; {named}" if others else passed


def _state(progress: Progress) -> str:
    if progress.outcome is not None:
        return progress.outcome.value.replace("_", " ")
    return "waits for a person" if progress.question else "on its way"


def _drawn(receipt: Receipt, drawing: bytes) -> str:
    picture = base64.b64encode(drawing).decode()
    return f"![requests by release](data:image/svg+xml;base64,{picture})\n\n{receipt_markdown(receipt)}\n"


def question_markdown(progress: Progress, question: Question) -> str:
    """Return what a person reads above the form of an answer."""
    release = progress.release
    return "\n".join(
        (
            f"**{plain(question.text)}**",
            "",
            f"- `{release.model}` at commit `{release.commit:.12}`, {_asked(progress)}",
            f"- {counted(progress.checks)}",
            f"- no answer until {question.until:%Y-%m-%d %H:%M} UTC is a refusal",
        )
    )


def _what(step: Step) -> str:
    return "see above" if step.state is StepState.FAILED else step.detail


def _how(step: Step) -> str:
    """Return how long a step took, and what became of it unless all is well."""
    return f"{step.seconds:.1f} s" if step.state is StepState.DONE else f"{step.state.value}, {step.seconds:.1f} s"


def _asked(progress: Progress) -> str:
    reason = f": {plain(progress.reason)}" if progress.reason else ""
    return f"asked for by {plain(progress.actor or 'somebody')}{reason}"


def _answer(approval: Approval) -> str:
    said = "granted" if approval.granted else "refused"
    return f"{TITLES[approval.step]}: {said} by {approval.who}{f', {approval.why}' if approval.why else ''}"


def publish(*, key: str, markdown: str, description: str) -> None:
    """Show a text of the run that this is called in; a Prefect server that cannot take it now changes nothing."""
    if here():
        return
    try:
        create_markdown_artifact(key=key, markdown=markdown, description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("%s is not shown in Prefect: %s", key, type(error).__name__)


def _begin_progress(title: str) -> UUID | None:
    if here():
        return None
    key = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    try:
        return create_progress_artifact(0.0, key=key, description=title)  # type: ignore[return-value]  # called in sync
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Progress is not shown in Prefect: %s", type(error).__name__)
        return None


def _update(artifact: UUID, share: float, description: str) -> None:
    try:
        update_progress_artifact(artifact, min(share, 100.0), description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("Progress is not shown in Prefect: %s", type(error).__name__)
