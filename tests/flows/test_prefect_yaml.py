"""``prefect.yaml`` and what belongs to it: everything loads, fits the flows, and explains itself in a form."""

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.schema_tools import validate

from tasks import deploying
from tasks._deploying.things import POOL, QUEUE, TAG
from tasks._deploying.wanted import form, job_template
from tasks.settings import KubernetesSettings, Settings, WorkerSettings

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = DOCUMENT["deployments"]
AUTOMATIONS: list[dict[str, Any]] = yaml.safe_load((ROOT / "automations.yaml").read_text())["automations"]
NAMES = [one["name"] for one in DEPLOYMENTS]
KEYS = {
    *("name", "entrypoint", "description", "tags", "parameters", "enforce_parameter_schema"),
    *("concurrency_limit", "work_pool", "schedules"),
}
LIMIT = {"limit": 1, "collision_strategy": "ENQUEUE"}
ON_KUBERNETES = Settings(
    worker=WorkerSettings(kind="kubernetes", image="registry.example.com/slipway:1"),
    kubernetes=KubernetesSettings(namespace="models"),
)


def test_it_holds_no_unknown_keys() -> None:
    """Prefect ignores a misspelt key, so nobody else would notice one."""
    assert {"name", "prefect-version", "definitions", "deployments"} == set(DOCUMENT)
    for one in DEPLOYMENTS:
        assert KEYS - {"schedules", "concurrency_limit"} <= set(one) <= KEYS
        assert {"name", "job_variables"} == set(one["work_pool"]) - {"work_queue_name"}
        assert set(one.get("concurrency_limit", LIMIT)) == set(LIMIT)
        assert all({"cron", "timezone", "slug"} == set(schedule) for schedule in one.get("schedules", []))


def test_it_names_the_prefect_that_is_locked() -> None:
    """The file and the lock speak of one version."""
    lock = (ROOT / "requirements.lock").read_text()

    assert f"prefect=={DOCUMENT['prefect-version']}" in lock


def test_every_flow_has_a_deployment() -> None:
    """What can be run can be run from the Prefect UI."""
    flows = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}

    assert flows == {name.replace("-", "_") for name in NAMES}


@pytest.mark.parametrize("one", DEPLOYMENTS, ids=NAMES)
def test_a_deployment_loads_and_what_it_says_fits(one: dict[str, Any]) -> None:
    """Its entrypoint is the flow of its name, and its parameters, schedules and limits are what Prefect takes."""
    surface = deploying.surface(one["entrypoint"])

    function = one["name"].replace("-", "_")
    assert (one["name"], f"flows/{function}.py:{function}") == (surface.flow, one["entrypoint"])
    validate(one["parameters"], form(surface.parameters, ()), raise_on_error=True, ignore_required=True)
    assert set(one["parameters"]) <= set(surface.parameters["properties"])
    assert one["enforce_parameter_schema"]
    assert (POOL, TAG) == (one["work_pool"]["name"], one["tags"][0])
    assert one["work_pool"].get("work_queue_name", QUEUE) == QUEUE
    ConcurrencyOptions(collision_strategy=one.get("concurrency_limit", LIMIT)["collision_strategy"])
    for schedule in one.get("schedules", []):
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        DeploymentScheduleCreate(schedule=cron, slug=schedule["slug"])


def test_what_may_ask_a_person_has_no_limit_of_prefects() -> None:
    """Prefect takes the slot from a run that pauses, and ends the run when it cannot renew it."""
    limited = {one["name"] for one in DEPLOYMENTS if "concurrency_limit" in one}

    assert {"mirror", "verify", "collect-garbage", "watch-upstream", "drill"} == limited


@pytest.mark.parametrize("one", DEPLOYMENTS, ids=NAMES)
def test_every_parameter_explains_itself(one: dict[str, Any]) -> None:
    """A form shows a title, a help text, and one field for what may be left out."""
    fields = form(deploying.surface(one["entrypoint"]).parameters, ("chat",))["properties"]

    for name, field in fields.items():
        assert field["title"] not in (name, name.title()) or name in (
            "service",
            "release",
            "model",
            "commit",
            "reason",
        )
        assert field["title"][0].isupper()
        assert field["description"]
        assert "anyOf" not in field
        assert isinstance(field["type"], str)
    assert fields["service"]["enum"] == ["chat"] if "service" in fields else True


@pytest.mark.parametrize(
    ("name", "given", "good"),
    [
        ("release", {"service": "chat", "model": "org/name", "ref": "", "hub": "https://hub.example"}, True),
        ("release", {"service": "other"}, False),
        ("release", {"service": "chat", "hub": "https://user:word@hub.example"}, False),
        ("roll-back", {"service": "other", "to": "other-r3"}, True),
        ("roll-back", {"service": "chat", "to": "yesterday"}, False),
        ("promote", {"service": "chat"}, False),
        ("verify", {"model": "org/name", "commit": "main"}, False),
        ("collect-garbage", {"grace_days": -1}, False),
        ("mirror", {"model": "org/name", "licences": ["apache-2.0"]}, True),
    ],
)
def test_the_server_refuses_what_a_flow_would(name: str, given: dict[str, Any], good: bool) -> None:
    """Before a run is made; and a list of services that is old keeps nobody from rolling back."""
    entrypoint = next(one["entrypoint"] for one in DEPLOYMENTS if one["name"] == name)
    offered = ("chat",) if name == "release" else ()

    faults = validate(given, form(deploying.surface(entrypoint).parameters, offered))

    assert good is (not faults), faults


def test_the_automations_name_deployments_and_flows_that_exist() -> None:
    """An automation for a flow that is called otherwise would never fire."""
    flows = {deploying.surface(one["entrypoint"]).flow for one in DEPLOYMENTS}
    deployments = {f"{name}/{name}" for name in NAMES}

    for one in AUTOMATIONS:
        assert {"name", "description", "tags", "trigger", "actions"} == set(one)
        assert {action["deployment"] for action in one["actions"] if "deployment" in action} <= deployments
        related = one["trigger"].get("match_related", {})
        if related.get("prefect.resource.role") == "flow":
            assert set(related["prefect.resource.name"]) <= flows


def test_the_job_template_is_one_of_prefects_kubernetes_worker() -> None:
    """It knows no key that the worker does not, fills in each variable, and names no secret's content."""
    shipped = json.loads(
        (resources.files("prefect.server.api") / "collections_data/views/aggregate-worker-metadata.json").read_text()
    )
    base = next(kinds["kubernetes"] for kinds in shipped.values() if "kubernetes" in kinds)
    template, known = job_template(ON_KUBERNETES), base["default_base_job_configuration"]

    assert set(template["job_configuration"]) <= set(known["job_configuration"])
    offered = template["variables"]["properties"]
    assert set(offered) <= set(known["variables"]["properties"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(offered)
    assert all({"title", "type", "description"} <= set(one) for one in offered.values())
    assert ("registry.example.com/slipway:1", "models") == (
        offered["image"]["default"],
        offered["namespace"]["default"],
    )
    assert set(_keys(known["job_configuration"]["job_manifest"])) - {"limits", "cpu"} <= {
        *_keys(template["job_configuration"]["job_manifest"])
    }


def _keys(value: object) -> Iterator[str]:
    """Yield the keys of a tree."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
