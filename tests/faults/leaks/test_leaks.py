"""No secret is told: runs that end well and runs that fail, with servers that repeat the credentials they are shown.

Every place where a secret can be configured holds one that is known here, and all that a run leaves behind is looked
through for each.
"""

import gzip
import hashlib
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from tasks._stores.store import open_store
from tasks.local import ports
from tasks.runs import RELEASE, read_run, start_run
from tests.fakes.asgi import serving
from tests.fakes.hubs import MODEL, TOKEN, running_hub, write_model
from tests.fakes.ray_serve import TOKEN as RAY_TOKEN
from tests.fakes.ray_serve import RayServe
from tests.fakes.ray_serve import serving as serving_ray
from tests.faults.leaks.echo import Echo
from tests.faults.leaks.scan import Leak, Scan
from tests.flows.orchestra import ROOT, Orchestra, orchestrated, until
from tests.flows.stage import SPEC, Stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),  # apprise's
]


def canary(name: str) -> str:
    """Return a secret of no worth, with characters that a URL and JSON write otherwise."""
    return f'{hashlib.sha256(name.encode()).hexdigest()[:24]}+/"{name}'


PLAIN = ("aws key", "aws secret", "aws session", "webhook", "kube token", "hub token that fits nowhere")
CANARIES = {
    "hub token": TOKEN,
    "ray token": RAY_TOKEN,
    "store access key": "TESTACCESSKEY",
    "store secret key": "test-secret-key-of-no-worth",
    **{name: hashlib.sha256(name.encode()).hexdigest() for name in PLAIN},
    **{name: canary(name) for name in ("signing password", "prefect password", "prefect key", "receiver", "link")},
}
PLANTED = canary("planted")


@dataclass
class Scene:
    """An orchestra whose every setting holds a canary, what refuses and tells, and what was said."""

    orchestra: Orchestra
    refusing: dict[int, str]
    scan: Scan
    said: list[bytes]

    @property
    def stage(self) -> Stage:
        """Return the stage."""
        return self.orchestra.stage

    def good(self) -> None:
        """Have a worker carry a release that ends well."""
        self.stage.publish(1)
        with self.orchestra.working():
            run = start_run(self.orchestra.api, RELEASE, {"service": "chat"})
            state = until(lambda: (now := read_run(self.orchestra.api, run)).final and now)
            assert "Completed" == state.name, state.message
            # Prefect keeps the variables of a run in a folder that is its user's alone, as long as the run lives.
            until(lambda: not list((self.orchestra.folder / "tmp").glob("prefect-workspace-*")))

    def failing(self, scenarios: list[dict[str, Any]]) -> str:
        """Have a process run flows and commands that fail, each with variables of its own; return what it said."""
        orders = self.orchestra.folder / "scenarios.json"
        orders.write_text(json.dumps(scenarios))
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.leaks.runs", str(orders)],
            cwd=ROOT,
            env=self.orchestra.environment,
            capture_output=True,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode == 0, done.stderr.decode()
        orders.unlink()
        return done.stdout.decode()

    def look(self) -> set[Leak]:
        """Look through everything; return what was found."""
        folder = self.orchestra.folder
        for text in self.said:
            self.scan.look("output", "of a process", text)
        self.scan.files("file", folder, but=[folder / "s3", folder / "secrets"])
        self.scan.database(folder / "prefect" / "prefect.db")
        with closing(open_store(self.stage.store)) as store:
            self.scan.store(store)
        return self.scan.leaks


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Set the stage with a canary wherever a secret is configured, and have runs end well and fail there."""
    folder = tmp_path_factory.mktemp("leaks")
    auth = f"ops:{CANARIES['prefect password']}"
    scan = Scan(CANARIES | {"planted": PLANTED})
    with ExitStack() as stack:
        stack.enter_context(scan.arguments())
        orchestra = stack.enter_context(orchestrated(folder, secret_variables(folder, auth)))
        stack.enter_context(temporary_settings({PREFECT_API_URL: orchestra.api, PREFECT_API_AUTH_STRING: auth}))
        refusing = {status: stack.enter_context(serving(Echo(status)))[0] for status in (401, 403, 500)}
        scene = Scene(orchestra, refusing, scan, [])
        save_blocks(refusing[403])
        spec = folder / "chat.yaml"
        spec.write_text(f"{SPEC}notify: [custom-webhook/leaks, slack-webhook/leaks]\n")
        (folder / "kube.yaml").write_text(KUBE)
        scene.good()
        yield scene


def secret_variables(folder: Path, auth: str) -> dict[str, str]:
    """Return the variables of every process, with the files that they name."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (folder / "tmp").mkdir()
    password = CANARIES["signing password"].encode()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    (secrets / "key.pem").write_bytes(pem)
    (secrets / "hub_token").write_text(CANARIES["hub token"])
    return {
        "SLIPWAY_HUB__TOKEN_FILE": str(secrets / "hub_token"),
        "SLIPWAY_SIGNING__KEY": str(secrets / "key.pem"),
        "SLIPWAY_SIGNING__PASSWORD": CANARIES["signing password"],
        "SLIPWAY_RECEIVER__SECRET": CANARIES["webhook"],
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_API_KEY": CANARIES["prefect key"],
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks",
        "AWS_ACCESS_KEY_ID": CANARIES["aws key"],
        "AWS_SECRET_ACCESS_KEY": CANARIES["aws secret"],
        "AWS_SESSION_TOKEN": CANARIES["aws session"],
        "TMPDIR": str(folder / "tmp"),
    }


