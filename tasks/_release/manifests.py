"""What ``slipway render`` prints: the objects of a release that is recorded, or of the one that would come next."""

import json
import re
from contextlib import closing

from k8s.manifests import to_yaml
from k8s.rendering import release_objects, service_objects
from k8s.workload import Workload
from tasks._release.journal import Journal
from tasks._release.wishes import wanted
from tasks._release.workloads import workload_of
from tasks._spec_file import load_spec, with_source
from tasks._stores.store import Store, open_store
from tasks._weights.access import open_hub
from tasks._weights.layout import weights_url
from tasks.errors import NotFound
from tasks.records import Release, ServiceRecord
from tasks.settings import Settings
from tasks.spec import ServiceSpec


def recorded(settings: Settings, service: str, name: str, namespace: str) -> Workload:
    """Return what was to run for an earlier release, from the record alone; raises ``NotFound`` for another name."""
    with closing(open_store(settings.store)) as store:
        record = Journal(store, service).record
        release = _releases(record).get(name)
        if release is None:
            known = ", ".join(_releases(record)) or "none"
            raise NotFound(f"{service} has no release {name!r} on record.", remedy=f"There is: {known}.")
        return _workload(release, store, namespace)


def proposed(
    settings: Settings, service: str, ref: str | None, hub: str | None, number: int | None, namespace: str
) -> Workload:
    """Return what would run for the next release, as the spec says now.

    A full commit is taken as it is, without asking a Hub, and with ``number`` no record is read.
    """
    spec = with_source(load_spec(settings.services, service), None, ref)
    endpoint = hub or settings.hub.endpoint
    with closing(open_store(settings.store)) as store:
        number = number or Journal(store, service).record.next_number
        commit = spec.ref if re.fullmatch("[0-9a-f]{40}", spec.ref) else _resolved(settings, spec, endpoint)
        return _workload(wanted(spec, commit, endpoint, number=number), store, namespace)


def manifests(workload: Workload, *, live: bool, as_json: bool) -> str:
    """Return all objects as YAML documents, or as one list in JSON; kubectl takes both.

    With ``live`` the stable Service leads to the release, else they say nothing of where it leads.
    """
    objects = [*service_objects(workload, workload.release if live else None), *release_objects(workload)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if as_json else to_yaml(objects)


def _resolved(settings: Settings, spec: ServiceSpec, endpoint: str) -> str:
    with open_hub(settings, endpoint) as hub:
        return hub.resolve(spec.model, spec.ref).commit


def _workload(release: Release, store: Store, namespace: str) -> Workload:
    return workload_of(release, weights_url(store.url, release.model, release.commit), namespace)


def _releases(record: ServiceRecord) -> dict[str, Release]:
    current = [record.current.release] if record.current else []
    ended = [past.release for past in record.past]
    return {one.name: one for one in (*ended, *current, record.previous, record.live) if one is not None}
