"""``slipway doctor``: what is planted is found and its remedy told; where nothing is wrong nothing is found.

Prefect, the object store and the Hub are real servers; the store that ignores conditions, the clock that is wrong and
the like are small ones of their own.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tasks import deploying, doctoring
from tasks._deploying.things import POOL
from tasks.settings import (
    HubSettings,
    KubernetesSettings,
    RaySettings,
    ReceiverSettings,
    Settings,
    SigningSettings,
    StoreSettings,
)
from tests.fakes import asgi
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.fakes.ray_serve import RayServe, serving
from tests.fakes.s3 import seaweed
from tests.flows.command_line import Line, line

__all__ = ["line"]

pytestmark = pytest.mark.slow

WORKER = "doctor's"
PROMPTS = [{"id": "france", "prompt": "The capital of France?", "expect": "Paris", "golden": True}]
NOWHERE = "http://127.0.0.1:9"
App = Callable[[Request], Response]


class Surgery:
    """A set-up where nothing is wrong, and what can be done to it."""

    def __init__(self, settings: Settings, api: str, hub: RunningHub) -> None:
        self.settings, self.api, self.hub = settings, api, hub

    def prefect(self) -> SyncPrefectClient:
        """Return a client of its Prefect server."""
        return SyncPrefectClient(api=self.api)

    def write(self, text: str, name: str = "chat") -> None:
        """Write a service's spec."""
        (self.settings.services / f"{name}.yaml").write_text(text)

    def set(self, **changed: Any) -> None:
        """Configure another part."""
        self.settings = self.settings.model_copy(update=changed)

    def set_store(self, **changed: Any) -> None:
        """Configure another store."""
        self.set(store=self.settings.store.model_copy(update=changed))


