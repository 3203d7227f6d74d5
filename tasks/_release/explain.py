"""Why a release is where it is, what it waits for, and what would get it on: a pure look at record and lease.

What the record says is what the next run will act on, so nothing else is asked.  A release waits for a person, for
another run, or for a step that is being done; or nobody carries it, and then the answer is a command.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from tasks._release.lease import LIFETIME_S, Lease, is_free
from tasks._release.machine import PLANS, gives_way
from tasks.records import Kind, Progress, Release, Request, ServiceRecord, StepState, Value


class Waits(StrEnum):
    """What a service waits for."""

    NOTHING = "nothing"
    STEP = "step"
    UNDOING = "undoing"
    PERSON = "person"
    RUN = "run"


COMMANDS = {
    Kind.RELEASE: "release",
    Kind.PROMOTE: "promote",
    Kind.ROLL_BACK: "rollback",
    Kind.RESTORE: "restore",
}
"""The command that asks for each kind again; the run that it starts finishes what is on its way first."""


class Explanation(Value):
    """What goes on.  ``unblock`` are the commands that would get it on; ``until`` is when waiting ends by itself."""

    version: int = 1
    service: str
    waits_for: Waits
    release: str | None = None
    commit: str | None = None
    step: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    why: tuple[str, ...]
    unblock: tuple[str, ...] = ()
    live: str | None = None
    kept_warm: str | None = None
    waiting: str | None = None
    last: str | None = None

    def lines(self) -> tuple[str, ...]:
        """Return it for a person."""
        return (
            *self.why,
            *((f"next: {self.waiting}",) if self.waiting else ()),
            *(f"to get it on: {command}" for command in self.unblock),
            f"live: {self.live or 'nothing'}; kept warm: {self.kept_warm or 'nothing'}",
            f"last: {self.last or 'no release has ended yet'}",
        )


def explain(record: ServiceRecord, lease: Lease | None, now: datetime) -> Explanation:
    """Say what ``record`` waits for; ``lease`` is the service's, None where nobody ever held it."""
    current = record.current
    carried = lease is not None and not is_free(lease, now)
    told = _idle(record, carried=carried) if current is None else _on_its_way(current, lease, now, carried=carried)
    return told.model_copy(
        update={
            "live": _named(record.live),
            "kept_warm": _named(record.previous),
            "waiting": _next(record.waiting, current),
            "last": _ended(record.past[-1]) if record.past else None,
        }
    )


def _idle(record: ServiceRecord, *, carried: bool) -> Explanation:
    service, asked = record.service, record.waiting
    if asked is None:
        return Explanation(service=service, waits_for=Waits.NOTHING, why=("Nothing is on its way.",))
    begins = "The run that holds the lease begins it now." if carried else "No run carries it: its own has ended."
    return Explanation(
        service=service,
        waits_for=Waits.RUN,
        since=asked.at,
        why=(f"Nothing is on its way, and {_wish(asked)} was asked for at {_at(asked.at)}.", begins),
        unblock=() if carried else (_again(service, asked.kind),),
    )


def _on_its_way(current: Progress, lease: Lease | None, now: datetime, *, carried: bool) -> Explanation:
    release = current.release
    told = Explanation(
        service=release.service,
        waits_for=Waits.STEP,
        release=release.name,
        commit=release.commit,
        why=_origin(current),
    )
    if current.question is not None and current.failure is None:
        return _asking(told, current, now, carried=carried)
    told = _in_step(told, current)
    if carried and lease is not None:
        free = lease.renewed_at + timedelta(seconds=LIFETIME_S)
        why = f"The run {lease.run} carries it; if it falls silent, another may take over from {_at(free)} on."
        return told.model_copy(update={"why": (*told.why, why)})
    return _left(told, current, lease)


def _asking(told: Explanation, current: Progress, now: datetime, *, carried: bool) -> Explanation:
    question = current.question
    if question is None:
        return told
    service, late = told.service, now >= question.until
    ends = "was" if late else "is"
    why = [
        f"A person is asked since {_at(question.asked_at)}: {question.text}",
        f"No answer by {_at(question.until)} {ends} a refusal.",
    ]
    if not carried:
        why.append("No run is there to act on the answer.")
    answers = () if late else (f"slipway approve {service}", f"slipway reject {service}")
    return told.model_copy(
        update={
            "waits_for": Waits.PERSON,
            "step": question.step.value,
            "since": question.asked_at,
            "until": question.until,
            "why": (*told.why, *why),
            "unblock": (*answers, *(() if carried else (_again(service, current.kind),))),
        }
    )


def _in_step(told: Explanation, current: Progress) -> Explanation:
    """Say which step is being done or comes next, and why it is undone if it is."""
    running = next((step for step in reversed(current.steps) if step.state is StepState.STARTED), None)
    failure = current.failure
    why = [] if failure is None else [f"It is being undone, {failure.outcome.value}: {failure.reason}"]
    if running is not None:
        why.append(f"The step {running.name.value} began at {_at(running.started_at)} and has not ended.")
    elif failure is None:
        undone = next((step.value for step in PLANS[current.kind] if not current.done(step)), "the end")
        why.append(f"Between two steps; next comes {undone}.")
    return told.model_copy(
        update={
            "waits_for": Waits.STEP if failure is None else Waits.UNDOING,
            "step": running.name.value if running else None,
            "since": running.started_at if running else current.opened_at,
            "why": (*told.why, *why),
        }
    )


def _left(told: Explanation, current: Progress, lease: Lease | None) -> Explanation:
    """Say that the run which carried it is gone."""
    silent = f" It was last heard of at {_at(lease.renewed_at)}." if lease is not None else ""
    why = f"No run carries it: the run {current.run} has ended or died.{silent}"
    return told.model_copy(
        update={
            "waits_for": Waits.RUN,
            "why": (*told.why, why),
            "unblock": (_again(told.service, current.kind),),
        }
    )


def _origin(current: Progress) -> tuple[str, ...]:
    who = f" for {current.actor}" if current.actor else ""
    reason = f": {current.reason}" if current.reason else ""
    release = current.release
    what = f"{release.name} ({release.commit[:12]}), a {current.kind.value.replace('_', ' ')}"
    return (f"{what}, is on its way since {_at(current.opened_at)}{who}{reason}.",)


def _next(asked: Request | None, current: Progress | None) -> str | None:
    if asked is None or current is None:
        return None
    given = current.failure is None and gives_way(current, asked)
    when = f"takes the place of {current.release.name}" if given else f"waits until {current.release.name} has ended"
    return f"{_wish(asked)}, asked for at {_at(asked.at)}, {when}"


def _wish(asked: Request) -> str:
    who = f" by {asked.actor}" if asked.actor else ""
    return f"a {asked.kind.value.replace('_', ' ')} of commit {asked.release.commit[:12]}{who}"


def _again(service: str, kind: Kind) -> str:
    return f"slipway {COMMANDS[kind]} {service}"


def _ended(progress: Progress) -> str:
    outcome = progress.outcome.value.replace("_", " ") if progress.outcome else "on its way"
    at = f" at {_at(progress.closed_at)}" if progress.closed_at else ""
    reason = f": {progress.failure.reason}" if progress.failure else ""
    return f"{progress.release.name} was {outcome}{at}{reason}"


def _named(release: Release | None) -> str | None:
    return f"{release.name} ({release.commit[:12]})" if release else None


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
