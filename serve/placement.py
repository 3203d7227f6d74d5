"""How Serve is to place and number the replicas of a release: the options of its one deployment, worked out purely.

A replica whose GPUs are on one node is one actor with that many GPUs, in which vLLM starts its own processes.  One
whose pipeline has several stages may span nodes, so each of its GPUs is a bundle of a placement group: vLLM 0.29
takes no bundle with more than one (``vllm.v1.executor.ray_utils``).  Ray packs them, vLLM numbers its workers node by
node beginning with the replica's, and layers are cut inside a stage; with ``tensor_parallel_size`` GPUs on a node,
a stage is a node.  The replica itself has none of the GPUs and lives in the first bundle.
"""

from typing import Any

from serve.arguments import Arguments, Autoscaling

# After the longest request the engine still has to end; it takes about a second.
SHUTDOWN_MARGIN_S = 10.0
# Serve's health check shares the replica with requests; at 10 s busy replicas were restarted (ray issue 54070).
HEALTH_TIMEOUT_S = 60.0
# Requests a replica holds for each one the engine computes: the next batch is there when a sequence ends.
REQUESTS_PER_SEQUENCE = 2
# Another replica takes minutes to load, so it is asked for when half of a batch is taken, not when all is.
TARGET_SHARE = 0.5
# A replica without a GPU of its own still asks what the GPUs can do; Ray would hide them from it.
SEES_GPUS = {"runtime_env": {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}}


def deployment_options(arguments: Arguments) -> dict[str, Any]:
    """Return the options of ``ray.serve.deployment`` for the release's engine."""
    return {
        "name": "engine",
        **_number(arguments),
        **_place(arguments),
        "max_ongoing_requests": REQUESTS_PER_SEQUENCE * arguments.sequences,
        "graceful_shutdown_timeout_s": arguments.longest_request_s + SHUTDOWN_MARGIN_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 10.0,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        # A start that failed is judged by the controller, not tried again for ever.
        "max_constructor_retry_count": 1,
    }


def _number(arguments: Arguments) -> dict[str, Any]:
    """Return how many replicas there are; without a target Serve 2.60 would hold two requests a replica."""
    scaling = arguments.resources.autoscaling
    if scaling is None:
        return {"num_replicas": arguments.resources.replicas}
    return {"autoscaling_config": {**scaling.model_dump(), "target_ongoing_requests": _target(arguments, scaling)}}


def _target(arguments: Arguments, scaling: Autoscaling) -> float:
    return scaling.target_ongoing_requests or max(1.0, TARGET_SHARE * arguments.sequences)


def _place(arguments: Arguments) -> dict[str, Any]:
    resources = arguments.resources
    if arguments.spans_nodes:
        rest = [{"GPU": 1.0} for _ in range(int(resources.gpus) - 1)]
        return {
            "ray_actor_options": {"num_cpus": resources.cpus, "num_gpus": 0, **SEES_GPUS},
            "placement_group_bundles": [{"CPU": resources.cpus, "GPU": 1.0}, *rest],
            "placement_group_strategy": "PACK",
        }
    spread = {"max_replicas_per_node": resources.max_replicas_per_node} if resources.max_replicas_per_node else {}
    return {"ray_actor_options": {"num_cpus": resources.cpus, "num_gpus": resources.gpus}, **spread}
