"""What a Prefect server should hold, by ``prefect.yaml``, ``automations.yaml``, the specs and the settings."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tasks._deploying.things import AT_ONCE, POOL, QUEUE, TAG, Sort, Thing
from tasks.errors import BadInput
from tasks.records import Value
from tasks.settings import Settings, WorkerSettings
from tasks.spec import ServiceSpec

ROOT = Path(__file__).resolve().parents[2]
IN_CONTAINER = Path("/opt/slipway")
"""Where this project is in the controller's image."""
SCHEDULED = {"refresh": "refresh", "check-live": "check", "drill": "drill"}
"""The deployments that a service may have for itself, by the key of its spec's ``schedules``."""
CHOSEN = ("release", "to")
"""The parameters that name an earlier release.  They are free text: a list to choose from would be as old as the last
bootstrap, and whatever went live since could not be gone back to.  So their help tells what was known then."""
_KNOWN = " Known at the last `slipway bootstrap`: "
OFFERED = {"release", "refresh", "check-live", "drill"}
"""The flows whose forms offer the services to choose from, and take no other.

They cannot work without a spec.  The others go by the record, and are what a person reaches for when something is
wrong: a list made before the last service was added must not keep anybody from rolling back.
"""
Recorded = tuple[str, ...]
"""Names of releases that have been live."""
Documents = tuple[dict[str, Any], dict[str, Any]]


class Surface(Value):
    """What a Prefect server knows of a flow: its name, and the schema of its parameters."""

    flow: str
    parameters: dict[str, Any]


def read_documents(root: Path = ROOT) -> Documents:
    """Return ``prefect.yaml`` and ``automations.yaml``."""
    prefect, automations = (
        yaml.safe_load((root / f"{name}.yaml").read_text()) for name in ("prefect", "automations")
    )
    return prefect, automations


def entrypoints(documents: Documents) -> tuple[str, ...]:
    """Return the entrypoint of every deployment."""
    return tuple(one["entrypoint"] for one in documents[0]["deployments"])


def wanted(
    documents: Documents,
    specs: tuple[ServiceSpec, ...],
    surfaces: Mapping[str, Surface],
    settings: Settings,
    recorded: Recorded = (),
) -> tuple[Thing, ...]:
    """Return all that there should be; ``surfaces`` are those of the flows, by entrypoint.

    The work pool of a process worker has no template of ours: Prefect's own is wanted, whatever its version holds.
    """
    deployments = [
        thing
        for one in documents[0]["deployments"]
        for thing in _deployments(one, surfaces[one["entrypoint"]], specs, settings.worker, recorded)
    ]
    automations = [_automation(one) for one in documents[1]["automations"]]
    queue = Thing(sort=Sort.QUEUE, name=QUEUE, fields={"concurrency_limit": AT_ONCE})
    return (_pool(settings), queue, *deployments, *automations)


def _pool(settings: Settings) -> Thing:
    fields: dict[str, Any] = {"type": settings.worker.kind}
    if settings.worker.kind == "kubernetes":
        fields["base_job_template"] = job_template(settings)
    return Thing(sort=Sort.POOL, name=POOL, fields=fields)


def job_template(settings: Settings) -> dict[str, Any]:
    """Return ``k8s/job-template.yaml`` with image and namespace of the settings; raises ``BadInput``."""
    if not settings.worker.image:
        raise BadInput(
            "Flows are to run on Kubernetes, and no image is named.", remedy="Set SLIPWAY_WORKER__IMAGE to one."
        )
    template: dict[str, Any] = yaml.safe_load((ROOT / "k8s" / "job-template.yaml").read_text())
    asked = template["variables"]["properties"]
    asked["image"]["default"] = settings.worker.image
    if settings.kubernetes.namespace:
        asked["namespace"]["default"] = settings.kubernetes.namespace
    return template


