"""What Serve is told of a release's replicas: how many, where, and with which GPUs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve.arguments import MAX_NUM_SEQS, Arguments
from serve.placement import deployment_options

ROOT = Path(__file__).parents[2]
BUILD = """
import json, sys
from serve.app import build
for arguments in json.loads(sys.argv[1]):
    print(build(arguments)._bound_deployment.name)
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def release(resources: dict[str, Any], **engine: Any) -> Arguments:
    """Return the arguments of a release."""
    return Arguments.model_validate(
        {
            "service": "chat",
            "release": "chat-r1",
            "commit": COMMIT,
            "model": "org/name",
            "served_model_name": "chat",
            "weights": f"s3://bucket/{COMMIT}",
            "engine": engine,
            "resources": resources,
            "longest_request_s": 60,
        }
    )


def test_a_plain_release_has_a_fixed_number_of_replicas_that_keep_their_requests() -> None:
    """Nothing but what one machine always had: a number, CPUs, and time for the longest request."""
    told = deployment_options(release({"replicas": 2, "cpus": 4}, max_num_seqs=8))

    assert {
        "name": "engine",
        "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 4.0, "num_gpus": 0.0},
        "max_ongoing_requests": 16,
        "graceful_shutdown_timeout_s": 70.0,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 10.0,
        "health_check_timeout_s": 60.0,
        "max_constructor_retry_count": 1,
    } == told


@pytest.mark.parametrize(
    ("asked", "engine", "target"),
    [
        ({}, {}, MAX_NUM_SEQS / 2),
        ({}, {"max_num_seqs": 48}, 24.0),
        ({}, {"max_num_seqs": 1}, 1.0),
        ({"target_ongoing_requests": 5}, {"max_num_seqs": 48}, 5.0),
    ],
)
def test_autoscaling_always_has_a_target(asked: dict[str, Any], engine: dict[str, Any], target: float) -> None:
    """Serve's own default of two requests a replica would start one for every other client."""
    told = deployment_options(release({"autoscaling": {"max_replicas": 4, **asked}}, **engine))

    assert "num_replicas" not in told
    assert {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": target,
        "upscale_delay_s": 30.0,
        "downscale_delay_s": 600.0,
    } == told["autoscaling_config"]


def test_the_shards_of_a_node_are_one_actor() -> None:
    """The engine starts a process for each of its GPUs by itself, so Ray gives them out together."""
    told = deployment_options(release({"gpus": 4, "cpus": 8}, tensor_parallel_size=4))

    assert {"num_cpus": 8.0, "num_gpus": 4.0} == told["ray_actor_options"]
    assert "placement_group_bundles" not in told


def test_stages_on_several_nodes_have_a_bundle_for_each_gpu() -> None:
    """A bundle with more than one is refused by vLLM, and the replica needs the first but not its GPU."""
    told = deployment_options(
        release({"gpus": 4, "cpus": 8, "max_replicas_per_node": 1}, tensor_parallel_size=2, pipeline_parallel_size=2)
    )

    assert [{"CPU": 8.0, "GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}] == told["placement_group_bundles"]
    assert told["placement_group_strategy"] == "PACK"
    assert (8.0, 0) == (told["ray_actor_options"]["num_cpus"], told["ray_actor_options"]["num_gpus"])
    assert "max_replicas_per_node" not in told, "Serve 2.60 refuses both"


def test_replicas_are_spread_over_nodes_where_that_is_asked_for() -> None:
    """A node that fails then takes one replica with it; on one machine nobody asks."""
    spread = deployment_options(release({"replicas": 2, "gpus": 1, "max_replicas_per_node": 1}))

    assert spread["max_replicas_per_node"] == 1
    assert "max_replicas_per_node" not in deployment_options(release({"replicas": 2, "gpus": 1}))


@pytest.mark.slow
def test_serve_takes_what_it_is_told() -> None:
    """Ray itself checks the options of a deployment when the application is built; no cluster runs for that."""
    asked = [
        release({"replicas": 2, "gpus": 1, "max_replicas_per_node": 1}),
        release({"gpus": 4, "autoscaling": {"max_replicas": 3}}, tensor_parallel_size=4),
        release({"gpus": 4, "cpus": 8}, tensor_parallel_size=2, pipeline_parallel_size=2),
    ]
    python = ROOT / "serve" / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", BUILD, json.dumps([one.model_dump() for one in asked])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (0, ["engine"] * 3) == (done.returncode, done.stdout.split()), done.stderr
