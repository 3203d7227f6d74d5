"""How configurations are read: windows, experts, latent attention, quantised weights, and what is not understood."""

from typing import Any

import pytest

from tasks._sizing.shape import Shape, doubts, shape_of
from tests.tasks.sizing.configs import CONFIGS, DEEPSEEK_V3, LLAMA_8B, MISTRAL_7B, MIXTRAL, QWEN_7B

GEMMA_3 = {"text_config": LLAMA_8B | {"sliding_window": 1024, "sliding_window_pattern": 6, "num_hidden_layers": 34}}
GPT_OSS = LLAMA_8B | {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}
QWEN_NEXT = LLAMA_8B | {"layer_types": [*["linear_attention"] * 24, *["full_attention"] * 8]}


@pytest.mark.parametrize(
    ("config", "windowed", "window", "stateful"),
    [
        (LLAMA_8B, 0, None, 0),
        (MISTRAL_7B, 32, 4096, 0),
        (QWEN_7B, 0, None, 0),
        (QWEN_7B | {"use_sliding_window": True, "max_window_layers": 20}, 8, 131072, 0),
        (GEMMA_3, 29, 1024, 0),
        (LLAMA_8B | {"model_type": "gemma2", "sliding_window": 4096}, 16, 4096, 0),
        (GPT_OSS, 16, 128, 0),
        (QWEN_NEXT, 0, None, 24),
        ({}, 0, None, 0),
    ],
)
def test_layers_keep_all_tokens_a_window_or_a_state(
    config: dict[str, Any], windowed: int, window: int | None, stateful: int
) -> None:
    """Each family says so in its own way."""
    shape = shape_of(config)

    assert (windowed, window, stateful) == (shape.windowed, shape.window, shape.stateful)


def test_a_window_bounds_what_a_long_sequence_keeps() -> None:
    """Half of the layers keep 100 tokens at most; the longest sequence is found back from what it keeps."""
    shape = Shape(layers=4, windowed=2, window=100, longest=10_000)

    assert [50, 550] == [shape.tokens_kept(50), shape.tokens_kept(1000)]
    assert [50, 1000, 10_000] == [shape.longest_kept(tokens) for tokens in (50, 550, 99_999)]


@pytest.mark.parametrize(
    ("config", "quantized"),
    [
        (LLAMA_8B, ""),
        (DEEPSEEK_V3, "fp8"),
        (LLAMA_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq, 4 bits"),
        (LLAMA_8B | {"quantization_config": {"quant_method": "gptq", "bits": 8}}, "gptq, 8 bits"),
    ],
)
def test_how_the_weights_are_stored_is_named(config: dict[str, Any], quantized: str) -> None:
    """Their size is that of the files; the name is for a person."""
    assert quantized == shape_of(config).quantized


@pytest.mark.parametrize(
    ("config", "experts", "intermediate"),
    [(LLAMA_8B, None, 14336), (MIXTRAL, 8, 2 * 14336), (DEEPSEEK_V3, 256, 9 * 2048)],
)
def test_experts_that_answer_together_are_one_wide_layer(
    config: dict[str, Any], experts: int | None, intermediate: int
) -> None:
    """Of 256 experts eight and a shared one compute a token."""
    shape = shape_of(config)

    assert (experts, intermediate) == (shape.experts, shape.intermediate)


def test_what_makes_an_estimate_unsure_is_said() -> None:
    """A plain model leaves nothing to say; one that cannot be read says that first."""
    found = {name: doubts(config, shape_of(config)) for name, config in CONFIGS.items()}

    assert () == found["llama-8b"] == found["qwen-7b"]
    assert ["windows"] == [word for one in found["mistral-7b"] for word in ("windows",) if word in one]
    assert "speculative decoding" in " ".join(found["deepseek-v3"])
    assert "not known" in doubts({}, shape_of({}))[0]
    assert "shared" not in shape_of(LLAMA_8B).kept
    assert "32 heads that share 8 of keys (GQA)" == shape_of(LLAMA_8B).kept
