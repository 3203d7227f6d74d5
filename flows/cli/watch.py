"""``slipway release``: asks Prefect for a run and shows its steps as they end."""

from collections.abc import Callable
from contextlib import closing

from tasks._world import open_world
from tasks.following import WAITING, Follower, RunEnd, step_line
from tasks.runs import RELEASE, start_run
from tasks.settings import Settings
from tasks.spec import ServiceSpec

WAITS = {
    WAITING: "waits until an earlier release run has ended, or a killed one's minute is over",
    "Late": "no worker has taken the run up yet; `slipway status` shows whether one is healthy",
}


def run_release(
    settings: Settings,
    spec: ServiceSpec,
    *,
    model: str | None = None,
    ref: str | None = None,
    hub: str | None = None,
    reason: str = "",
    say: Callable[[str], None],
) -> RunEnd:
    """Release the service of ``spec`` through Prefect and return how it ended.

    What can be known to be wrong before a run exists is said here, with its own exit code: a model or ref that the
    Hub does not have, a Hub or store that is down.  ``model`` and ``ref`` are in ``spec`` already.
    """
    service = spec.service
    with open_world(settings) as world, world.hub(hub or settings.hub.endpoint) as source:
        resolved = source.resolve(spec.model, spec.ref)
    parameters = {"service": service, "model": model, "ref": ref, "hub": hub, "reason": reason}
    with closing(Follower(settings, service)) as follower:
        run = start_run(settings.prefect_api, RELEASE, parameters)
        say(f"{service}: commit {resolved.commit[:12]}, flow run {run}")
        return follower.follow(
            run,
            on_step=lambda progress, step: say(step_line(progress, step)),
            on_state=lambda state: say(f"{service}: {WAITS[state.name]}") if state.name in WAITS else None,
        )
