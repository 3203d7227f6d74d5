"""``slipway bootstrap``: a real Prefect server comes to hold what it should, and stays so."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from tasks import deploying
from tasks._deploying.things import POOL
from tasks.deploying import What
from tasks.errors import BadInput, MachineError, Refused
from tasks.local.components import Surroundings
from tasks.local.deployments import register
from tasks.local.state import Keys, Stack, State
from tasks.runs import start_run
from tasks.settings import KubernetesSettings, Settings, StoreSettings, WorkerSettings
from tests.flows.command_line import Line, asking, line

__all__ = ["line"]

pytestmark = pytest.mark.slow

EVERY_HOUR = "service: chat\nmodel: acme/tiny\nschedules: {refresh: '0 * * * *', timezone: Europe/Berlin}\n"
NEVER = "service: chat\nmodel: acme/tiny\n"


@pytest.fixture
def settings(tmp_path: Path, prefect_api: str) -> Settings:
    """Return where one service is refreshed each hour."""
    (tmp_path / "chat.yaml").write_text(EVERY_HOUR)
    return Settings(services=tmp_path, prefect_api=prefect_api)


@pytest.fixture
def prefect(prefect_api: str) -> Iterator[SyncPrefectClient]:
    """Return a client of the server."""
    with SyncPrefectClient(api=prefect_api) as client:
        yield client


def changed(settings: Settings) -> dict[str, str]:
    """Bootstrap, and return what was not right already."""
    return {one.name: one.what for one in deploying.bootstrap(settings) if one.what is not What.SAME}


def test_a_second_time_nothing_changes(settings: Settings, prefect: SyncPrefectClient) -> None:
    """A server without anything gets all of it, and then is as it should be."""
    for one in prefect.read_deployments():
        prefect.delete_deployment(one.id)
    for automation in prefect.read_automations():
        prefect.delete_automation(automation.id)

    first, second = changed(settings), changed(settings)

    assert {What.MADE} == {what for name, what in first.items() if name != POOL}
    assert {"release/release", "refresh/chat", "finish-after-a-crash"} <= set(first)
    assert {} == second
    own = prefect.read_deployment_by_name("refresh/chat")
    assert ({"service": "chat"}, ["chat", "slipway", "watching"]) == (own.parameters, sorted(own.tags))
    assert [("0 * * * *", "Europe/Berlin")] == [(s.schedule.cron, s.schedule.timezone) for s in own.schedules]
    finish = prefect.read_deployment_by_name("finish/finish").id
    action = prefect.read_automations_by_name("finish-after-a-crash")[0].actions[0]
    assert finish == action.deployment_id


def test_what_was_edited_is_set_right_and_what_was_paused_stays_so(
    settings: Settings, prefect: SyncPrefectClient
) -> None:
    """A person's pause outlives it, and nothing else that a person did by hand."""
    changed(settings)
    own = prefect.read_deployment_by_name("refresh/chat")
    prefect.update_deployment(own.id, DeploymentUpdate(description="mine", concurrency_limit=7))
    prefect.pause_deployment(own.id)
    prefect.update_deployment_schedule(own.id, own.schedules[0].id, active=False)

    told = [one for one in deploying.bootstrap(settings) if one.name == "refresh/chat"]

    after = prefect.read_deployment_by_name("refresh/chat")
    assert [("changed", ("description", "concurrency_limit"), True)] == [(o.what, o.fields, o.paused) for o in told]
    assert (True, False) == (after.paused, after.schedules[0].active)
    assert after.global_concurrency_limit is None
    prefect.delete_deployment(own.id)


def test_a_schedule_that_goes_takes_its_deployment_along_and_no_other(
    settings: Settings, prefect: SyncPrefectClient
) -> None:
    """A deployment that a person made has other tags, and stays."""
    changed(settings)
    flow = prefect.create_flow_from_name("refresh")
    mine = prefect.create_deployment(flow_id=flow, name="mine", tags=["mine"])
    (settings.services / "chat.yaml").write_text(NEVER)

    assert {"refresh/chat": What.REMOVED} == changed(settings)
    assert "mine" == prefect.read_deployment(mine).name
    with pytest.raises(ObjectNotFound):
        prefect.read_deployment_by_name("refresh/chat")
    prefect.delete_deployment(mine)


def test_an_automation_that_is_there_twice_or_of_old_is_cleared_up(
    settings: Settings, prefect: SyncPrefectClient
) -> None:
    """A crash starts one run of ``finish``, whatever was made by hand before."""
    changed(settings)
    there = AutomationCore(**dict(prefect.read_automations_by_name("finish-after-a-crash")[0]))
    prefect.create_automation(there)
    prefect.create_automation(there.model_copy(update={"name": "of-old"}))

    assert {"finish-after-a-crash": What.CHANGED, "of-old": What.REMOVED} == changed(settings)
    assert 1 == len(prefect.read_automations_by_name("finish-after-a-crash"))
    assert {} == changed(settings)


