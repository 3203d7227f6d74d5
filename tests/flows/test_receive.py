"""The webhook's road and the schedule's: a real Prefect server and worker, a Hub, ``slipway receive`` beside them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.states import Cancelled

from tasks.runs import REFRESH
from tests.fakes.webhooks import ReceiverProcess, payload, receiver_process, sha
from tests.flows.orchestra import Orchestra, orchestrated, until

SOON, EVERY = timedelta(seconds=8), timedelta(seconds=30)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def orchestra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestra]:
    """Run the services and a Prefect server; nothing runs its flows yet."""
    with orchestrated(tmp_path_factory.mktemp("orchestra")) as one:
        yield one


@contextmanager
def receiving(orchestra: Orchestra) -> Iterator[ReceiverProcess]:
    """Run ``slipway receive`` until the block is left."""
    with receiver_process(orchestra.environment, orchestra.folder / "receive.log") as receiver:
        yield receiver


def runs(orchestra: Orchestra) -> list[FlowRun]:
    """Return the runs that webhooks started."""
    with SyncPrefectClient(api=orchestra.api) as client:
        return [run for run in client.read_flow_runs(limit=200) if "webhook" in run.tags]


def called_off(orchestra: Orchestra) -> None:
    """End the runs that have not begun, as their flow would."""
    with SyncPrefectClient(api=orchestra.api) as client:
        for run in runs(orchestra):
            client.set_flow_run_state(run.id, Cancelled(), force=True)


def test_crowds_of_calls_make_one_run(orchestra: Orchestra) -> None:
    """100 times the same commit: one run, for ever.  100 commits of two services: one run waits for each."""
    (orchestra.stage.folder / "other.yaml").write_text("service: other\nmodel: acme/tiny\n")
    orchestra.do("tasks.deploying")
    try:
        with receiving(orchestra) as receiver:
            identical = receiver.call(*[payload(sha(1))] * 100)
            first = runs(orchestra)
            called_off(orchestra)
            again = receiver.call(payload(sha(1)))
            still = runs(orchestra)
            different = receiver.call(*(payload(sha(number)) for number in range(2, 102)))
            waiting = [run for run in runs(orchestra) if run.state and run.state.is_scheduled()]
            ended = receiver.stop()
    finally:
        (orchestra.stage.folder / "other.yaml").unlink()
    called_off(orchestra)

    assert {202} == {one.status_code for one in (*identical, *again, *different)}
    told = {run["url"]: run["service"] for one in identical for run in one.json()["runs"]}
    pages = orchestra.api.removesuffix("/api")
    assert {f"{pages}/runs/flow-run/{run.id}" for run in first} == set(told)
    assert ["chat", "other"] == sorted(told.values())
    assert [{"service": "chat"}, {"service": "other"}] == sorted((run.parameters for run in first), key=str)
    assert {run.id for run in first} == {run.id for run in still}
    assert {"Cancelled"} == {run["state"] for run in again[0].json()["runs"]}
    assert ["chat", "other"] == sorted(run.parameters["service"] for run in waiting)
    assert 2 == sum(run["new"] for one in different for run in one.json()["runs"])
    assert 0 == ended


def test_a_pushed_commit_is_released_by_webhook_alone_and_by_schedule_alone(orchestra: Orchestra) -> None:
    """With a receiver and no schedule, then with a schedule and no receiver."""
    stage = orchestra.stage
    stage.cluster.start_s = 0.0
    with orchestra.working():
        before, pushed = len(stage.record().past), stage.publish(11)
        with receiving(orchestra) as receiver:
            (answer,) = receiver.call(payload(pushed))
            by_webhook = until(lambda: stage.record().past[before:])[-1]
        pushed_again = stage.publish(12)
        with scheduled(orchestra):
            by_schedule = until(lambda: stage.record().past[before + 1 :])[-1]

    assert 202 == answer.status_code
    assert ("promoted", pushed) == (by_webhook.outcome, by_webhook.release.commit)
    assert answer.json()["runs"][0]["run"] == by_webhook.request
    assert ("promoted", pushed_again) == (by_schedule.outcome, by_schedule.release.commit)
    assert by_webhook.request != by_schedule.request


@contextmanager
def scheduled(orchestra: Orchestra) -> Iterator[None]:
    """Have the flow ``refresh`` run soon, and again every half minute, until the block is left."""
    times = IntervalSchedule(interval=EVERY, anchor_date=datetime.now(UTC) + SOON)
    schedule = DeploymentScheduleCreate(schedule=times, parameters={"service": "chat"})
    with SyncPrefectClient(api=orchestra.api) as client:
        deployment = client.read_deployment_by_name(REFRESH)
        (made,) = client.create_deployment_schedules(deployment.id, [schedule])
        try:
            yield
        finally:
            client.delete_deployment_schedule(deployment.id, made.id)
