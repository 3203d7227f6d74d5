"""People and releases: who is told, through real notification blocks, and who the ledger says asked."""

import getpass
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events import emit_event
from prefect.flow_engine import run_flow_sync
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flows.finish import finish
from flows.release import release as release_flow
from flows.roll_back import roll_back
from tasks import notifying
from tasks._clock import Clock
from tasks._release.engine import Engine
from tasks._release.wishes import to_release, wanted
from tasks._release.world import open_world
from tasks._spec_file import load_spec
from tasks.notifying import teller
from tasks.settings import read_settings
from tests.fakes.asgi import serving
from tests.flows.stage import SPEC, Stage

DEADLINE_S = 60.0
KEY = "canary-of-the-receiver"

pytestmark = [
    pytest.mark.slow,
    # Prefect's own test server is left to close its sockets when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),  # apprise's
]


@dataclass
class Receiver:
    """A chat that people read: what came, by the last part of the path; ``status`` is what it answers."""

    url: str = ""
    status: dict[str, int] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    came: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a message, or be slow about it."""
        request = Request(scope, receive)
        name = request.url.path.strip("/")
        self.came.append((name, await request.json()))
        if name in self.slow:
            await anyio.sleep(DEADLINE_S)
        await Response(KEY, self.status.get(name, 200))(scope, receive, send)

    def told(self, name: str) -> list[str]:
        """Return the subjects that came there."""
        return [str(body.get("subject") or body.get("title")) for where, body in list(self.came) if where == name]


@pytest.fixture
def receiver(prefect_api: str) -> Iterator[Receiver]:
    """Return a chat with two addresses that Prefect knows: a custom webhook, and one in Slack's block."""
    assert prefect_api
    chat = Receiver()
    with serving(chat) as (chat.url, _):
        said = {"subject": "{{subject}}", "body": "{{body}}"}
        for name in ("ops", "refusing", "slow"):
            CustomWebhookNotificationBlock(
                name=name, url=f"{chat.url}/{name}?key={KEY}", json_data=said, timeout=DEADLINE_S
            ).save(name, overwrite=True)
        SlackWebhook(url=SecretStr(f"json://{chat.url.removeprefix('http://')}/slack")).save("ops", overwrite=True)
        yield chat


def tells(stage: Stage, *receivers: str, spec: str = "") -> None:
    """Have the service's spec name its receivers, each in YAML."""
    (stage.folder / "chat.yaml").write_text(f"{SPEC}{spec}notify: [{', '.join(receivers)}]\n")


def release() -> State[Any]:
    """Run the flow and return the state it ended in."""
    state: State[Any] = release_flow(service="chat", actor="ada", reason="better", return_state=True)
    return state


def test_an_end_is_told_once_with_its_reason_and_the_page_of_its_run(stage: Stage, receiver: Receiver) -> None:
    """Each receiver gets what it is told of, and nothing of the service's spec becomes part of a release."""
    tells(stage, "slack-webhook/ops", "{block: custom-webhook/ops, events: [refused]}")
    stage.publish(1)
    release()
    stage.said = "rk rk rk rk"
    stage.publish(2)

    state = release()

    assert ["chat-r1 is live", "chat-r2 was refused"] == receiver.told("slack")
    assert ["chat-r2 was refused"] == receiver.told("ops")
    body = next(body["body"] for name, body in receiver.came if name == "ops")
    assert "asked for by ada: better." in body
    assert "Reason: facts" in body
    assert f"{stage.api.removesuffix('/api')}/runs/flow-run/{state.state_details.flow_run_id}" in body
    assert "notify" not in stage.record().past[-1].release.spec


def test_a_question_is_told_and_only_a_name_can_answer_it(stage: Stage, receiver: Receiver) -> None:
    """The form is refused without one, the run stays paused, and the name that is given is in the record."""
    tells(stage, "custom-webhook/ops", spec="policy: approve\napproval: {timeout: 60}\n")
    stage.publish(1)

    def answer() -> list[str]:
        with SyncPrefectClient(api=stage.api) as client:
            paused = FlowRunFilter(state=FlowRunFilterState(type={"any_": [StateType.PAUSED]}))
            run = until(lambda: client.read_flow_runs(flow_run_filter=paused))[0]
            names = ("", "  ", " ada ")
            return [
                client.resume_flow_run(run.id, run_input={"answer": "approve", "who": who, "why": ""}).status.value
                for who in names
            ]

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer)
        release()
        said = answering.result()

    assert ["REJECT", "REJECT", "ACCEPT"] == said
    assert ["ada"] == [one.who for one in stage.record().past[-1].approvals]
    assert ["chat-r1 waits for a person", "chat-r1 is live"] == receiver.told("ops")


