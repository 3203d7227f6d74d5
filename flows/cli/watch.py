"""Asks Prefect for a run, and shows what it does as it is written down, to its end."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from uuid import UUID

import typer

from flows.cli.app import INTERRUPTED, say
from tasks._release.news import answer_line, question_lines, step_line
from tasks._release.world import open_world
from tasks.following import CLOCK, WAITING, Follower, RunEnd
from tasks.records import Approval, Progress, Question, ServiceRecord
from tasks.runs import start_run
from tasks.settings import Settings
from tasks.spec import ServiceSpec

WAITS = {
    WAITING: "waits until an earlier run has ended, or a killed one's minute is over",
    "Late": "no worker has taken the run up yet; `slipway status` shows whether one is healthy",
}


def run(
    settings: Settings,
    service: str,
    deployment: str,
    parameters: Mapping[str, Any],
    *,
    wait: bool,
    as_json: bool,
) -> int:
    """Run ``deployment`` for ``service``, print how it ended, and return the exit code that says so.

    Without ``wait`` the run is only started.  Ctrl-C ends the watching alone, and then the program.
    """
    with closing(Follower(settings, service)) as follower:
        begun = start_run(settings.prefect_api, deployment, {"service": service, **parameters})
        if not wait:
            told = f"{service}: asked for as flow run {begun}; `slipway status` shows how far it is"
            typer.echo(json.dumps({"service": service, "run": str(begun)}) if as_json else told)
            return 0
        try:
            end = _follow(follower, service, begun)
        except KeyboardInterrupt:
            say(f"{service}: no longer watched; the flow run {begun} goes on; `slipway status` shows how far it is")
            sys.exit(INTERRUPTED)
    typer.echo(end.to_json().decode() if as_json else end.message)
    if end.superseded:
        say(f"{service}: something newer was asked for; `slipway status` shows what goes on")
    return end.exit_code


def resolved(settings: Settings, spec: ServiceSpec, hub: str | None) -> str:
    """Return the commit that the spec's ref is at; raises as the Hub, the store and the settings do."""
    with open_world(settings) as world, world.hub(hub or settings.hub.endpoint) as source:
        return source.resolve(spec.model, spec.ref).commit


def _follow(follower: Follower, service: str, begun: UUID) -> RunEnd:
    told = ""

    def turn(record: ServiceRecord) -> None:
        nonlocal told
        current, waiting = record.current, record.waiting
        first = current.release.name if current and waiting and waiting.id == str(begun) else told
        if first != told:
            say(f"{service}: {first} is on its way, and ends first")
        told = first

    with _interruptible() as pause:
        say(f"{service}: flow run {begun}")
        return follower.follow(
            begun,
            on_step=lambda progress, step: say(step_line(progress, step)),
            on_state=lambda state: say(f"{service}: {WAITS[state.name]}") if state.name in WAITS else None,
            on_look=turn,
            on_person=_person,
            pause=pause,
        )


@contextmanager
def _interruptible() -> Iterator[Callable[[float], None]]:
    """Yield a pause that raises ``KeyboardInterrupt`` after Ctrl-C or SIGTERM; only a second one raises anywhere.

    Pydantic turns one that is raised in the midst of its work into an error of its own, or swallows it.
    """
    asked = 0

    def note(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt

    def pause(seconds: float) -> None:
        CLOCK.sleep(seconds)
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pause
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _person(progress: Progress, said: Question | Approval) -> None:
    if isinstance(said, Approval):
        say(answer_line(progress, said))
        return
    for line in question_lines(progress.release.name, progress.release.service, said):
        say(line)