@contextmanager
def answering(app: App) -> Iterator[str]:
    """Serve a function of a request."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        await app(request)(scope, receive, send)

    with asgi.serving(application) as (url, _server):
        yield url


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Run an object store."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as settings:
        yield settings


@pytest.fixture
def surgery(tmp_path: Path, prefect_api: str, store: StoreSettings) -> Iterator[Surgery]:
    """Return a set-up where nothing is wrong: a service that is refreshed by itself, and all that this needs."""
    services = tmp_path / "services"
    services.mkdir()
    (services / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))
    with running_hub(tmp_path / "hub") as hub, serving(RayServe()) as ray:
        hub.publish(write_model(tmp_path / "model", sizes=(200,)))
        settings = Settings(
            home=tmp_path / "home",
            services=services,
            hub=HubSettings(endpoint=hub.endpoint),
            store=store,
            ray=ray,
            prefect_api=prefect_api,
        )
        shown = Surgery(settings, prefect_api, hub)
        shown.write(spec())
        with shown.prefect() as client:
            for change in deploying.bootstrap(settings):
                if change.paused and change.sort is deploying.Sort.DEPLOYMENT:
                    client.resume_deployment(client.read_deployment_by_name(change.name).id)
                elif change.paused:
                    client.resume_automation(client.read_automations_by_name(change.name)[0].id)
            client.send_worker_heartbeat(POOL, WORKER)
        yield shown


def spec(**changed: str) -> str:
    """Return the spec of a service that is refreshed by itself."""
    fields = {"service": "chat", "model": MODEL, "schedules": "{refresh: '0 * * * *'}", **changed}
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def paused_deployment(here: Surgery) -> None:
    """Pause what refreshes the service."""
    with here.prefect() as client:
        client.pause_deployment(client.read_deployment_by_name("refresh/chat").id)


def other_limit(here: Surgery) -> None:
    """Let twenty releases run at once."""
    with here.prefect() as client:
        found = client.read_deployment_by_name("release/release")
        client.update_deployment(found.id, DeploymentUpdate(concurrency_limit=20))


def edited_parameters(here: Surgery) -> None:
    """Have the garbage only looked at."""
    with here.prefect() as client:
        found = client.read_deployment_by_name("collect-garbage/collect-garbage")
        client.update_deployment(found.id, DeploymentUpdate(parameters={"delete": False}))


def no_deployment(here: Surgery) -> None:
    """Delete a deployment."""
    with here.prefect() as client:
        client.delete_deployment(client.read_deployment_by_name("roll-back/roll-back").id)


def no_automation(here: Surgery) -> None:
    """Delete what finishes a crashed run."""
    with here.prefect() as client:
        client.delete_automation(client.read_automations_by_name("finish-after-a-crash")[0].id)


def automation_off(here: Surgery) -> None:
    """Switch off what tells dead runs."""
    with here.prefect() as client:
        client.pause_automation(client.read_automations_by_name("slipway-dead-runs-are-crashed")[0].id)


def no_worker(here: Surgery) -> None:
    """Take the one worker away."""
    with here.prefect() as client:
        client.request(
            "DELETE",
            "/work_pools/{work_pool_name}/workers/{name}",
            path_params={"work_pool_name": POOL, "name": WORKER},
        )


def schedule_gone(here: Surgery) -> None:
    """Take the schedule out of the spec, without bootstrap."""
    here.write(f"service: chat\nmodel: {MODEL}\n")


def other_prefect(here: Surgery) -> AbstractContextManager[None]:
    """Stand a server of another version there."""
    return replaced(here, "prefect_api", lambda _: JSONResponse("3.2.0"))


def prefect_away(here: Surgery) -> None:
    """Lead to where nothing listens."""
    here.set(prefect_api=f"{NOWHERE}/api")


def misspelt_spec(here: Surgery) -> None:
    """Write an unknown key."""
    here.write(spec(modle="org/name"))


def no_prompts(here: Surgery) -> None:
    """Take the prompt file away."""
    (here.settings.services / "chat.prompts.yaml").unlink()


def other_target(here: Surgery) -> None:
    """Describe a service for Kubernetes that is refreshed here."""
    image = "registry.example.com/payload@sha256:" + "5" * 64
    here.write(spec(target="kuberay", kubernetes=f"{{image: '{image}'}}"))


def wrong_keys(here: Surgery) -> None:
    """Configure a key that opens nothing."""
    here.set_store(secret_key=SecretStr("not-the-secret"))


def half_keys(here: Surgery) -> None:
    """Configure one of two keys."""
    here.set_store(secret_key=None)


def store_away(here: Surgery) -> None:
    """Lead to where nothing listens."""
    here.set_store(endpoint=NOWHERE)


def careless_store(here: Surgery) -> AbstractContextManager[None]:
    """Stand an object store there that takes every write."""
    kept: dict[str, bytes] = {}

    def store(request: Request) -> Response:
        key = request.url.path
        if request.method == "PUT":
            kept[key] = request._body  # read before, by ``answering``
        if request.method == "DELETE":
            kept.pop(key, None)
            return Response(status_code=204)
        return Response(b"" if request.method == "PUT" else kept[key], headers={"ETag": f'"{len(kept)}"'})

    return replaced(here, "store", store)


def hub_away(here: Surgery) -> None:
    """Lead to where nothing listens."""
    here.set(hub=HubSettings(endpoint=NOWHERE))


def refused_token(here: Surgery) -> AbstractContextManager[None]:
    """Stand a Hub there that knows nobody."""
    return replaced(here, "hub", lambda _: Response(status_code=401))


def no_repository(here: Surgery) -> None:
    """Follow a repository that is not there."""
    here.write(spec(model="nobody/nothing"))


def ray_away(here: Surgery) -> None:
    """Lead to where nothing listens."""
    here.set(ray=RaySettings(dashboard=NOWHERE, serve=NOWHERE))


def wrong_ray_token(here: Surgery) -> None:
    """Configure another token than the cluster's."""
    here.set(ray=here.settings.ray.model_copy(update={"token": SecretStr("another")}))


def other_ray(here: Surgery) -> AbstractContextManager[None]:
    """Stand a cluster of another version there."""
    return replaced(here, "ray", lambda _: JSONResponse({"applications": {}, "ray_version": "2.40.0"}))


