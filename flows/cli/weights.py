"""How the verbs about weights show what they did: ``mirror``, ``verify``, ``gc`` and ``upstream``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from tasks._weights.collect import Collection
from tasks._weights.garbage import Action
from tasks._weights.planning import Plan
from tasks._weights.upstream import Finding
from tasks._weights.verify import Verification

FOUND = 1
"""The exit code of ``verify`` for a damaged commit, and of ``upstream`` for trouble."""


@contextmanager
def shown_bytes(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show bytes as a bar on a terminal; elsewhere, and when ``quiet``, show nothing."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda moved, total: bar.update(task, completed=moved, total=total)


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what would move."""
    console = Console(soft_wrap=True, highlight=False)
    if not as_json:
        console.print(plan.sentence, markup=False)
        return
    figures = {"to_fetch": plan.to_fetch, "to_copy": plan.to_copy, "there": plan.there}
    console.print_json(data=figures | {"requests": plan.requests, "seconds": plan.seconds})


def print_verification(found: Verification) -> None:
    """Print what was found of a stored commit: a line for each damaged file, then the sum."""
    console = Console(soft_wrap=True, highlight=False)
    for damage in found.damaged:
        console.print(f"{damage.path} {damage.what}", markup=False)
    for path in found.unlisted:
        console.print(f"{path} is not in the manifest, and no reader of the manifest sees it", markup=False)
    state = "whole:" if found.whole else f"damaged: {len(found.damaged)} of"
    how = "every byte read" if found.deep else f"{found.read_bytes / 1e6:,.0f} MB read, the store's word for the rest"
    console.print(
        f"{found.model}@{found.commit[:12]} is {state} {found.files} files, {found.bytes / 1e6:,.0f} MB ({how})",
        markup=False,
    )


def print_collection(done: Collection) -> None:
    """Print what became of each commit of a store."""
    table = Table("commit", "MB", "what", "why")
    for one in done.decisions:
        name = f"{one.model}@{one.commit[:12]}"
        table.add_row(name, f"{one.bytes / 1e6:,.0f}", one.action.value, "; ".join(one.why))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table if done.decisions else "nothing is stored")
    doomed = sum(one.action is Action.DELETE for one in done.decisions)
    verb = "would be deleted" if done.dry else "deleted"
    console.print(
        f"{doomed} commits, {done.deleted_bytes / 1e6:,.0f} MB {verb}; {done.kept_bytes / 1e6:,.0f} MB kept"
    )
    if done.dry:
        console.print(
            "Nothing was changed; `slipway gc --delete` marks what is garbage, and deletes what was marked."
        )


def print_findings(found: tuple[Finding, ...]) -> None:
    """Print what a person should know of commits in use."""
    console = Console(soft_wrap=True, highlight=False)
    for one in found:
        console.print(f"{one.kind.value}: {one.what} ({', '.join(one.pin.used)})", markup=False)
    if not found:
        console.print("nothing has changed upstream")
