"""The store, the Hub and this machine: whether they are there, let us in, and keep what they promise."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing

import httpx

from tasks._doctor.finding import Finding, told
from tasks._spec_file import load_spec, service_names
from tasks._stores.store import Store, open_store
from tasks._weights.access import open_hub
from tasks.errors import Conflict, SlipwayError
from tasks.local import environments, machine
from tasks.local.stack import read_stack
from tasks.settings import Settings, StoreSettings, hub_token

STORE, HUB, MACHINE = "store", "Hub", "machine"
ANSWER_S = 5.0
"""Seconds that a server may take for the first byte of a small answer."""
LEAST_MB = 1000
"""Free disk, in MB, below which receipts, logs and evidence of a release may not fit."""
_MB = 2**20


def store_findings(settings: Settings) -> Iterator[Finding]:
    """Write a small object under conditions that are met and are not, and remove it again.

    Raises what the store raises: the keys are wrong, or may not write.
    """
    away = _store_away(settings.store)
    if away is not None:
        yield away
        return
    with closing(open_store(settings.store)) as store:
        key = f"doctor/{secrets.token_hex(8)}"
        yield from conditional_findings(store, key)
        store.remove(key)


def _store_away(settings: StoreSettings) -> Finding | None:
    """Return that nobody listens at the store's address; its own client would ask again for too long."""
    if settings.endpoint is None or not settings.url.startswith("s3:"):
        return None
    try:
        httpx.get(settings.endpoint, timeout=ANSWER_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(
            about=STORE,
            what=f"The store {settings.url} at {settings.endpoint} does not answer ({type(error).__name__}).",
            remedy="Start it (`slipway up` for the embedded one), or mend SLIPWAY_STORE__ENDPOINT.",
        )
    return None


def conditional_findings(store: Store, key: str) -> Iterator[Finding]:
    """Yield that the store does not keep conditions, without which two runs may both hold a service."""
    version = store.put_if(key, b"1", expect=None)
    kept = _refused(store, key, b"2", None) and store.put_if(key, b"3", expect=version)
    if not kept or not _refused(store, key, b"4", version):
        yield Finding(
            about=STORE,
            what=f"The store {store.url} ignores the conditions of a write: a second writer wins over the first.",
            remedy="Use a store that honours If-None-Match and If-Match, as S3, MinIO, Ceph and SeaweedFS do.",
        )


def _refused(store: Store, key: str, data: bytes, expect: str | None) -> bool:
    try:
        store.put_if(key, data, expect=expect)
    except Conflict:
        return True
    return False


def hub_findings(settings: Settings) -> Iterator[Finding]:
    """Ask the Hub who we are, and what the refs of services that are refreshed by themselves point to."""
    endpoint = settings.hub.endpoint.rstrip("/")
    token = hub_token(settings.hub, endpoint)
    bearer = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        answer = httpx.get(f"{endpoint}/api/whoami-v2", headers=bearer, timeout=ANSWER_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Finding(
            about=HUB,
            what=f"The Hub {endpoint} does not answer ({type(error).__name__}).",
            remedy="Mend SLIPWAY_HUB__ENDPOINT, or what is between here and there.",
        )
        return
    refused = refused_token(endpoint, answer.status_code, has_token=token is not None)
    yield from (refused,) if refused else _refs(settings)


def refused_token(endpoint: str, status: int, *, has_token: bool) -> Finding | None:
    """Return that the Hub does not know the token; one that asks nobody who they are says nothing of it."""
    if not has_token or status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return None
    return Finding(
        about=HUB,
        what=f"The Hub {endpoint} refuses the token with status {status}.",
        remedy="Make a new read token there, and set SLIPWAY_HUB__TOKEN or the file in SLIPWAY_HUB__TOKEN_FILE.",
    )


def _refs(settings: Settings) -> Iterator[Finding]:
    with open_hub(settings) as hub:
        for name in service_names(settings.services):
            try:
                spec = load_spec(settings.services, name)
                if spec.schedules.refresh:
                    hub.resolve(spec.model, spec.ref)
            except SlipwayError as error:
                yield told(HUB, error)


def machine_findings(settings: Settings) -> Iterator[Finding]:
    """Look at the disk and, where the embedded stack is up, at the payload's environment."""
    home = settings.home.absolute()
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    local = read_stack(home) is not None
    room = lacking(shutil.disk_usage(there).free // _MB, machine.DISK_MB if local else LEAST_MB, str(home))
    if room:
        yield room
    if local and not environments.is_current("payload"):
        yield Finding(
            about=MACHINE,
            what="The payload environment serve/.venv is missing or not what its lock says.",
            remedy="Run `make install`, then `slipway up`.",
        )


def lacking(free_mb: int, needed_mb: int, where: str) -> Finding | None:
    """Return that a disk is as good as full."""
    if free_mb >= needed_mb:
        return None
    return Finding(
        about=MACHINE,
        what=f"{where} has {free_mb} MB free, and {needed_mb} MB are needed.",
        remedy="Free some space, or set SLIPWAY_HOME to a folder on a larger disk.",
    )