def two_targets(here: Surgery) -> None:
    """Configure a namespace beside the Ray cluster, on an API server that is away."""
    here.set(kubernetes=KubernetesSettings(namespace="llm", kubeconfig=kubeconfig(here, NOWHERE)))


def no_crd(here: Surgery) -> AbstractContextManager[None]:
    """Stand an API server there that never heard of RayServices."""

    def server(request: Request) -> Response:
        if "ray.io" in request.url.path:
            return Response("404 page not found", status_code=404)
        return JSONResponse({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})

    return replaced(here, "kubernetes", server)


def no_right(here: Surgery) -> AbstractContextManager[None]:
    """Stand an API server there that lets us do nothing."""
    status = {"kind": "Status", "reason": "Forbidden", "code": 403, "message": "User cannot list rayservices"}
    return replaced(here, "kubernetes", lambda _: JSONResponse(status, 403))


def short_secret(here: Surgery) -> None:
    """Configure a webhook secret that can be guessed."""
    here.set(receiver=ReceiverSettings(secret=SecretStr("hunter2")))


def two_tokens(here: Surgery) -> None:
    """Set a token in two ways."""
    file = here.settings.services / "token"
    file.write_text("abc")
    here.set(hub=here.settings.hub.model_copy(update={"token": SecretStr("abc"), "token_file": file}))


def no_signing_key(here: Surgery) -> None:
    """Name a key that is not there."""
    here.set(signing=SigningSettings(key=Path("/nowhere/key.pem")))


@contextmanager
def wrong_clock(here: Surgery) -> Iterator[None]:
    """Stand a cluster there whose clock is years behind."""

    class Behind(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - the clock has stopped
            return formatdate(1_700_000_000, usegmt=True)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Behind) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            here.set(ray=RaySettings(dashboard=url, serve=url))
            yield
        finally:
            server.shutdown()


@contextmanager
def replaced(here: Surgery, what: str, app: App) -> Iterator[None]:
    """Configure another server for one part, and run it."""
    with answering(app) as url:
        match what:
            case "prefect_api":
                here.set(prefect_api=f"{url}/api")
            case "store":
                here.set_store(endpoint=url)
            case "hub":
                here.set(hub=HubSettings(endpoint=url, token=SecretStr("hf_unknown")))
            case "ray":
                here.set(ray=RaySettings(dashboard=url, serve=url))
            case "kubernetes":
                here.set(
                    ray=RaySettings(),
                    kubernetes=KubernetesSettings(namespace="llm", kubeconfig=kubeconfig(here, url)),
                )
        yield


def kubeconfig(here: Surgery, url: str) -> Path:
    """Write how to reach an API server."""
    path = here.settings.services / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": url}}],
                "users": [{"name": "it", "user": {"token": "abc"}}],
            }
        )
    )
    return path


