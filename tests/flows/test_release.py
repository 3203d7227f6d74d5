"""The flow ``release`` as Prefect runs it: states, names and artifacts, on a small cluster and real S3 and Hub."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ParameterTypeError

from flows.check_live import check_live
from flows.drill import drill
from flows.finish import finish
from flows.promote import promote
from flows.refresh import refresh
from flows.release import release as release_flow
from flows.restore import restore
from flows.roll_back import roll_back
from tasks import watching
from tasks._clock import Clock
from tasks._release.engine import Engine
from tasks._release.machine import PLANS
from tasks._release.wishes import to_release, to_roll_back
from tasks._release.world import open_world
from tasks.errors import NotFound
from tasks.following import Follower
from tasks.records import Approval, Kind, ServiceRecord, StepName
from tasks.releasing import _resolve
from tasks.runs import read_run, start_run
from tasks.settings import Settings, read_settings
from tests.flows.stage import SPEC, Stage

pytestmark = [
    pytest.mark.slow,
    # Prefect's own test server is left to close its sockets when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def release(**parameters: Any) -> State[Any]:
    """Run the flow and return the state it ended in."""
    state: State[Any] = release_flow(service="chat", return_state=True, **parameters)
    return state


def test_a_good_commit_is_promoted_and_told(stage: Stage) -> None:
    """The run is Completed, named after its release, and its report is an artifact."""
    commit = stage.publish(1)

    state = release(reason="because")

    assert (StateType.COMPLETED, "chat-r1 is live") == (state.type, state.message)
    assert f"chat-r1: release acme/tiny@{commit[:12]}" == stage.run_of(state).name
    assert "# chat-r1: promoted" in stage.artifacts()["release-chat"]
    assert "facts" in stage.artifacts()["chat-r1-quality"]
    ended = stage.record().past[-1]
    assert ("because", str(state.state_details.flow_run_id)) == (ended.reason, ended.run)


def test_a_commit_that_is_live_already_is_left_alone(stage: Stage) -> None:
    """Running twice makes one release."""
    stage.publish(1)
    release()

    state = release()

    assert StateType.COMPLETED is state.type
    assert "is live already" in str(state.message)
    assert 1 == len(stage.record().past)


def test_a_refused_commit_fails_the_run_with_its_reason_and_no_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is told as one, not as a crash."""
    stage.publish(1)
    release()
    stage.said = "rk rk rk rk"
    stage.publish(2)

    state = release()

    assert StateType.FAILED is state.type
    assert str(state.message).startswith("chat-r2 was refused: facts")
    assert "chat-r1" == getattr(stage.record().live, "name", None)
    assert not [line for line in caplog.records if line.name == "prefect.flow_runs" and line.exc_info]


def test_a_newer_wish_ends_what_a_dead_run_left(stage: Stage) -> None:
    """The older release is given up before it shifted traffic, and the newer one is made."""
    stage.publish(1)
    left_by_a_dead_run()
    stage.publish(2)

    state = release()

    assert "chat-r2 is live" == state.message
    assert ["superseded", "promoted"] == [one.outcome and one.outcome.value for one in stage.record().past]


