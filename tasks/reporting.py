"""What a person sees in the Prefect UI beside the timeline: verdicts, the report of a release, the receipt.

Texts are built from recorded values alone, which hold no secrets.
"""

from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate

from tasks._receipt import Receipt
from tasks._receipt_text import markdown as receipt_markdown
from tasks._rendering import results_markdown
from tasks.records import CheckResult, Progress, StepName


def publish_checks(release: str, step: StepName, checks: tuple[CheckResult, ...]) -> None:
    """Show the verdicts of one step of the release called ``release``."""
    create_markdown_artifact(
        key=f"{release}-{step.value}",
        markdown=results_markdown(checks),
        description=f"{release}: {step.value} checks",
    )


def publish_release(ended: Progress) -> None:
    """Show how a release ended, its steps with their seconds, and its checks."""
    create_markdown_artifact(
        key=f"release-{ended.release.service}",
        markdown=release_markdown(ended),
        description=f"{ended.release.name}: {ended.outcome.value if ended.outcome else 'on its way'}",
    )


def publish_receipt(api: str, service: str, receipt: Receipt, drawing: Path) -> None:
    """Show, on the Prefect server at ``api``, what clients of the service saw; ``drawing`` is its timeline.

    Sent by the client, because the receipt spans several flow runs and belongs to none of them.
    """
    artifact = ArtifactCreate(
        key=f"receipt-{service}",
        type="markdown",
        data=f"{receipt_markdown(receipt)}\n\nDrawn in `{drawing}`.\n",
        description=f"{service}: receipt of {receipt.requests} requests",
    )
    with SyncPrefectClient(api=api) as client:
        client.create_artifact(artifact)


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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