Plant = Callable[[Surgery], AbstractContextManager[None] | None]
PLANTED: tuple[tuple[tuple[Plant, str, str], ...], ...] = (
    (
        (paused_deployment, "deployment refresh/chat is paused", "resume it in the Prefect UI"),
        (other_limit, "deployment release/release is not as it should be: concurrency_limit", "slipway bootstrap"),
        (edited_parameters, "deployment collect-garbage/collect-garbage is not as it should be", "slipway bootstrap"),
        (no_deployment, "deployment roll-back/roll-back is missing", "slipway bootstrap"),
        (no_automation, "automation finish-after-a-crash is missing", "slipway bootstrap"),
        (automation_off, "slipway-dead-runs-are-crashed is switched off", "prefect automation resume"),
        (no_worker, "No worker polls the work pool", "prefect worker start --pool slipway"),
        (short_secret, "does not hold a secret of", "openssl rand"),
        (two_tokens, "Both SLIPWAY_HUB__TOKEN", "Unset one"),
        (no_signing_key, "There is no signing key", "SLIPWAY_SIGNING__KEY"),
    ),
    (
        (misspelt_spec, "unknown key 'modle', did you mean 'model'?", "slipway schema"),
        (wrong_keys, "denies access", "Check its keys"),
        (wrong_ray_token, "refuses the token", "SLIPWAY_RAY__TOKEN"),
        (hub_away, "The Hub http://127.0.0.1:9 does not answer", "SLIPWAY_HUB__ENDPOINT"),
    ),
    (
        (schedule_gone, "deployment refresh/chat carries the tag of bootstrap", "slipway bootstrap"),
        (no_prompts, "There is no prompt file", "checks.prompts"),
        (careless_store, "ignores the conditions of a write", "honours If-None-Match"),
        (other_ray, "runs Ray 2.40.0", "Use the image built from serve/"),
    ),
    (
        (other_target, "every release of it is refused", "Set its `target`"),
        (half_keys, "Only one of the store's two keys", "SLIPWAY_STORE__SECRET_KEY"),
        (refused_token, "refuses the token", "SLIPWAY_HUB__TOKEN"),
        (wrong_clock, "that of the Ray cluster differ by", "time server"),
    ),
    (
        (prefect_away, "The Prefect server at http://127.0.0.1:9/api does not answer", "SLIPWAY_PREFECT_API"),
        (store_away, "The store s3://", "SLIPWAY_STORE__ENDPOINT"),
        (ray_away, "The Ray cluster at http://127.0.0.1:9 does not answer", "SLIPWAY_RAY__DASHBOARD"),
        (no_repository, "nobody/nothing", "Check"),
    ),
    (
        (other_prefect, "is of version 3.2.0", "prefect==3."),
        (two_targets, "Both a Ray cluster and a Kubernetes namespace", "Unset"),
    ),
    ((no_crd, "list rayservices in llm", "CustomResourceDefinitions"),),
    ((no_right, "User cannot list rayservices", "Bind the Role"),),
)
"""What is planted together, a sentence of what is found of each, and of its remedy."""


def test_where_nothing_is_wrong_nothing_is_found(surgery: Surgery) -> None:
    """A healthy set-up has no findings, and looking leaves nothing in the store."""
    assert () == doctoring.examine(surgery.settings)


@pytest.mark.parametrize("plants", PLANTED, ids=lambda plants: plants[0][0].__name__)
def test_what_is_planted_is_found(surgery: Surgery, plants: tuple[tuple[Plant, str, str], ...]) -> None:
    """Each finding says what is wrong and how to mend it; none hides another, and none tells a secret."""
    with ExitStack() as planted:
        for plant, _, _ in plants:
            if (context := plant(surgery)) is not None:
                planted.enter_context(context)
        found = doctoring.examine(surgery.settings)

    for plant, what, remedy in plants:
        assert [one for one in found if what in one.what and remedy in one.remedy], (plant.__name__, found)
    assert len({one.what for one in found}) == len(found)
    assert "hunter2" not in str(found)


def test_the_command_tells_and_exits_by_what_it_found(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything away it says so within its time, as text and as JSON, and ends with 1."""
    for variable in ("PREFECT_API", "HUB__ENDPOINT", "RAY__DASHBOARD", "RAY__SERVE"):
        monkeypatch.setenv(f"SLIPWAY_{variable}", NOWHERE)
    (line.folder / "services" / "chat.prompts.yaml").write_text(json.dumps(PROMPTS))

    code = line.slipway("doctor", "--json")

    assert 1 == code
    assert ["Prefect", "Hub", "target"] == [one["about"] for one in json.loads(line.out)["findings"]]
    assert 1 == line.slipway("doctor")
    assert "Start it (`slipway up` for the embedded one)" in line.out


def test_it_ends_in_time_when_nobody_says_a_word(surgery: Surgery) -> None:
    """Servers that take connections and never answer are as good as away, and a person waits 15 s at most."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        surgery.set_store(endpoint=url)
        surgery.set(prefect_api=url, hub=HubSettings(endpoint=url), ray=RaySettings(dashboard=url, serve=url))
        begun = time.monotonic()
        found = doctoring.examine(surgery.settings)

    assert ["Prefect", "store", "Hub", "target"] == [one.about for one in found]
    assert time.monotonic() - begun < doctoring.DEADLINE_S + 1
