"""What a replica tells vLLM before it starts."""

from pathlib import Path
from typing import Any

import pytest

from serve.arguments import MAX_NUM_SEQS, Arguments
from serve.engine import CPU_KV_CACHE_BYTES, engine_arguments, environment

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def release(gpus: float = 0, **engine: Any) -> Arguments:
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
            "resources": {"gpus": gpus},
        }
    )


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_replica_never_asks_a_hub_and_reports_nothing(gpus: float) -> None:
    """Everything is local at serving time, on every kind of machine."""
    seen = environment(release(gpus), cores=8)

    assert seen["HF_HUB_OFFLINE"] == seen["TRANSFORMERS_OFFLINE"] == "1"
    assert seen["VLLM_NO_USAGE_STATS"] == seen["DO_NOT_TRACK"] == "1"
    assert ("OMP_NUM_THREADS" in seen) == (gpus == 0)


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (3, "1"), (8, "4")])
def test_a_candidate_leaves_half_of_the_cores_to_the_live_release(cores: int, threads: str) -> None:
    """Two engines with a spinning thread on every core stall each other."""
    assert environment(release(), cores)["OMP_NUM_THREADS"] == threads


def test_what_is_served_is_the_local_copy_under_its_public_name() -> None:
    """Neither the path of the cache nor a commit is what clients call."""
    told = engine_arguments(release(dtype="float32", load_format="auto"), Path("/cache") / COMMIT)

    assert told["model"] == f"/cache/{COMMIT}"
    assert told["served_model_name"] == ["chat"]
    assert (told["load_format"], told["trust_remote_code"], told["dtype"]) == ("safetensors", False, "float32")


def test_streamed_weights_come_from_the_store_and_all_else_from_the_local_copy() -> None:
    """The engine takes its configuration from one place and its weights from another; vLLM 0.29 ran so."""
    told = engine_arguments(release(load_format="runai_streamer"), Path("/cache/small"))

    assert told["model"] == "/cache/small"
    assert (told["model_weights"], told["load_format"]) == (f"s3://bucket/{COMMIT}", "runai_streamer")
    assert "model_weights" not in engine_arguments(release(), Path("/cache"))


@pytest.mark.parametrize(
    ("gpus", "engine", "backend", "memory"),
    [
        (0, {}, "uni", CPU_KV_CACHE_BYTES),
        (0, {"kv_cache_memory_bytes": 2**30}, "uni", 2**30),
        (1, {}, "uni", None),
        (4, {"tensor_parallel_size": 4}, "mp", None),
        (4, {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, "ray", None),
        (0, {"pipeline_parallel_size": 2}, "mp", CPU_KV_CACHE_BYTES),
        (2, {"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}, "ray", None),
    ],
)
def test_the_engine_fits_its_machine(gpus: float, engine: dict[str, Any], backend: str, memory: int | None) -> None:
    """One process where one is enough, and a cache of a known size where memory is shared with everything else."""
    told = engine_arguments(release(gpus, **engine), Path("/cache"))

    assert told["distributed_executor_backend"] == backend
    assert told.get("kv_cache_memory_bytes") == memory
    assert told["max_num_seqs"] == MAX_NUM_SEQS
