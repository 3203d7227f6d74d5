"""What a person sees in the Prefect UI beside the timeline: verdicts, the report of a release, the receipt.

Texts are built from recorded values alone, which hold no secrets.
"""

import base64
import logging
from pathlib import Path

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from tasks._receipt import Receipt
from tasks._receipt_text import markdown as receipt_markdown
from tasks._rendering import results_markdown
from tasks.errors import SlipwayError
from tasks.records import CheckResult, Progress, StepName
from tasks.runs import send_artifact

log = logging.getLogger(__name__)


def publish_checks(release: str, step: StepName, checks: tuple[CheckResult, ...]) -> None:
    """Show the verdicts of one step of the release called ``release``."""
    _publish(
        key=f"{release}-{step.value}",
        markdown=results_markdown(checks),
        description=f"{release}: {step.value} checks",
    )


def publish_release(ended: Progress) -> None:
    """Show how a release ended, its steps with their seconds, and its checks."""
    _publish(
        key=f"release-{ended.release.service}",
        markdown=release_markdown(ended),
        description=f"{ended.release.name}: {ended.outcome.value if ended.outcome else 'on its way'}",
    )


def publish_receipt(api: str, service: str, receipt: Receipt, drawing: Path) -> None:
    """Show, on the Prefect server at ``api``, what clients of the service saw, with its ``drawing`` (SVG).

    It spans several flow runs and belongs to none of them.
    """
    picture = base64.b64encode(drawing.read_bytes()).decode()
    try:
        send_artifact(
            api,
            key=f"receipt-{service}",
            markdown=f"{receipt_markdown(receipt)}\n\n![requests by release](data:image/svg+xml;base64,{picture})\n",
            description=f"{service}: receipt of {receipt.requests} requests",
        )
    except SlipwayError as error:
        log.warning("The receipt is not shown in Prefect: %s", error)


def release_markdown(ended: Progress) -> str:
    """Return the report of a release as Markdown."""
    release = ended.release
    outcome = ended.outcome.value.replace("_", " ") if ended.outcome else "on its way"
    lines = [
        f"# {release.name}: {outcome}",
        "",
        f"`{release.model}` at commit `{release.commit}`",
        "",
        *([f"**Why:** {ended.failure.reason}", ""] if ended.failure else []),
        "| step | state | seconds | what |",
        "|---|---|---:|---|",
        *(
            f"| {step.name.value} | {step.state.value} | {step.seconds:.1f} | {_cell(step.detail)} |"
            for step in ended.steps
        ),
        "",
        results_markdown(ended.checks) if ended.checks else "No check was reached.",
    ]
    return "\n".join(lines) + "\n"


def _publish(*, key: str, markdown: str, description: str) -> None:
    """Show a text; a Prefect server that cannot take it now changes nothing about the release."""
    try:
        create_markdown_artifact(key=key, markdown=markdown, description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("%s is not shown in Prefect: %s", key, type(error).__name__)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