def kubeconfig(folder: Path, server: str) -> str:
    """Write a kubeconfig for an API server and return its path."""
    path = folder / "secrets" / f"kubeconfig-{server.rpartition(':')[2]}"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "leaks",
                "clusters": [{"name": "leaks", "cluster": {"server": server}}],
                "users": [{"name": "leaks", "user": {"token": CANARIES["kube token"]}}],
                "contexts": [{"name": "leaks", "context": {"cluster": "leaks", "user": "leaks"}}],
            }
        )
    )
    return str(path)


def save_blocks(url: str) -> None:
    """Have Prefect know two receivers whose addresses and keys are secret, and who refuse."""
    key = CANARIES["receiver"]
    CustomWebhookNotificationBlock(
        name="leaks",
        url=f"{url}/{{{{key}}}}",
        headers={"Authorization": "Bearer {{key}}"},
        json_data={"text": "{{subject}}"},
        secrets={"key": quote(key, safe="")},
    ).save("leaks")
    SlackWebhook(url=SecretStr(f"json://{url.removeprefix('http://')}/{quote(key, safe='')}")).save("leaks")


KUBE = f"""
service: kube
model: {MODEL}
target: kuberay
kubernetes:
  image: registry.example.com/payload@sha256:{"5" * 64}
"""


def test_nothing_of_what_runs_leave_behind_holds_a_secret(scene: Scene) -> None:
    """The database, logs, artifacts, records, pages, files, arguments and errors, of good runs and of failed ones."""
    folder, refusing = scene.orchestra.folder, scene.refusing
    with ExitStack() as stack:
        bad = RayServe(engine=lambda _args: None)
        cannot_start = stack.enter_context(serving_ray(bad)).dashboard
        linking = stack.enter_context(running_hub(folder / "linking"))
        linking.publish(write_model(folder / "linking-model", seed=9))
        link = f"{refusing[403]}/f?X-Amz-Signature={quote(CANARIES['link'], safe='')}&X-Amz-Credential=AKIA"
        linking.faults.refusals["/resolve/"] = (302, {"location": link})
        nowhere = stack.enter_context(running_hub(folder / "nowhere"))
        nowhere.publish(write_model(folder / "linking-model", seed=9))
        nobody = f"http://127.0.0.1:{ports.choose(taken=set())}"
        nowhere.faults.refusals["/resolve/"] = (302, {"location": link.replace(refusing[403], nobody)})
        links = {"a signed link": linking.endpoint, "a signed link to nobody": nowhere.endpoint}
        said = scene.failing(scenarios(scene, links, cannot_start))

    assert not {name for name in FAILED if f"{name}: Failed" not in said}, said
    leaks = scene.look()
    assert not leaks, "\n".join(str(leak) for leak in sorted(leaks))
    assert {"output", "file", "row", "object", "arguments"} == set(scene.scan.seen)