def _deployments(
    one: dict[str, Any],
    surface: Surface,
    specs: tuple[ServiceSpec, ...],
    worker: WorkerSettings,
    recorded: Recorded,
) -> Iterator[Thing]:
    names = tuple(spec.service for spec in specs)
    fields = _fields(one, form(surface.parameters, names if surface.flow in OFFERED else (), recorded), worker)
    yield Thing(sort=Sort.DEPLOYMENT, name=f"{surface.flow}/{one['name']}", fields=fields)
    for spec in specs if one["name"] in SCHEDULED else ():
        cron = getattr(spec.schedules, SCHEDULED[one["name"]])
        if cron is not None:
            yield _of_service(f"{surface.flow}/{spec.service}", fields, spec, cron)


def _of_service(name: str, fields: dict[str, Any], spec: ServiceSpec, cron: str) -> Thing:
    """Return the deployment of one service, on its schedule."""
    schedule = {"slug": None, "cron": cron, "timezone": spec.schedules.timezone}
    first, *_ = fields["description"].split("\n")
    own = {
        "description": f"{first}\n\nOf the service {spec.service}, by the schedule in its spec.",
        "tags": sorted({*fields["tags"], spec.service}),
        "parameters": {"service": spec.service},
        "schedules": [schedule],
    }
    return Thing(sort=Sort.DEPLOYMENT, name=name, fields={**fields, **own})


def _fields(one: dict[str, Any], parameters: dict[str, Any], worker: WorkerSettings) -> dict[str, Any]:
    limit = one.get("concurrency_limit") or {}
    return {
        "entrypoint": one["entrypoint"],
        "description": one["description"].strip(),
        "tags": sorted({TAG, *one["tags"]}),
        "parameters": one["parameters"],
        "enforce_parameter_schema": one["enforce_parameter_schema"],
        "concurrency_limit": limit.get("limit"),
        "collision_strategy": limit.get("collision_strategy"),
        "work_pool_name": one["work_pool"]["name"],
        "work_queue_name": one["work_pool"].get("work_queue_name", "default"),
        "job_variables": one["work_pool"]["job_variables"],
        "schedules": one.get("schedules", []),
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(_folder(worker))}}],
        "parameter_openapi_schema": parameters,
    }


def _folder(worker: WorkerSettings) -> Path:
    return worker.directory or (ROOT if worker.kind == "process" else IN_CONTAINER)


def form(parameters: dict[str, Any], services: tuple[str, ...], recorded: Recorded = ()) -> dict[str, Any]:
    """Return the schema of a flow's parameters as a form should have it.

    A text that may be left out is one field instead of a choice between a text and nothing.  With ``services`` one of
    them is chosen; ``recorded`` are told in the help of what names one.
    """
    made = deepcopy(parameters)
    for field in made["properties"].values():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1 and len(field["anyOf"]) > 1:
            del field["anyOf"]
            field.pop("default", None)
            field.update(kinds[0])
    if services and "service" in made["properties"]:
        made["properties"]["service"]["enum"] = list(services)
    for name in CHOSEN if recorded else ():
        if name in made["properties"]:
            field = made["properties"][name]
            field["description"] += f"{_KNOWN}{', '.join(recorded)}."
    return made


def undated(thing: Thing) -> Thing:
    """Return a deployment without the releases that its form told of: they grow old, which is no fault."""
    schema = thing.fields.get("parameter_openapi_schema")
    if not schema:
        return thing
    made = deepcopy(schema)
    for name in CHOSEN:
        field = made.get("properties", {}).get(name, {})
        if "description" in field:
            field["description"] = field["description"].partition(_KNOWN)[0]
    return thing.model_copy(update={"fields": {**thing.fields, "parameter_openapi_schema": made}})


def _automation(one: dict[str, Any]) -> Thing:
    fields = {key: value for key, value in one.items() if key != "name"}
    return Thing(sort=Sort.AUTOMATION, name=one["name"], fields={**fields, "tags": sorted({TAG, *one["tags"]})})