def test_a_form_offers_the_services_and_rolls_back_any(settings: Settings, prefect: SyncPrefectClient) -> None:
    """The server refuses a release of a service without a spec, and what keeps a service alive it does not."""
    changed(settings)

    with pytest.raises(BadInput, match="service"):
        start_run(settings.prefect_api, "release/release", {"service": "old"})
    run: UUID = start_run(settings.prefect_api, "roll-back/roll-back", {"service": "old", "to": None})

    assert {"service": "old"} == prefect.read_flow_run(run).parameters
    prefect.delete_flow_run(run)


def test_a_form_tells_of_the_releases_there_were(line: Line, prefect: SyncPrefectClient, prefect_api: str) -> None:
    """A release that went live since is told at the next bootstrap, and is nothing to mend until then."""
    settings = Settings(
        services=line.folder / "services", store=StoreSettings(url=line.store.url), prefect_api=prefect_api
    )
    changed(settings)
    line.write(asking())

    assert not [one for one in deploying.compare(settings) if one.what is not What.SAME]
    assert {"promote/promote": What.CHANGED, "roll-back/roll-back": What.CHANGED} == changed(settings)
    schema = prefect.read_deployment_by_name("promote/promote").parameter_openapi_schema
    assert schema
    assert schema["properties"]["release"]["description"].endswith(": chat-r1.")


def test_a_spec_that_is_wrong_changes_nothing(settings: Settings) -> None:
    """It is told before the server is touched, so the deployments of the other services stay."""
    (settings.services / "chat.yaml").write_text(NEVER.replace("model", "modle"))

    with pytest.raises(BadInput, match="modle"):
        deploying.bootstrap(settings)


def test_a_pool_of_kubernetes_is_made_from_our_template(settings: Settings, prefect: SyncPrefectClient) -> None:
    """Prefect takes the template; it renews it, and refuses to change a pool's kind."""
    changed(settings)
    on_kubernetes = settings.model_copy(
        update={
            "worker": WorkerSettings(kind="kubernetes", image="registry.example.com/slipway:1"),
            "kubernetes": KubernetesSettings(namespace="models"),
        }
    )
    with pytest.raises(Refused, match="type kubernetes"):
        deploying.bootstrap(on_kubernetes)
    prefect.delete_work_pool(POOL)
    try:
        assert What.MADE == changed(on_kubernetes)[POOL]
        assert {} == changed(on_kubernetes)
        release = prefect.read_deployment_by_name("release/release")
        assert "/opt/slipway" in json.dumps(release.pull_steps)
        newer = WorkerSettings(kind="kubernetes", image="registry.example.com/slipway:2")
        assert {POOL: What.CHANGED} == changed(on_kubernetes.model_copy(update={"worker": newer}))
    finally:
        prefect.delete_work_pool(POOL)


def test_the_command_tells_what_it_did(line: Line, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run does nothing, and the second run says so."""
    monkeypatch.setenv("SLIPWAY_PREFECT_API", prefect_api)
    assert 0 == line.slipway("bootstrap", "--json")
    (line.folder / "services" / "chat.yaml").write_text(EVERY_HOUR)

    assert 0 == line.slipway("bootstrap", "--dry-run")
    foreseen = line.out
    assert 0 == line.slipway("bootstrap", "--json")
    done = json.loads(line.out)["changes"]
    assert 0 == line.slipway("bootstrap")

    assert "made" in next(row for row in foreseen.splitlines() if "refresh/chat" in row)
    assert ["refresh/chat"] == [one["name"] for one in done if one["what"] != "already right"]
    assert "nothing changed" == line.out.splitlines()[-1]


def test_the_embedded_stack_does_the_same_and_only_when_something_changed(
    settings: Settings, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``slipway up`` says why a spec cannot be, and asks nobody while all files are what they were."""
    monkeypatch.setenv("SLIPWAY_SERVICES", str(settings.services))
    server, nowhere = settings.prefect_api.removesuffix("/api"), "http://127.0.0.1:9"
    stack = Stack(home=tmp_path, s3=nowhere, hub=nowhere, prefect=server, ray=nowhere, serve=nowhere)
    here = Surroundings(stack, State(mark="mark", ports={}), Keys.load(tmp_path))
    for folder in ("logs", "prefect"):
        (tmp_path / folder).mkdir()
    said: list[str] = []

    for _ in range(2):
        register(here, said.append)
    assert 1 == len(said)
    assert prefect.read_deployment_by_name("refresh/chat")
    (settings.services / "chat.yaml").write_text(NEVER.replace("model", "modle"))
    with pytest.raises(MachineError, match="did you mean 'model'"):
        register(here, said.append)


def test_a_flow_that_cannot_be_imported_is_one_sentence(tmp_path: Path) -> None:
    """It names the file and what was raised there."""
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")

    with pytest.raises(BadInput, match=r"broken.py:run cannot be imported: ModuleNotFoundError"):
        deploying.surface(f"{tmp_path}/broken.py:run")