class DiedError(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def die(_step: StepName) -> None:
    """End a run before its first step."""
    raise DiedError


def left_by_a_dead_run() -> None:
    """Have a run ask for the release of what ``main`` means, and die before its first step."""
    settings = read_settings()
    with open_world(settings) as world:
        engine, wanted = Engine(world, "chat", run="dead"), _resolve.fn(world, settings, "chat", None, None, None)
        engine.ask(to_release(wanted, run="dead", actor="", reason="older", at=world.clock.now()))
        with pytest.raises(DiedError):
            engine.carry("dead", die)


def test_an_earlier_release_is_gone_back_to_and_forth(stage: Stage) -> None:
    """A person rolls back, promotes again by name, and each is told in the record with who and why."""
    for number in (1, 2):
        stage.publish(number)
        release()

    back: State[Any] = roll_back(service="chat", actor="ada", reason="worse", return_state=True)
    forth: State[Any] = promote(service="chat", release="chat-r2", actor="bob", return_state=True)

    assert ["chat-r1 is live again", "chat-r2 is live again"] == [back.message, forth.message]
    past = stage.record().past[-2:]
    assert [("ada", "worse"), ("bob", "")] == [(one.actor, one.reason) for one in past]
    assert "chat-r2" == getattr(stage.record().live, "name", None)


def test_an_unknown_release_is_not_promoted(stage: Stage) -> None:
    """The error names what there is."""
    stage.publish(1)
    release()

    state: State[Any] = promote(service="chat", release="chat-r9", return_state=True)

    with pytest.raises(NotFound, match="There is: chat-r1"):
        state.result()


def test_a_drill_ends_where_it_began(stage: Stage) -> None:
    """It tells both times, and the release before is still the one to go back to."""
    for number in (1, 2):
        stage.publish(number)
        release()

    state: State[Any] = drill(service="chat", return_state=True)

    assert StateType.COMPLETED is state.type, state.message
    assert "back to chat-r1 in" in str(state.message)
    record = stage.record()
    assert ("chat-r2", "chat-r1") == (record.live and record.live.name, record.previous and record.previous.name)
    assert "chat-r1" == to_roll_back(record, None, run="", actor="", reason="", at=datetime.now(UTC)).release.name


def test_a_refresh_releases_a_new_commit_once_and_a_refused_one_never_again(stage: Stage) -> None:
    """What was refused is not tried again until its ref moves or a person asks."""
    stage.publish(1)
    states: list[State[Any]] = [refresh(service="chat", return_state=True) for _ in range(2)]
    stage.said = "rk rk rk rk"
    stage.publish(2)
    states += [refresh(service="chat", return_state=True) for _ in range(2)]

    told = [str(state.message) for state in states]
    assert "chat-r1 is live" == told[0]
    assert "still at commit" in told[1]
    assert told[2].startswith("chat-r2 was refused")
    assert "not tried again" in told[3]
    assert 2 == len(stage.record().past)


def test_a_live_release_that_turns_bad_is_left_by_itself(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after look fails, and traffic goes back to the release before."""
    monkeypatch.setattr(watching, "BETWEEN_S", 0.1)
    for number in (1, 2):
        stage.publish(number)
        release()
    healthy: State[Any] = check_live(service="chat", return_state=True)
    stage.cluster.apps["chat-r2"].engine.answer = lambda _messages: "rk rk rk"

    state: State[Any] = check_live(service="chat", return_state=True)

    assert StateType.COMPLETED is healthy.type
    assert StateType.FAILED is state.type
    assert "chat-r1 is live again" in str(state.message)


def test_what_a_dead_run_left_is_finished(stage: Stage) -> None:
    """The flow that a crash starts carries the release to its end."""
    stage.publish(1)
    left_by_a_dead_run()

    state: State[Any] = finish(service="chat", return_state=True)

    assert "chat-r1 is live" == state.message


def test_the_last_good_release_comes_back_in_an_empty_cluster(stage: Stage) -> None:
    """The store alone is needed."""
    stage.publish(1)
    release()
    stage.cluster.apps.clear()

    state: State[Any] = restore(service="chat", return_state=True)

    assert "chat-r1 is live again" == state.message


@pytest.mark.parametrize("where", ["in Prefect", "in the record"])
def test_a_person_approves(stage: Stage, where: str) -> None:
    """The run is Paused with a form, and goes on whether the answer comes there or by the command line."""
    (stage.folder / "chat.yaml").write_text(SPEC + "policy: approve\n")
    stage.publish(1)

    def answer() -> None:
        with SyncPrefectClient(api=stage.api) as client:
            run = None
            for _ in Clock().ticks(60, 0.2):
                found = client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type={"any_": [StateType.PAUSED]}))
                )
                if found:
                    run = found[0]
                    break
            assert run
            if where == "in Prefect":
                client.resume_flow_run(run.id, run_input={"answer": "approve", "who": "ada", "why": "looks good"})
        if where == "in the record":
            with open_world(read_settings()) as world:
                step = StepName.APPROVE
                Engine(world, "chat", run="cli").answer(
                    Approval(step=step, granted=True, who="ada", why="looks good", at=world.clock.now())
                )

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer)
        state = release()
        answering.result()

    assert "chat-r1 is live" == state.message
    assert [("ada", "looks good")] == [(one.who, one.why) for one in stage.record().past[-1].approvals]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        pytest.param({"ref": "nope"}, NotFound, id="ref"),
        pytest.param({"model": "no-slash"}, ParameterTypeError, id="model"),
    ],
)
def test_a_wish_that_makes_no_sense_touches_nothing(
    stage: Stage, parameters: dict[str, str], error: type[Exception]
) -> None:
    """The run fails before a release is opened."""
    stage.publish(1)

    state = release(**parameters)

    assert StateType.FAILED is state.type
    with pytest.raises(error):
        state.result()
    assert ServiceRecord(service="chat") == stage.record()


def test_a_run_can_be_followed_to_its_end(stage: Stage) -> None:
    """A watcher sees each step once, and the release of the run it watches."""
    stage.publish(1)
    settings = Settings(prefect_api=stage.api)
    follower = Follower(settings, "chat")
    state = release()
    seen: list[str] = []

    end = follower.follow(
        UUID(str(state.state_details.flow_run_id)), on_step=lambda _progress, step: seen.append(step.name.value)
    )

    follower.close()
    assert [step.value for step in PLANS[Kind.RELEASE]] == seen
    assert (0, "chat-r1") == (end.exit_code, end.release and end.release.release.name)


def test_what_prefect_does_not_have_is_not_found(prefect_api: str) -> None:
    """A missing deployment and a missing run are one sentence each."""
    with pytest.raises(NotFound, match="has no deployment 'release/none'"):
        start_run(prefect_api, "release/none", {})
    with pytest.raises(NotFound, match="was deleted"):
        read_run(prefect_api, UUID(int=1))
