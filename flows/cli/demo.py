"""``slipway demo``: the story as it happens, then the closing screen."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks._clients.receipt_text import summary
from tasks.local.demo import QUESTION, SERVICE, Demo, run_demo
from tasks.records import Progress, StepName

SHOWN = (StepName.MIRROR, StepName.READY, StepName.SMOKE, StepName.QUALITY, StepName.SHIFT, StepName.BAKE)


def show_demo(home: Path, *, keep: bool) -> None:
    """Run the demonstration and print what it showed; raises what ``run_demo`` raises."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    demo = run_demo(home, keep=keep, say=console.print)
    console.print()
    console.print(_table(demo))
    for progress in demo.releases:
        if progress.failure:
            console.print(f"{progress.release.name} was {_outcome(progress)}:")
            for reason in progress.failure.reason.split("; "):
                console.print(f"    {reason}")
    console.print(f"\nreceipt  {summary(demo.receipt)}")
    console.print(f"answer   {demo.live.release} at {demo.live.commit[:12]}: {demo.live.answer!r}")
    files = "one page for each release, timeline.svg, releases.md, receipt.json"
    console.print(f"report   {home / 'report'}: {files}; {home / 'demo.json'}")
    _tell_where(console, demo, keep=keep)


def _table(demo: Demo) -> Table:
    table = Table("release", "commit", "verdict", title="seconds by step", title_justify="left")
    for step in SHOWN:
        table.add_column(step.value, justify="right")
    for progress in demo.releases:
        seconds = progress.seconds()
        spent = (f"{seconds[step.value]:.1f}" if step.value in seconds else "" for step in SHOWN)
        table.add_row(progress.release.name, progress.release.commit[:12], _outcome(progress), *spent)
    return table


def _tell_where(console: Console, demo: Demo, *, keep: bool) -> None:
    if not keep:
        console.print("The stack is down again; `make demo KEEP=1` leaves it up.")
        return
    for name, address in demo.addresses.items():
        console.print(f"{name:15} {address}")
    body = {"model": SERVICE, "messages": [{"role": "user", "content": QUESTION}]}
    console.print(
        "\nTry it; `.venv/bin/slipway status` shows it, `.venv/bin/slipway down` stops it:\n"
        f"curl -s {demo.addresses['live endpoint']}/v1/chat/completions "
        f"-H 'content-type: application/json' -d '{json.dumps(body)}'"
    )


def _outcome(progress: Progress) -> str:
    return progress.outcome.value.replace("_", " ") if progress.outcome else "on its way"
