"""Starts a run, and shows what it does as it is written down, to its end.

It is a run of Prefect's where a server is configured, which goes on whoever watches.  Without one the flow's own code
runs in this process and ends with it; the record, the outcome and the exit code are the same.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from importlib import import_module
from typing import Any, NoReturn
from uuid import UUID

import typer

from flows.cli.app import INTERRUPTED, say
from flows.cli.interrupting import interruptible
from tasks._release.news import answer_line, question_lines, step_line
from tasks._release.world import open_world
from tasks.errors import BadInput
from tasks.following import Follower, RunEnd
from tasks.in_process import OwnRun
from tasks.records import Approval, Progress, Question, ServiceRecord
from tasks.runs import RunState, is_configured, read_run, start_run
from tasks.settings import Settings
from tasks.spec import ServiceSpec

WAITS = {
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

    Without ``wait`` the run is only started.  Ctrl-C ends the watching alone, and then the program; a run in this
    process ends with that.
    """
    with closing(Follower(settings, service)) as follower:
        if not is_configured(settings.prefect_api):
            end = _run_here(follower, service, deployment, parameters, wait=wait)
        else:
            begun = start_run(settings.prefect_api, deployment, {"service": service, **parameters})
            if not wait:
                told = f"{service}: asked for as flow run {begun}; `slipway status` shows how far it is"
                typer.echo(json.dumps({"service": service, "run": str(begun)}) if as_json else told)
                return 0
            end = _follow_to_the_end(follower, service, begun)
    typer.echo(end.to_json().decode() if as_json else end.message)
    if end.superseded:
        say(f"{service}: something newer was asked for; `slipway status` shows what goes on")
    return end.exit_code


def resolved(settings: Settings, spec: ServiceSpec, hub: str | None) -> str:
    """Return the commit that the spec's ref is at; raises as the Hub, the store and the settings do."""
    with open_world(settings) as world, world.hub(hub or settings.hub.endpoint) as source:
        return source.resolve(spec.model, spec.ref).commit


def _follow_to_the_end(follower: Follower, service: str, begun: UUID) -> RunEnd:
    try:
        return _follow(follower, service, begun)
    except KeyboardInterrupt:
        say(f"{service}: no longer watched; the flow run {begun} goes on; `slipway status` shows how far it is")
        sys.exit(INTERRUPTED)


def _run_here(
    follower: Follower, service: str, deployment: str, parameters: Mapping[str, Any], *, wait: bool
) -> RunEnd:
    """Run the flow of ``deployment`` in this process; what its code raises is raised here."""
    if not wait:
        raise BadInput(
            "Without a Prefect server the run is this program, which has to wait for it.",
            remedy="Leave out --no-wait, or set PREFECT_API_URL.",
        )
    name = deployment.partition("/")[0].replace("-", "_")
    flow = getattr(import_module(f"flows.{name}"), name)
    say(f"{service}: no Prefect server is configured, so this program carries it itself, and Ctrl-C stops it")
    own = OwnRun(partial(flow.fn, service=service, **parameters))
    try:
        end = _follow(follower, service, own.id, lambda *_: own.state())
    except KeyboardInterrupt:
        _stop_here(service)
    if own.error is not None:
        raise own.error
    return end


def _stop_here(service: str) -> NoReturn:
    """End this process at once, as a crash would: threads that move bytes would hold it up otherwise."""
    say(f"{service}: stopped; `slipway finish {service}` ends what is left on its way, `slipway rollback` undoes it")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _follow(
    follower: Follower, service: str, begun: UUID, state_of: Callable[[str, UUID], RunState] = read_run
) -> RunEnd:
    told = ""

    def turn(record: ServiceRecord) -> None:
        nonlocal told
        current, waiting = record.current, record.waiting
        first = current.release.name if current and waiting and waiting.id == str(begun) else told
        if first != told:
            say(f"{service}: {first} is on its way, and ends first")
        told = first

    with interruptible() as pause:
        say(f"{service}: flow run {begun}")
        return follower.follow(
            begun,
            on_step=lambda progress, step: say(step_line(progress, step)),
            on_state=lambda state: say(f"{service}: {WAITS[state.name]}") if state.name in WAITS else None,
            on_look=turn,
            on_person=_person,
            pause=pause,
            state_of=state_of,
        )


def _person(progress: Progress, said: Question | Approval) -> None:
    if isinstance(said, Approval):
        say(answer_line(progress, said))
        return
    for line in question_lines(progress.release.name, progress.release.service, said):
        say(line)