def test_what_is_planted_is_found(scene: Scene) -> None:
    """A secret in a parameter, in a log, in a URL, in a packed record and in an argument: the scan can fail."""
    folder, scan = scene.orchestra.folder, Scan({"planted": PLANTED})
    with SyncPrefectClient(api=scene.orchestra.api, auth_string=f"ops:{CANARIES['prefect password']}") as client:
        deployment = client.read_deployment_by_name(RELEASE).id
        client.create_flow_run_from_deployment(deployment, parameters={"service": "chat", "reason": PLANTED})
    (folder / "planted.log").write_text(f"Authorization: Basic {b64encode(f'ada:{PLANTED}'.encode()).decode()}\n")
    (folder / "planted.url").write_text(f"https://cdn.example/?sig={quote(PLANTED, safe='')}")
    with closing(open_store(scene.stage.store)) as store:
        store.put_if("planted.json.gz", gzip.compress(json.dumps({"why": PLANTED}).encode()), expect=None)
        scan.store(store)
        store.delete("planted.json.gz")
    with scan.arguments():
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", PLANTED], check=True)
    scan.files("file", folder, but=[folder / "s3"])
    scan.database(folder / "prefect" / "prefect.db")

    found = {(leak.form, leak.where.partition(" ")[0]) for leak in scan.leaks}
    assert {
        ("in JSON", "row"),
        ("in base64", "file"),
        ("in a URL", "file"),
        ("in JSON", "object"),
        ("plain", "arguments"),
    } <= found
    for name in ("planted.log", "planted.url"):
        (folder / name).unlink()


FAILED = (
    *("a Hub that answers 401", "a Hub that answers 403", "a Hub that answers 500"),
    *("a signed link", "a signed link to nobody"),
    *("a cluster that answers 401", "a cluster that answers 500", "a bad candidate"),
    *("a store that answers 403", "an API server that answers 401", "an API server that answers 500"),
    *("a wrong password", "a token that is none", "settings that cannot be read"),
)


def scenarios(scene: Scene, links: dict[str, str], cannot_start: str) -> list[dict[str, Any]]:
    """Return runs and commands that fail, each in another way."""
    folder, refusing = scene.orchestra.folder, scene.refusing
    differing: dict[str, dict[str, str]] = {
        **{f"a Hub that answers {status}": {"SLIPWAY_HUB__ENDPOINT": url} for status, url in refusing.items()},
        **{name: {"SLIPWAY_HUB__ENDPOINT": url} for name, url in links.items()},
        **{
            f"a cluster that answers {status}": {"SLIPWAY_RAY__DASHBOARD": url, "SLIPWAY_RAY__SERVE": url}
            for status, url in refusing.items()
            if status != 403
        },
        "a bad candidate": {"SLIPWAY_RAY__DASHBOARD": cannot_start, "SLIPWAY_RAY__SERVE": cannot_start},
        "a store that answers 403": {"SLIPWAY_STORE__ENDPOINT": refusing[403]},
        "a wrong password": {"SLIPWAY_SIGNING__PASSWORD": CANARIES["hub token that fits nowhere"]},
        "a token that is none": {
            "SLIPWAY_HUB__TOKEN_FILE": "",
            "SLIPWAY_HUB__TOKEN": f"{CANARIES['hub token that fits nowhere']} two words",
        },
        "settings that cannot be read": {"SLIPWAY_HUB": f'{{"token": "{CANARIES["hub token that fits nowhere"]}"'},
    }
    runs = [
        {
            "name": name,
            "variables": {"SLIPWAY_STORE__URL": f"{scene.stage.store.url}/failed-{number}", **variables},
            "flow": "release",
            "parameters": {"service": "chat"},
        }
        for number, (name, variables) in enumerate(differing.items())
    ]
    for status in (401, 500):
        kube = {"SLIPWAY_KUBERNETES__NAMESPACE": "leaks", "SLIPWAY_RAY__DASHBOARD": "", "SLIPWAY_RAY__SERVE": ""}
        kube["SLIPWAY_KUBERNETES__KUBECONFIG"] = kubeconfig(folder, refusing[status])
        name, parameters = f"an API server that answers {status}", {"service": "kube"}
        runs.append({"name": name, "variables": kube, "flow": "release", "parameters": parameters})
    page = str(folder / "page.html")
    commands = [
        *("status --json", "history chat --json", "explain chat --json", f"report chat --output {page}"),
        *("plan chat", f"render kube --ref {'1' * 40} --number 1"),
    ]
    runs += [{"command": command.split(), "variables": {}} for command in commands]
    away = {"SLIPWAY_PREFECT_API": f"{refusing[401]}/api"}
    return [*runs, {"command": ["release", "chat", "--no-wait"], "variables": away}]