def test_receivers_that_are_away_slow_or_refuse_cost_a_release_seconds(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The release is live, whoever can be told is, and a warning for each other names no address and no key."""
    monkeypatch.setattr(notifying, "WITHIN_S", 2.0)
    caplog.set_level(logging.INFO, logger="tasks")
    receiver.status["refusing"] = 403
    receiver.slow.add("slow")
    tells(stage, "custom-webhook/refusing", "custom-webhook/slow", "slack-webhook/nobody", "slack-webhook/ops")
    stage.publish(1)

    state = release()

    assert "chat-r1 is live" == state.message
    assert ["chat-r1 is live"] == receiver.told("slack")
    warned = [one.getMessage() for one in caplog.records if one.name == "tasks.notifying"]
    assert {
        "custom-webhook/refusing was not told that chat-r1 is live: HTTPStatusError",
        "slack-webhook/nobody was not told that chat-r1 is live: ValueError",
        "custom-webhook/slow has not taken within 2 s that chat-r1 is live",
    } == set(warned)


class DiedError(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.mark.parametrize("boundary", ["ledger", "closed"])
def test_the_end_of_a_release_whose_run_dies_is_told(stage: Stage, receiver: Receiver, boundary: str) -> None:
    """Once, whether the run died before the record said that the release had ended or after it."""
    tells(stage, "custom-webhook/ops")
    commit = stage.publish(1)

    def die(crossed: str) -> None:
        if crossed == boundary:
            raise DiedError

    settings = read_settings()
    with open_world(settings) as world:
        dying = Engine(replace(world, cross=die, tell=teller(world)), "chat", run="dead")
        release = wanted(load_spec(settings.services, "chat"), commit, settings.hub.endpoint)
        asked = dying.ask(to_release(release, run="dead", actor="ada", reason="", at=world.clock.now()))
        with pytest.raises(DiedError):
            dying.carry(asked)
    finish(service="chat", return_state=True)

    assert ["chat-r1 is live"] == receiver.told("ops")


def test_the_ledger_says_who_asked_whichever_way_a_run_was_started(stage: Stage) -> None:
    """A process, the Prefect UI, its API, a schedule, an automation, a webhook, and a person who is named."""
    for seed in (1, 2):
        stage.publish(seed)
        release_flow(service="chat", return_state=True)
    with deployed(stage.api) as (client, deployment):
        from_ui = {"state": {"type": "SCHEDULED", "message": "Run from the Prefect UI with defaults"}}
        ways: list[Callable[[], UUID]] = [
            lambda: posted(client, f"/deployments/{deployment}/create_flow_run", from_ui),
            lambda: client.create_flow_run_from_deployment(deployment).id,
            lambda: by_schedule(client, deployment),
            lambda: by_automation(client, deployment),
            lambda: client.create_flow_run_from_deployment(deployment, tags=["webhook"]).id,
            lambda: client.create_flow_run_from_deployment(deployment, parameters={"actor": "ada"}).id,
        ]
        for number, way in enumerate(ways):
            run = client.read_flow_run(way())
            to = f"chat-r{1 + number % 2}"
            run_flow_sync(roll_back, flow_run=run, parameters={**run.parameters, "to": to}, return_type="state")

    user = getpass.getuser()
    assert [
        *(user, user, "somebody in the Prefect UI", "somebody by Prefect's API"),
        *("schedule nightly", "automation back", "webhook", "ada"),
    ] == [one.actor for one in stage.record().past]


@contextmanager
def deployed(api: str) -> Iterator[tuple[SyncPrefectClient, UUID]]:
    """Give a client, and the deployment of a roll back of the service."""
    with SyncPrefectClient(api=api) as client:
        flow = client.create_flow_from_name(roll_back.name)
        made = client.create_deployment(flow, "people", parameters={"service": "chat"})
        try:
            yield client, made
        finally:
            client.delete_deployment(made)


def posted(client: SyncPrefectClient, path: str, body: dict[str, Any]) -> UUID:
    """Post what a page of Prefect posts; return the id of what it made."""
    answer = client._client.post(path, json=body)
    return UUID(answer.json()["id"])


def by_schedule(client: SyncPrefectClient, deployment: UUID) -> UUID:
    """Have a schedule of the deployment make the run that was due a moment ago."""
    due = datetime.now(UTC) - timedelta(seconds=30)
    schedule = {"interval": 3600, "anchor_date": due.isoformat()}
    made = [{"schedule": schedule, "slug": "nightly", "active": True}]
    client._client.post(f"/deployments/{deployment}/schedules", json=made)
    span = {
        "start_time": (due - timedelta(seconds=5)).isoformat(),
        "end_time": (due + timedelta(hours=2)).isoformat(),
    }
    client._client.post(f"/deployments/{deployment}/schedule", json=span)
    runs = [run for run in client.read_flow_runs(limit=200) if run.deployment_id == deployment and run.auto_scheduled]
    return min(runs, key=lambda run: run.expected_start_time or due).id


def by_automation(client: SyncPrefectClient, deployment: UUID) -> UUID:
    """Have an automation start the deployment, and tell it to."""
    trigger = {"type": "event", "posture": "Reactive", "expect": ["people.back"], "threshold": 1, "within": 0}
    action = {"type": "run-deployment", "source": "selected", "deployment_id": str(deployment), "parameters": {}}
    automation = posted(client, "/automations/", {"name": "back", "trigger": trigger, "actions": [action]})

    def runs() -> list[FlowRun]:
        emit_event("people.back", resource={"prefect.resource.id": "people"})
        return [run for run in client.read_flow_runs(limit=200) if run.created_by and run.created_by.id == automation]

    try:
        return UUID(str(until(runs)[0].id))
    finally:
        client.delete_automation(automation)


def until(come: Callable[[], Any]) -> Any:
    """Return what has come, waiting for it."""
    for _ in Clock().ticks(DEADLINE_S, 0.5):
        if found := come():
            return found
    raise AssertionError("it did not come")
