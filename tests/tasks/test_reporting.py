"""What Prefect is given to show, and that a server which does not take it changes nothing."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import prefect
import pytest
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.records import (
    Approval,
    CheckResult,
    Outcome,
    Progress,
    Question,
    Release,
    Step,
    StepName,
    StepState,
    Verdict,
)
from tasks.reporting import publish_table, question_markdown, release_markdown

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
HOSTILE = "a | b\n<b>\x1b[31m"


def progress(**more: Any) -> Progress:
    """Return a release that was promoted with one verdict of each kind, unless told otherwise."""
    release = Release(
        service="chat", number=7, model="org/model", commit="7" * 40, hub="https://hub.example", spec={}
    )
    verdicts = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)
    checks = tuple(CheckResult(name=verdict.value, verdict=verdict, summary=HOSTILE) for verdict in verdicts)
    values: dict[str, Any] = {"release": release, "run": "1", "opened_at": NOON, "outcome": Outcome.PROMOTED}
    return Progress(**(values | {"checks": checks} | more))


@contextmanager
def server(status: int) -> Iterator[list[dict[str, Any]]]:
    """Run a Prefect server that answers every artifact with ``status``, and yield what it was given."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/version"):
                self.answer(200, prefect.__version__)
            else:
                self.answer(422, {"detail": "CSRF protection is disabled."})

        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(status, {"id": str(UUID(int=1)), **taken[-1]})

        def answer(self, status: int, told: object) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=running.serve_forever, args=[0.05])
    thread.start()
    EventsWorker.set_client_override(NullEventsClient)  # the others would go on calling this server after its end
    try:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{running.server_port}/api"}):
            yield taken
    finally:
        EventsWorker.set_client_override(None)
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")
def test_verdicts_become_a_table_with_the_worst_first() -> None:
    """All releases of a service share one key, and what a model said can neither break a cell nor hide."""
    with server(201) as taken:
        publish_table(progress())
    rows = json.loads(taken[0]["data"])

    assert [(one["key"], one["type"]) for one in taken] == [("verdicts-chat", "table")]
    assert [row["verdict"] for row in rows] == ["fail", "inconclusive", "pass"]
    assert rows[0]["what was found"] == r"a | b\n<b>\x1b[31m"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Artifact creation outside of a flow:FutureWarning")
def test_a_server_that_takes_nothing_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A table that Prefect refuses is a line in the log."""
    with server(422):
        publish_table(progress())

    assert "The verdicts are not shown in Prefect" in caplog.text


def test_the_markdown_names_every_step_and_answer() -> None:
    """Any step can be in a report, and who answered a question is said in one line whatever they wrote."""
    steps = tuple(Step(name=name, state=StepState.DONE, started_at=NOON, ended_at=NOON) for name in StepName)
    answer = Approval(step=StepName.APPROVE, granted=True, who="ben", why=HOSTILE, at=NOON)
    lines = release_markdown(progress(steps=steps, approvals=(answer,))).splitlines()

    assert "# chat-r7: promoted" in lines
    assert r"- approval: granted by ben, a \| b\\n&lt;b>" in "\n".join(lines)
    assert "- **paired checks against the live release** (0.0 s): " in lines
    assert len([line for line in lines if re.match(r"- \*\*.* s\): ", line)]) == len(StepName)


def test_a_question_is_put_with_what_it_is_about() -> None:
    """A person reads the commit, who asked and why, what the checks say, and until when, above the form."""
    question = Question(step=StepName.APPROVE, text="Shall it?", asked_at=NOON, until=NOON)
    checks = (
        CheckResult(name="facts", verdict=Verdict.PASS, summary="12 of 12"),
        CheckResult(name="latency", verdict=Verdict.INCONCLUSIVE, summary="too few"),
    )
    shown = question_markdown(progress(actor="ada", reason="[newer](http://x)", checks=checks), question)

    assert "**Shall it?**" in shown
    assert r"asked for by ada: \[newer](http://x)" in shown
    assert "1 of 2 checks passed; latency: inconclusive" in shown
    assert "no answer until 2025-01-01 12:00 UTC is a refusal" in shown
