"""A question to a person, asked in the Prefect UI: a typed form, and the run waits in the state Paused.

The answer is in the record, not in Prefect: whoever answers elsewhere, by ``slipway approve``, or takes the release's
place, is noticed while the form is open, and the run goes on.  A Prefect server that is away changes nothing but that
nobody can answer there.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread
from uuid import uuid4

import httpx
from prefect import runtime
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from tasks._release.engine import TURN, Engine
from tasks.errors import NotFound, SlipwayError
from tasks.records import Approval, Question
from tasks.reporting import publish_release, question_markdown
from tasks.runs import RECORD, wake

LOOK_EVERY_S = 2
"""Seconds between two looks at the form, and at the record."""

log = logging.getLogger(__name__)


class Answer(RunInput):
    """The form that a person fills in."""

    answer: str = Field(
        title="Your answer",
        description="The word approve: it goes on; or the word reject: it is refused, and what is live stays live.",
        pattern="^(approve|reject)$",
    )
    who: str = Field(
        title="Your name", description="Kept in the record; nobody can answer without one.", pattern=r"\S"
    )
    why: str = Field("", title="Your reason", description="Kept in the record and shown in the report.")


def consult(engine: Engine, question: Question) -> None:
    """Wait until somebody answers ``question``, or its time is over; what is said here is written down."""
    left_s = (question.until - datetime.now(UTC)).total_seconds()
    if not runtime.flow_run.id or left_s <= 0:
        Event().wait(TURN)
        return
    publish_release(engine.progress)
    log.info(
        "%s: %s Press Resume on this page, or use `slipway approve`.", engine.progress.release.name, question.text
    )
    form = Answer.with_initial_data(description=question_markdown(engine.progress, question))
    try:
        with _woken_by_the_record(engine, question):
            said = pause_flow_run(
                wait_for_input=form, timeout=max(int(left_s), 1), poll_interval=LOOK_EVERY_S, key=uuid4().hex
            )
    except FlowPauseTimeout:
        return
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        log.warning("Nobody can answer in Prefect now: %s", type(error).__name__)
        Event().wait(TURN)
        return
    if said is not None and said.who != RECORD:
        _write(engine, question, said)


def _write(engine: Engine, question: Question, said: Answer) -> None:
    granted = said.answer == "approve"
    approval = Approval(step=question.step, granted=granted, who=said.who.strip(), why=said.why, at=datetime.now(UTC))
    try:
        engine.answer(approval)
    except NotFound:
        log.info("The question was answered elsewhere before.")


@contextmanager
def _woken_by_the_record(engine: Engine, question: Question) -> Iterator[None]:
    """End the pause of this run when the record no longer asks, or asks something else to be done."""
    ended, run, api = Event(), str(runtime.flow_run.id), str(PREFECT_API_URL.value() or "")
    name = engine.progress.release.name

    def watch() -> None:
        look = engine.onlooker()
        while not ended.wait(LOOK_EVERY_S):
            try:
                if look(question):
                    log.info("%s: the question was answered elsewhere, or something newer was asked for", name)
                    wake(api, run)
                    return
            except SlipwayError as error:
                log.warning("%s", error)

    watcher = Thread(target=watch, name="question", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
