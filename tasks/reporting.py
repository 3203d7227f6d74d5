"""What a person sees in the Prefect UI beside the timeline: verdicts, the report of a release, the receipt.

Texts are built from recorded values alone, which hold no secrets.
"""

import base64
import logging
import re
from collections.abc import Iterator
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

from tasks._checks.rendering import TITLES, one_line, results_markdown, worst_first
from tasks._clients.receipt import Receipt
from tasks._clients.receipt_text import markdown as receipt_markdown
from tasks._weights.carrying import Progress as Moved
from tasks.errors import SlipwayError
from tasks.records import Approval, CheckResult, Progress, Step, StepName, StepState
from tasks.runs import send_artifact

RENEWED_EVERY_S = 2.0
"""Seconds between two requests to Prefect for a bar that grows."""

SUMMARY_LENGTH = 300
"""Characters of what a check found that a cell shows."""

log = logging.getLogger(__name__)


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
    publish(
        key=f"{release}-{step.value}",
        markdown=results_markdown(checks),
        description=f"{release}: {step.value} checks",
    )


def publish_release(ended: Progress) -> None:
    """Show how a release ended, its steps with their seconds, and its checks."""
    publish(
        key=f"release-{ended.release.service}",
        markdown=release_markdown(ended),
        description=f"{ended.release.name}: {ended.outcome.value if ended.outcome else 'on its way'}",
    )


def publish_table(ended: Progress) -> None:
    """Show every verdict of a release as a table, worst first, under one key for all releases of its service."""
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
            rows, key=f"verdicts-{ended.release.service}", description=f"{ended.release.name}: verdicts"
        )
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("The verdicts are not shown in Prefect: %s", type(error).__name__)


def publish_receipt(api: str, service: str, receipt: Receipt, drawing: Path) -> None:
    """Show, on the Prefect server at ``api``, what clients of the service saw, with its ``drawing`` (SVG).

    It spans several flow runs and belongs to none of them.
    """
    picture = base64.b64encode(drawing.read_bytes()).decode()
    try:
        send_artifact(
            api,
            key=f"receipt-{service}",
            markdown=f"![requests by release](data:image/svg+xml;base64,{picture})\n\n{receipt_markdown(receipt)}\n",
            description=f"{service}: receipt of {receipt.requests} requests",
        )
    except SlipwayError as error:
        log.warning("The receipt is not shown in Prefect: %s", error)


def release_markdown(ended: Progress) -> str:
    """Return the report of a release as Markdown."""
    release = ended.release
    outcome = ended.outcome.value.replace("_", " ") if ended.outcome else "on its way"
    reasons = ended.failure.reason.split("; ") if ended.failure else []
    lines = [
        f"# {release.name}: {outcome}",
        "",
        f"`{release.model}` at commit `{release.commit}`",
        "",
        *(f"- {reason}" for reason in reasons),
        *(f"- {_cell(_answer(approval))}" for approval in ended.approvals),
        "",
        "## Steps",
        "",
        "| step | state | seconds | what |",
        "|---|---|---:|---|",
        *(
            f"| {TITLES[step.name]} | {step.state.value} | {step.seconds:.1f} | {_cell(_what(step))} |"
            for step in ended.steps
        ),
        "",
        "## Checks",
        "",
        results_markdown(ended.checks) if ended.checks else "No check was reached.",
    ]
    return "\n".join(lines) + "\n"


def _what(step: Step) -> str:
    return "see above" if step.state is StepState.FAILED else step.detail


def _answer(approval: Approval) -> str:
    said = "granted" if approval.granted else "refused"
    return f"{TITLES[approval.step]}: {said} by {approval.who}{f', {approval.why}' if approval.why else ''}"


def publish(*, key: str, markdown: str, description: str) -> None:
    """Show a text of the run that this is called in; a Prefect server that cannot take it now changes nothing."""
    try:
        create_markdown_artifact(key=key, markdown=markdown, description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("%s is not shown in Prefect: %s", key, type(error).__name__)


def _begin_progress(title: str) -> UUID | None:
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
