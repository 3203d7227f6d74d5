"""The specs that rendering is tried with, and what each is rendered to.

    python -m tests.k8s.matrix

writes the golden files anew; what changed in them is then read before it is believed.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path

from k8s.kinds import Object
from k8s.manifests import to_yaml
from k8s.names import RENDERED
from k8s.rendering import release_objects, service_objects
from k8s.workload import Workload
from tasks._release.wishes import wanted
from tasks._release.workloads import workload_of
from tasks._spec_file import parse_spec

GOLDEN = Path(__file__).parent / "golden"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "5" * 64
S3 = f"s3://models/slipway/models/org/name/{COMMIT}"
FOLDER = f"file:///models/slipway/models/org/name/{COMMIT}"
HEAD = f"""
service: chat
model: org/name
target: kuberay
kubernetes:
  image: registry.example.com/payload@{DIGEST}
"""
ONE_GPU = "resources: {cpus: 6, gpus: 1}\n"

MATRIX = {
    "cpu": f"""{HEAD}
  worker: {{cpu: 500m, memory: 4Gi, limit_cpu: false}}
""",
    "gpu": f"""{HEAD}
  head: {{cpu: 2, memory: 12G, node_selector: {{node.kubernetes.io/instance-type: m5.xlarge}}}}
  worker:
    cpu: 6
    memory: 28G
    node_selector: {{node.kubernetes.io/instance-type: g6e.2xlarge}}
    tolerations: [{{key: team, value: llm, effect: NoSchedule}}]
{ONE_GPU}""",
    "tensor": f"""{HEAD}
  worker: {{cpu: 32, memory: 128Gi}}
  shared_memory: 16Gi
resources: {{cpus: 32, gpus: 4}}
engine: {{tensor_parallel_size: 4}}
""",
    "pipeline": f"""{HEAD}
resources: {{cpus: 4, gpus: 8}}
engine: {{tensor_parallel_size: 4, pipeline_parallel_size: 2}}
""",
    "two_nodes": f"""{HEAD}
  spread: require
  evictable: 1
resources: {{replicas: 2, gpus: 1}}
""",
    "scaled": f"""{HEAD}
resources: {{gpus: 1, autoscaling: {{min_replicas: 2, max_replicas: 5, target_ongoing_requests: 8}}}}
""",
    "efs": f"""{HEAD}
  weights: {{claim: models}}
{ONE_GPU}""",
    "shared_cache": f"""{HEAD}
  weights: {{claim: models, path: /weights}}
{ONE_GPU}""",
    "s3_fetch": f"""{HEAD}
  weights: {{size: 40Gi}}
  service_account: {{annotations: {{eks.amazonaws.com/role-arn: "arn:aws:iam::111122223333:role/models-read"}}}}
{ONE_GPU}""",
    "node_disk": f"""{HEAD}
  weights: {{host_path: /mnt/disks/0/slipway}}
  service_account: {{name: models-reader, create: false}}
{ONE_GPU}""",
    "streamed": f"""{HEAD}
  secrets: [s3-access]
  environment: {{AWS_REGION: eu-west-1, AWS_ENDPOINT_URL_S3: "http://store.example.com:9000"}}
engine: {{load_format: runai_streamer}}
{ONE_GPU}""",
    "redis": f"""{HEAD}
  redis: {{address: "redis.llm.svc:6379", username: ray, password: {{secret: redis, key: password}}}}
  ray_token: chat-ray-token
{ONE_GPU}""",
    "gateway": f"""{HEAD}
  gateway:
    name: public
    namespace: gateways
    listener: https
    hostnames: [chat.example.com]
    candidate_header: {{name: x-canary, value: "yes"}}
  network: {{clients: [apps], operator: ray-system, monitoring: observability}}
shift: {{steps: [1, 25, 100]}}
{ONE_GPU}""",
    "mesh": f"""{HEAD}
  gateway: {{}}
  haproxy: false
""",
    "gated": f"""{HEAD}
  hub_token: {{secret: hf-token, key: token}}
  pull_secrets: [registry]
  access:
    type: LoadBalancer
    load_balancer_class: service.k8s.aws/nlb
    annotations: {{service.beta.kubernetes.io/aws-load-balancer-scheme: internal}}
{ONE_GPU}""",
    "own_image": """
service: chat
model: org/name
target: kuberay
kubernetes:
  image: localhost:5000/payload:dev
  allow_tag: true
  user: 0
  mounts:
    - {path: /opt/payload, host_path: /opt/payload}
    - {path: /etc/ca, config_map: certificates}
    - {path: /etc/key, secret: key}
    - {path: /scratch, claim: scratch, read_only: false}
  network: {policy: false}
  access: {type: NodePort}
""",
}
"""A spec by the name of its golden file."""
STORES = {"efs": FOLDER}
"""Where the weights of a spec are, if not in S3."""


@cache
def workload(name: str, *, number: int = 7, namespace: str = "llm") -> Workload:
    """Return the workload of a spec of the matrix."""
    spec = parse_spec(MATRIX[name], name)
    release = wanted(spec, COMMIT, "https://hub.example.com", number=number)
    return workload_of(release, STORES.get(name, S3), namespace)


@cache
def rendered(name: str, *, namespace: str = "llm") -> tuple[Object, ...]:
    """Return all objects of a spec of the matrix, in the order in which they are applied."""
    asked = workload(name, namespace=namespace)
    return *service_objects(asked), *release_objects(asked)


@cache
def text(name: str) -> str:
    """Return the golden file's text: everything but the annotation that says the RayService's spec once more."""
    objects = deepcopy(rendered(name))
    for one in objects:
        one["metadata"].get("annotations", {}).pop(RENDERED, None)
    return to_yaml(objects)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in MATRIX:
        (GOLDEN / f"{each}.yaml").write_text(text(each))
