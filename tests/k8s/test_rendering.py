"""What a release is on Kubernetes: golden files of a matrix of specs, and what must hold in all of them."""

import json
import re
from typing import Any

import pytest
import yaml

from k8s import names
from k8s.kinds import Object, kind_of
from k8s.rendering import release_objects, service_objects
from tests.k8s.matrix import GOLDEN, MATRIX, rendered, text, workload

CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}
EVERY = pytest.mark.parametrize("name", MATRIX)


def ray_service(name: str) -> Object:
    """Return the rendered RayService of a spec."""
    return release_objects(workload(name))[0]


def pods(name: str) -> list[Object]:
    """Return the specs of the head's and the workers' pods."""
    config = ray_service(name)["spec"]["rayClusterConfig"]
    return [group["template"]["spec"] for group in (config["headGroupSpec"], *config["workerGroupSpecs"])]


def container(name: str, *, head: bool = False) -> Object:
    """Return Ray's container of a worker, or of the head."""
    spec: Object = pods(name)[0 if head else 1]
    return dict(spec["containers"][0])


def variables(found: Object) -> dict[str, Any]:
    """Return a container's variables by name."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in found["env"]}


def without_name(volume: Object) -> Object:
    """Return where a volume comes from."""
    return {key: value for key, value in volume.items() if key != "name"}


def workers(name: str) -> Object:
    """Return the group of workers."""
    return dict(ray_service(name)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0])


@EVERY
def test_a_spec_is_rendered_as_its_golden_file(name: str) -> None:
    """A change of what runs in production is seen in review; ``python -m tests.k8s.matrix`` writes the files anew."""
    assert (GOLDEN / f"{name}.yaml").read_text() == text(name)


def test_every_golden_file_has_a_spec() -> None:
    """No file outlives what it was for."""
    assert set(MATRIX) == {path.stem for path in GOLDEN.iterdir()}


@EVERY
def test_what_is_rendered_can_be_applied_and_found_again(name: str) -> None:
    """Every object is of a known kind, in the namespace, named after its service or release, and labelled."""
    for one in rendered(name):
        metadata = one["metadata"]
        assert kind_of(one).namespaced
        assert "llm" == metadata["namespace"]
        assert metadata["name"].startswith("chat")
        assert {names.MANAGED_BY: "slipway", names.SERVICE: "chat"}.items() <= metadata["labels"].items()


@EVERY
def test_no_pod_is_taken_out_of_service_sooner_than_by_kuberays_own_probes(name: str) -> None:
    """On a busy machine a head answered 503 up to three times in a row, and KubeRay lost sight of its application."""
    head, worker = (container(name, head=is_head)["readinessProbe"]["failureThreshold"] for is_head in (True, False))

    assert head >= 10
    assert worker >= 1


@EVERY
def test_nothing_shared_differs_between_two_releases(name: str) -> None:
    """Applying the shared objects for a candidate leaves the live release as it is."""
    assert service_objects(workload(name, number=7)) == service_objects(workload(name, number=8))


@EVERY
def test_no_rendering_shares_ray_state_or_upgrades_by_itself(name: str) -> None:
    """KubeRay decides nothing about traffic, and one cluster never reads what another one wrote."""
    spec = ray_service(name)["spec"]

    assert "None" == spec["upgradeStrategy"]["type"]
    assert "externalStorageNamespace" not in text(name)
    assert "token" == spec["rayClusterConfig"]["authOptions"]["mode"]


@EVERY
def test_a_release_says_how_it_was_rendered(name: str) -> None:
    """By this a later run tells what a foreign hand changed."""
    found = ray_service(name)

    assert found["spec"] == json.loads(found["metadata"]["annotations"][names.RENDERED])


@EVERY
def test_the_head_takes_no_replica(name: str) -> None:
    """The head is control alone: no CPU and no GPU that Ray would count."""
    head = ray_service(name)["spec"]["rayClusterConfig"]["headGroupSpec"]

    assert ("0", "0") == (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"])
    assert "nvidia.com/gpu" not in str(container(name, head=True)["resources"])


@EVERY
def test_ports_have_the_names_that_kuberay_looks_for(name: str) -> None:
    """Without ``serve`` and ``dashboard`` no RayService comes up."""
    head = {port["name"]: port["containerPort"] for port in container(name, head=True)["ports"]}

    assert {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000, "metrics": 8080} == head
    assert ["serve", "metrics"] == [port["name"] for port in container(name)["ports"]]


@EVERY
def test_a_worker_is_ready_when_its_proxy_answers_and_a_head_before(name: str) -> None:
    """KubeRay gives Serve its application only once the head is ready, so the head cannot wait for it."""
    assert "/-/healthz" == container(name)["readinessProbe"]["httpGet"]["path"]
    assert "/api/healthz" == container(name, head=True)["readinessProbe"]["httpGet"]["path"]


@EVERY
def test_every_mount_has_its_volume(name: str) -> None:
    """A pod with a mount of nothing is never made."""
    for spec in pods(name):
        mounts = [mount["name"] for each in spec["containers"] for mount in each["volumeMounts"]]
        assert sorted(mounts) == sorted(volume["name"] for volume in spec["volumes"])


@EVERY
def test_pods_bear_the_labels_by_which_traffic_finds_them(name: str) -> None:
    """The stable Service selects the release; KubeRay adds whether a pod takes requests."""
    config = ray_service(name)["spec"]["rayClusterConfig"]
    selector = names.traffic_selector("chat", "chat-r7")
    del selector[names.SERVES]

    for group in (config["headGroupSpec"], *config["workerGroupSpecs"]):
        assert selector.items() <= group["template"]["metadata"]["labels"].items()


def test_the_live_address_is_told_apart_from_the_rest() -> None:
    """Applying the shared objects moves no traffic; only who asks for it leads it somewhere."""
    asked = workload("cpu")
    silent, led = (
        next(one for one in service_objects(asked, live) if one["kind"] == "Service") for live in (None, "chat-r7")
    )

    assert "selector" not in silent["spec"]
    assert names.traffic_selector("chat", "chat-r7") == led["spec"]["selector"]


def test_a_stage_of_a_pipeline_is_a_pod() -> None:
    """Tensor parallelism stays within a pod, pipeline parallelism goes across."""
    for name, count in {"tensor": 1, "pipeline": 2}.items():
        assert (count, "4") == (
            workers(name)["replicas"],
            container(name)["resources"]["limits"]["nvidia.com/gpu"],
        )
    assert 2 == workload("pipeline").endpoints


def test_replicas_that_must_not_share_a_node_do_not() -> None:
    """``spread: require`` keeps workers of one release apart by a rule, the default by a wish."""
    required, preferred = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))

    assert [required] == list(pods("two_nodes")[1]["affinity"]["podAntiAffinity"])
    assert [preferred] == list(pods("scaled")[1]["affinity"]["podAntiAffinity"])


def test_workers_follow_the_replicas_that_serve_may_have() -> None:
    """Serve asks for replicas, the in-tree autoscaler for the pods that they need."""
    config = ray_service("scaled")["spec"]["rayClusterConfig"]
    group = workers("scaled")

    assert config["enableInTreeAutoscaling"]
    assert (2, 2, 5) == (group["replicas"], group["minReplicas"], group["maxReplicas"])
    assert [True, False] == [spec["automountServiceAccountToken"] for spec in pods("scaled")]
    args = yaml.safe_load(ray_service("scaled")["spec"]["serveConfigV2"])["applications"][0]["args"]
    assert 8 == args["resources"]["autoscaling"]["target_ongoing_requests"]


@pytest.mark.parametrize(
    ("name", "cache", "places"),
    [
        ("efs", "/cache", {"/models": CLAIM, "/cache": {"emptyDir": {}}}),
        ("shared_cache", "/weights", {"/weights": CLAIM}),
        ("s3_fetch", "/cache", {"/cache": {"emptyDir": {"sizeLimit": "40Gi"}}}),
        ("node_disk", "/cache", {"/cache": {"hostPath": {"path": "/mnt/disks/0/slipway", "type": "Directory"}}}),
        ("streamed", "/cache", {"/cache": {"emptyDir": {}}}),
    ],
)
def test_weights_have_their_place(name: str, cache: str, places: dict[str, Object]) -> None:
    """The payload is told of one folder, wherever that is."""
    sources = {volume["name"]: without_name(volume) for volume in pods(name)[1]["volumes"]}
    found = {mount["mountPath"]: sources[mount["name"]] for mount in container(name)["volumeMounts"]}

    assert cache == variables(container(name))["SLIPWAY_CACHE"]
    assert places == {path: source for path, source in found.items() if path not in {"/dev/shm", "/tmp/ray"}}


def test_secrets_are_named_and_never_shown() -> None:
    """Tokens, keys and passwords come from Secrets of the namespace."""
    reference = {"secretKeyRef": {"name": "hf-token", "key": "token"}}
    options = ray_service("redis")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]

    assert reference == variables(container("gated"))["HF_TOKEN"]
    assert [{"secretRef": {"name": "s3-access"}}] == container("streamed")["envFrom"]
    assert {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}} == options["redisPassword"]
    assert "chat-ray-token" == ray_service("redis")["spec"]["rayClusterConfig"]["authOptions"]["secretName"]


def test_only_those_named_reach_the_ports() -> None:
    """Clients reach the Serve port alone, and the dashboard is seen in the namespace and by the operator."""
    serve, ray = (one["spec"]["ingress"] for one in rendered("gateway") if one["kind"] == "NetworkPolicy")
    ports = {
        re.sub(r"[{}' ]|namespaceSelector|podSelector|matchLabels|kubernetes.io/metadata.name|:", "", str(who)): {
            port["port"] for port in rule.get("ports", ())
        }
        for rule in (*serve, *ray)
        for who in rule["from"]
    }

    assert {
        "apps": {8000},
        "gateways": {8000},
        "slipway.dev/servicechat": set(),
        "": {8265, 8080},
        "ray-system": {8265, 8000},
        "observability": {8080, 9101},
    } == ports


def test_a_drained_node_waits_unless_the_spec_lets_it_take_a_pod() -> None:
    """The budget counts every pod, or those that take requests less those that may go."""
    budgets = {
        name: release_objects(workload(name))[2]["spec"]["minAvailable"] for name in ("cpu", "two_nodes", "scaled")
    }

    assert {"cpu": 2, "two_nodes": 2, "scaled": 6} == budgets


def test_a_route_is_tied_to_the_gateway_or_in_the_mesh_to_the_service() -> None:
    """Its rules are no part of what is rendered: they say who is live."""
    public, mesh = (
        next(one["spec"] for one in rendered(name) if one["kind"] == "HTTPRoute") for name in ("gateway", "mesh")
    )

    assert {"name": "public", "namespace": "gateways", "sectionName": "https"} == public["parentRefs"][0]
    assert {"group": "", "kind": "Service", "name": "chat", "port": 8000} == mesh["parentRefs"][0]
    assert not [spec for spec in (public, mesh) if "rules" in spec]
