"""What a Prefect server should hold, from files and specs alone."""

from typing import Any

import pytest

from tasks._deploying.things import Change, Sort, Thing, What, changes
from tasks._deploying.wanted import Surface, form, undated, wanted
from tasks._spec_file import parse_spec
from tasks.errors import BadInput
from tasks.settings import Settings, WorkerSettings

SERVICE = {"service": {"type": "string", "title": "Service", "description": "Which."}}
REFRESH: dict[str, Any] = {
    "name": "refresh",
    "entrypoint": "flows/refresh.py:refresh",
    "description": "Releases what is new.\n\nMore of it.\n",
    "tags": ["slipway", "watching"],
    "parameters": {},
    "enforce_parameter_schema": True,
    "concurrency_limit": {"limit": 8, "collision_strategy": "ENQUEUE"},
    "work_pool": {"name": "slipway", "job_variables": {}},
}
DOCUMENTS: tuple[dict[str, Any], dict[str, Any]] = ({"deployments": [REFRESH]}, {"automations": []})
SURFACES = {REFRESH["entrypoint"]: Surface(flow="refresh", parameters={"properties": SERVICE})}


def things(*schedules: str, **worker: Any) -> dict[str, Thing]:
    """Return what is wanted for services with these schedules, by name."""
    specs = tuple(
        parse_spec(f"service: s{number}\nmodel: a/b\nschedules: {{{one}}}\n", "spec")
        for number, one in enumerate(schedules)
    )
    settings = Settings(worker=WorkerSettings(**worker))
    return {thing.name: thing for thing in wanted(DOCUMENTS, specs, SURFACES, settings)}


def test_a_service_with_a_schedule_has_a_deployment_of_its_own() -> None:
    """It runs for that service alone, when the spec says."""
    made = things("refresh: '0 3 * * *', timezone: Europe/Berlin", "check: '* * * * *'")

    assert {"slipway", "releases", "refresh/refresh", "refresh/s0"} == set(made)
    own = made["refresh/s0"].fields
    assert [{"slug": None, "cron": "0 3 * * *", "timezone": "Europe/Berlin"}] == own["schedules"]
    assert {"service": "s0"} == own["parameters"]
    assert ["s0", "slipway", "watching"] == own["tags"]
    assert "Releases what is new.\n\nOf the service s0, by the schedule in its spec." == own["description"]
    assert ["s0", "s1"] == own["parameter_openapi_schema"]["properties"]["service"]["enum"]


def test_flows_find_the_project_where_they_run() -> None:
    """In a container that is another place than here, and a worker elsewhere says where."""
    step = "prefect.deployments.steps.set_working_directory"
    folders = [
        things(**worker)["refresh/refresh"].fields["pull_steps"][0][step]["directory"]
        for worker in ({"kind": "kubernetes", "image": "i"}, {"directory": "/srv/slipway"})
    ]

    assert ["/opt/slipway", "/srv/slipway"] == folders


def test_kubernetes_needs_an_image() -> None:
    """Without one every run would fail at its start, one by one."""
    with pytest.raises(BadInput, match="no image is named"):
        things(kind="kubernetes")


def test_a_form_has_one_field_for_what_may_be_left_out() -> None:
    """Prefect's own would ask whether it is a text or nothing."""
    optional = {"anyOf": [{"type": "string", "pattern": "x"}, {"type": "null"}], "default": None, "title": "To"}
    several = {"anyOf": [{"type": "string"}, {"type": "integer"}], "title": "Either"}

    made = form({"properties": {"to": optional, "either": several}}, ("chat",))["properties"]

    assert {"to": {"type": "string", "pattern": "x", "title": "To"}, "either": several} == made


def test_releases_are_told_and_their_age_is_no_difference() -> None:
    """A form names those of the last bootstrap; what went live since is no fault."""
    schema = {"properties": {"to": {"type": "string", "description": "Its name."}}}
    told = form(schema, (), ("chat-r2", "chat-r1"))
    thing = Thing(sort=Sort.DEPLOYMENT, name="a/b", fields={"parameter_openapi_schema": told})

    assert told["properties"]["to"]["description"].endswith("`slipway bootstrap`: chat-r2, chat-r1.")
    assert schema == undated(thing).fields["parameter_openapi_schema"]


def test_what_differs_is_named_and_a_work_pool_is_never_removed() -> None:
    """Fields that bootstrap does not decide are not looked at."""

    def thing(sort: Sort, name: str, **fields: int) -> Thing:
        return Thing(sort=sort, name=name, fields=fields)

    there = (
        thing(Sort.POOL, "old"),
        thing(Sort.AUTOMATION, "old"),
        thing(Sort.DEPLOYMENT, "edited", a=1, b=3, c=9),
        thing(Sort.DEPLOYMENT, "good", a=1, c=9),
    )
    aims = (
        thing(Sort.DEPLOYMENT, "edited", a=1, b=2),
        thing(Sort.DEPLOYMENT, "good", a=1),
        thing(Sort.DEPLOYMENT, "new"),
    )

    assert (
        Change(sort=Sort.DEPLOYMENT, name="edited", what=What.CHANGED, fields=("b",)),
        Change(sort=Sort.DEPLOYMENT, name="good", what=What.SAME),
        Change(sort=Sort.DEPLOYMENT, name="new", what=What.MADE),
        Change(sort=Sort.AUTOMATION, name="old", what=What.REMOVED),
    ) == changes(aims, there)
