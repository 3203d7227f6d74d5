"""``prefect.yaml``: every deployment loads, and what it says fits the flow it names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = DOCUMENT["deployments"]
TOP = {"name", "prefect-version", "definitions", "pull", "build", "push", "deployments"}
KEYS = {
    "name", "entrypoint", "description", "tags", "parameters", "enforce_parameter_schema",
    "concurrency_limit", "work_pool", "schedules", "triggers", "version",
}  # fmt: skip


def test_it_holds_no_unknown_keys() -> None:
    """Prefect ignores a misspelt key, so nobody else would notice one."""
    assert set(DOCUMENT) <= TOP
    for deployment in DEPLOYMENTS:
        assert set(deployment) <= KEYS
        assert set(deployment["work_pool"]) <= {"name", "work_queue_name", "job_variables"}


def test_it_names_the_prefect_that_is_locked() -> None:
    """The file and the lock speak of one version."""
    lock = (ROOT / "requirements.lock").read_text()

    assert f"prefect=={DOCUMENT['prefect-version']}" in lock


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[one["name"] for one in DEPLOYMENTS])
def test_a_deployment_loads_and_its_parameters_fit(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entrypoint is a flow of that name, and its parameters are parameters of that flow."""
    monkeypatch.chdir(ROOT)

    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)

    assert deployment["entrypoint"] == f"flows/{flow.fn.__name__}.py:{flow.fn.__name__}"
    known = parameter_schema(flow).properties
    assert set(deployment.get("parameters", {})) <= set(known)
    untold = [name for name, field in known.items() if not field.get("description")]
    assert not untold, "every parameter explains itself in the form"
