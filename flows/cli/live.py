"""``status --watch``: releases in progress as they go, until Ctrl-C.

On a terminal one screen that is drawn anew each second, whatever its size; elsewhere a line for each thing that
changes; with ``--json`` a line of JSON each time that something did.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.cli.interrupting import interruptible
from flows.cli.screens import ended_line, plain, print_status, service_lines
from flows.cli.sight import Look
from tasks.records import Step, StepName, StepState, Verdict

EVERY_S = 1.0
"""Seconds between two looks at the record."""
MARKS = {
    StepState.DONE: ("ok", "green"),
    StepState.FAILED: ("FAIL", "bold red"),
    StepState.STARTED: ("now", "bold cyan"),
}
_WIDEST = max(len(step.value) for step in StepName)
NEVER_PASSED = {Verdict.FAIL.value: "bold red", Verdict.INCONCLUSIVE.value: "yellow"}


def watch(look: Look, *, as_json: bool) -> None:
    """Show what ``look`` sees until somebody ends it; raises what a look raises."""
    console = Console(highlight=False, markup=False)
    with interruptible() as pause:
        try:
            if as_json:
                _stream(look, pause)
            elif console.is_terminal and not console.is_dumb_terminal:
                _draw(look, pause, console)
            else:
                _tell(look, pause)
        except KeyboardInterrupt:
            return


def _stream(look: Look, pause: Callable[[float], None]) -> None:
    before: dict[str, Any] | None = None
    while True:
        seen = look()
        if seen != before:
            typer.echo(json.dumps({"at": datetime.now(UTC).isoformat(), **seen}))
        before = seen
        pause(EVERY_S)


def _tell(look: Look, pause: Callable[[float], None]) -> None:
    before: list[str] = []
    while True:
        lines = [line for name, service in look()["services"].items() for line in _story(name, service)]
        for line in lines or ["no service is described, or no store is configured"]:
            if line not in before:
                typer.echo(line)
        before = lines or ["no service is described, or no store is configured"]
        pause(EVERY_S)


def _draw(look: Look, pause: Callable[[float], None], console: Console) -> None:
    seen = look()
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(screen(seen, datetime.now(UTC)), refresh=True)
                pause(EVERY_S)
                seen = look()
    finally:
        print_status(seen)


def screen(seen: dict[str, Any], now: datetime) -> RenderableType:
    """Return the whole screen; what is in progress comes first, for a terminal may be short."""
    services = seen["services"].items()
    busy = [(name, one) for name, one in services if one.get("current") or one.get("waiting")]
    idle = [(name, one) for name, one in services if (name, one) not in busy]
    title = Text.assemble(("slipway ", "bold"), f"{now:%H:%M:%S} UTC", ("   Ctrl-C ends the watching only", "dim"))
    shown = [part for name, one in busy for part in (Text(), *_in_progress(name, one, now))]
    quiet = [part for name, one in idle for part in (Text(), *_quiet(name, one))]
    return Group(title, *(shown + quiet or [Text("no service is described, or no store is configured")]))


def _quiet(name: str, service: dict[str, Any]) -> list[RenderableType]:
    lines = [Text(line) for line in service_lines(name, service)]
    if service.get("last"):
        lines.append(Text(f"  last: {ended_line(service['last'])}", style="dim"))
    return [*lines]


def _in_progress(name: str, service: dict[str, Any], now: datetime) -> list[RenderableType]:
    """Return the part of the screen about one service whose release is on its way."""
    current = service["current"]
    lines = [Text(line) for line in service_lines(name, service)]
    if current is None:
        return [*lines]
    spent = (now - datetime.fromisoformat(current["opened_at"])).total_seconds()
    asked = f" for {current['actor']}" if current["actor"] else ""
    why = f": {current['reason']}" if current["reason"] else ""
    about = Text(f"  {plain(current['kind'])}{asked}{why}, since {_span(spent)}", style="dim")
    to_come = ", ".join(plain(step) for step in current["to_come"])
    rest = [Text(f"  to come: {to_come}", style="dim")] if to_come else []
    return [*lines, about, _steps(current, now), *rest, *_checks(current), *_clients(current)]


def _steps(current: dict[str, Any], now: datetime) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    for width, justify in ((6, "right"), (_WIDEST, "left"), (9, "right")):
        table.add_column(width=width, no_wrap=True, justify=justify)  # type: ignore[arg-type]
    table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
    for one in current["steps"]:
        step = Step.model_validate(one)
        mark, style = MARKS[step.state]
        running = step.state is StepState.STARTED
        spent = (now - step.started_at).total_seconds() if running else step.seconds
        table.add_row(Text(mark, style=style), plain(step.name.value), _span(spent), Text(step.detail, style="dim"))
    return table


def _checks(current: dict[str, Any]) -> list[RenderableType]:
    checks = current["checks"]
    if not checks:
        return []
    counts = [f"{sum(one['verdict'] == verdict for one in checks)} {verdict}" for verdict in Verdict]
    trouble = [
        Text(f"    {one['verdict']}: {one['name']}: {one['summary']}", style=NEVER_PASSED[one["verdict"]])
        for one in checks
        if one["verdict"] in NEVER_PASSED
    ]
    return [Text(f"  checks: {', '.join(counts)}"), *trouble]


def _clients(current: dict[str, Any]) -> list[RenderableType]:
    seen = current["clients"]
    if seen is None:
        return []
    bad = seen["lost"] + seen["truncated"]
    counted = (
        f"  clients: {seen['requests']} requests, {seen['lost']} lost, {seen['truncated']} truncated, "
        f"{seen['streams_open']} streams open"
    )
    shares = ", ".join(f"{release} {share:.0f} %" for release, share in seen["shares"].items())
    told = [Text(counted, style="bold red" if bad else "green")]
    return [*told, *([Text(f"  answers of the last seconds: {shares}")] if shares else [])]


def _story(name: str, service: dict[str, Any]) -> list[str]:
    """Return what is to be told of a service, a line for each thing, none of which changes by time alone."""
    lines, current = service_lines(name, service), service.get("current")
    if current:
        ended = [step for one in current["steps"] if (step := Step.model_validate(one)).ended_at]
        lines += [_step_line(current["name"], step) for step in ended]
        lines += [
            f"{current['name']}: {one['verdict']}: {one['name']}: {one['summary']}"
            for one in current["checks"]
            if one["verdict"] in NEVER_PASSED
        ]
    elif service.get("last"):
        lines.append(f"{name}: last: {ended_line(service['last'])}")
    return lines


def _step_line(release: str, step: Step) -> str:
    mark, _ = MARKS[step.state]
    return f"{release}: {mark} {plain(step.name.value)}, {_span(step.seconds)}  {step.detail}".rstrip()


def _span(seconds: float) -> str:
    """Return a time as a person reads it."""
    if seconds < 100:  # noqa: PLR2004 - below, tenths matter
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} m {rest:02} s"
