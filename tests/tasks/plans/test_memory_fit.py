"""The estimate of memory, against numbers that were worked out by hand or measured."""

from typing import Any

import pytest

from serve import arguments, engine
from tasks._plans import memory_fit as _memory_fit
from tasks._plans.memory_fit import Model, Room, memory_fit, token_bytes, weights_bytes
from tasks.spec import ServiceSpec

SMOL = {
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
    "max_position_embeddings": 2048,
}  # fmt: skip
LLAMA_70B = {
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192,
    "head_dim": 128, "max_position_embeddings": 131072,
}  # fmt: skip
GIB = 2**30


def spec(gpus: float = 0, replicas: int = 1, **engine: Any) -> ServiceSpec:
    """Return a spec with these resources and engine arguments."""
    resources = {"gpus": gpus, "replicas": replicas}
    return ServiceSpec.model_validate(
        {"service": "chat", "model": "org/name", "resources": resources, "engine": engine}
    )


def smol(stored: int = 269_000_000) -> Model:
    """Return SmolLM2-135M as its Hub has it, in bfloat16."""
    return Model(SMOL, stored, {"BF16": 134_515_008})


@pytest.mark.parametrize(
    ("config", "engine", "expected"),
    [
        (SMOL, {"dtype": "float32"}, 46_080),
        (SMOL, {}, 23_040),
        (LLAMA_70B, {"dtype": "bfloat16"}, 327_680),
        (LLAMA_70B, {"kv_cache_dtype": "fp8"}, 163_840),
        ({"text_config": SMOL, "hidden_size": 1}, {}, 23_040),
        ({"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, {}, 70_272),
        ({}, {}, None),
        ({**SMOL, "num_hidden_layers": "30"}, {}, None),
        ({**SMOL, "num_key_value_heads": None}, {}, 69_120),
    ],
)
def test_a_token_takes_key_and_value_in_every_layer(
    config: dict[str, Any], engine: dict[str, Any], expected: int | None
) -> None:
    """Grouped and latent attention, nested configurations, and none that can be read."""
    assert token_bytes(config, engine) == expected


@pytest.mark.parametrize(
    ("dtypes", "dtype", "expected"),
    [
        ({"BF16": 100}, "float32", 1200),
        ({"BF16": 100}, "auto", 1000),
        ({"F32": 100}, "auto", 800),
        ({"F8_E4M3": 100}, "bfloat16", 1000),
        ({"F32": 10, "I32": 100}, "half", 980),
    ],
)
def test_floats_take_the_dtype_of_the_engine(dtypes: dict[str, int], dtype: str, expected: int) -> None:
    """What is quantised stays as it is stored."""
    assert weights_bytes(Model({}, 1000, dtypes), {"dtype": dtype}) == expected


def test_the_defaults_are_those_of_the_payload() -> None:
    """The two environments cannot import each other, so a test keeps them equal."""
    mine = (_memory_fit.MAX_NUM_SEQS, _memory_fit.CPU_KV_CACHE_BYTES)

    assert mine == (arguments.MAX_NUM_SEQS, engine.CPU_KV_CACHE_BYTES)


def test_a_machine_without_gpu_gives_a_cache_of_fixed_size() -> None:
    """About 11,000 tokens of this model in float32, as was measured; all replicas share the machine."""
    fit = memory_fit(smol(), spec(replicas=2, dtype="float32", max_model_len=1024), Room(8 * GIB, 4 * GIB))

    assert (fit.per_token, fit.length, fit.asked) == (46_080, 1024, 256)
    assert fit.sequences == 512 * 2**20 // (46_080 * 1024) == 11
    assert fit.needed == 2 * (fit.weights + 512 * 2**20)
    assert fit.fits is True
    assert "11 of the 256 sequences of 1,024 tokens" in fit.sentence


def test_weights_larger_than_the_memory_cannot_fit() -> None:
    """A model of 70 billion parameters on one GPU of 80 GB."""
    model = Model(LLAMA_70B, 141_000_000_000, {"BF16": 70_500_000_000})

    assert memory_fit(model, spec(gpus=1), Room(80 * GIB)).fits is False
    fit = memory_fit(model, spec(gpus=4, max_model_len=8192), Room(80 * GIB))
    assert fit.fits is True
    assert fit.available == int(80 * GIB * 0.92) * 4
    assert fit.sequences == (fit.available - 141_000_000_000) // (327_680 * 8192)


def test_a_cache_too_small_for_one_sequence_cannot_start() -> None:
    """The engine refuses that by itself, minutes later."""
    assert memory_fit(smol(), spec(max_model_len=1024, kv_cache_memory_bytes=10**6), Room(8 * GIB)).fits is False


@pytest.mark.parametrize(
    "more", [{"sliding_window": 512}, {"layer_types": ["sliding_attention", "full_attention"]}, {"mamba_d_state": 1}]
)
def test_what_may_need_less_is_not_refused(more: dict[str, Any]) -> None:
    """Windows and states make the estimate an upper bound."""
    model = Model({**SMOL, **more}, 269_000_000, {})

    assert memory_fit(model, spec(max_model_len=2048, kv_cache_memory_bytes=10**6), Room(8 * GIB)).fits is None


@pytest.mark.parametrize(
    ("model", "gpus", "room"),
    [(smol(), 1, Room()), (smol(), 0, Room()), (Model({}, 10**9, {}), 0, Room(8 * GIB))],
)
def test_what_is_not_known_is_said(model: Model, gpus: float, room: Room) -> None:
    """No guess stands for a size that nobody tells."""
    fit = memory_fit(model, spec(gpus=gpus), room)

    assert fit.fits is None
    assert "not known" in fit.sentence
