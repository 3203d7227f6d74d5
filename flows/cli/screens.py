"""What ``status`` and ``history`` print, made of what ``sight`` read."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tasks._release.news import question_lines
from tasks.records import Question


def print_status(shown: dict[str, Any]) -> None:
    """Print what a look at the releases saw."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if shown["stack"] is None:
        console.print("no embedded stack is up; `slipway up` starts one")
    else:
        _print_stack(console, shown["stack"])
    for name, service in shown["services"].items():
        for line in service_lines(name, service):
            console.print(line)


def print_history(past: list[dict[str, Any]]) -> None:
    """Print what ``read_history`` returned."""
    table = Table("release", "what", "commit", "outcome", "seconds", "who", "reason")
    for one in past:
        what, outcome = plain(one["kind"]), plain(one["outcome"] or "")
        why = "; ".join(filter(None, (one["reason"], *map(_approved, one["answers"]))))
        table.add_row(one["name"], what, one["commit"][:12], outcome, f"{one['seconds']:.0f}", one["actor"], why)
    Console(markup=False).print(table if past else "no release has ended yet")


def service_lines(name: str, service: dict[str, Any]) -> list[str]:
    """Return what goes on with a service, with what a person could do about it."""
    if "error" in service:
        return [f"{name}: {service['error']}"]
    current, waiting, carrier = service["current"], service["waiting"], service["carrier"]
    lines = [
        f"{name}: live {_named(service['live'])}, kept warm {_named(service['previous'])}, "
        f"on its way {_named(current)}"
    ]
    if service["live"] and service["away"]:
        lines.append(f"{name}: whether {service['live']['name']} runs is not known. {service['away']}")
    elif service["live"] and service["serving"] != service["live"]["name"]:
        lines.append(f"{name}: {service['live']['name']} does not run; `slipway restore {name}` brings it back")
    if current:
        failure = f"; it is undone, because {current['failure']}" if current["failure"] else ""
        what = f"{current['name']}, a {plain(current['kind'])}, is at {current['step']}"
        lines.append(f"{name}: {what}; {carrier_line(name, carrier)}{failure}")
    elif carrier:
        lines.append(f"{name}: the run {carrier} is at work")
    if current and current["question"]:
        lines += question_lines(current["name"], name, Question.model_validate(current["question"]))
    if waiting:
        why = f": {waiting['reason']}" if waiting["reason"] else ""
        asked = f"{plain(waiting['kind'])} of {_named(waiting)}"
        lines.append(f"{name}: waits to begin: {asked}, asked for by {waiting['actor'] or 'nobody named'}{why}")
    return lines


def carrier_line(name: str, carrier: str | None) -> str:
    """Return who carries the release on its way."""
    return f"the run {carrier} carries it" if carrier else f"no run carries it now; `slipway finish {name}` does"


def ended_line(last: dict[str, Any]) -> str:
    """Return how the release that ended last did."""
    why = f": {last['reason']}" if last["reason"] else ""
    return f"{last['name']} was {plain(last['outcome'] or 'ended')} after {last['seconds']:.0f} s{why}"


def plain(word: str) -> str:
    """Return a word of the record as a person writes it."""
    return word.replace("_", " ")


def _print_stack(console: Console, parts: dict[str, Any]) -> None:
    table = Table("part", "state", "where", "pid")
    for name, part in parts.items():
        state = "healthy" if part["answers"] else "does not answer" if part["alive"] else "down"
        table.add_row(name, state, part.get("endpoint") or "", str(part.get("pid") or ""))
    console.print(table)


def _approved(answer: dict[str, Any]) -> str:
    """Return who let a release go on; that somebody did not is the reason of its end already."""
    why = f", {answer['why']}" if answer["why"] else ""
    return f"approved by {answer['who']}{why}" if answer["granted"] else ""


def _named(release: dict[str, Any] | None) -> str:
    if release is None:
        return "none"
    commit = release["commit"][:12]
    return f"{release['name']} ({commit})" if release["name"] else f"commit {commit}"
