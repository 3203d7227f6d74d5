"""The estimate against published models, whose weights and needs are known."""

from dataclasses import replace

import pytest

from tasks._sizing.estimate import fit
from tasks._sizing.shape import shape_of
from tasks.errors import BadInput
from tasks.sizing import GPUS, Load, Size, Sure, gpu_called, gpu_of, sized
from tests.tasks.sizing.configs import published

GIB = 2**30
ALL = tuple(GPUS.values())


def size(name: str, gpu: str = "H100", **load: int | str) -> Size:
    """Return the estimate of a published model for 8 sequences of 8,192 tokens on a GPU, or what ``load`` says."""
    asked = {"context": 8192, "sequences": 8, **load}
    return sized(published(name), Load.model_validate(asked), (gpu_called(gpu),))


@pytest.mark.parametrize(
    ("name", "billions", "weights", "per_token"),
    [
        ("llama-8b", 8.03, 16.06, 131_072),
        ("llama-70b", 70.55, 141.11, 327_680),
        ("mistral-7b", 7.24, 14.48, 131_072),
        ("qwen-7b", 7.62, 15.23, 57_344),
        ("mixtral", 46.70, 93.41, 131_072),
        ("deepseek-v3", 684.53, 688.49, 70_272),
    ],
)
def test_weights_and_cache_are_those_of_the_published_model(
    name: str, billions: float, weights: float, per_token: int
) -> None:
    """Parameters, gigabytes in memory, and bytes of one token in the cache: by hand from each configuration."""
    found = size(name, "H200")

    assert found.parameters is not None
    assert (billions, weights) == (round(found.parameters / 1e9, 2), round(found.weights / 1e9, 2))
    assert per_token == found.per_token


@pytest.mark.parametrize(
    ("name", "gpu", "layout"),
    [
        ("llama-8b", "L4", (2, 1)),
        ("llama-8b", "L40S", (1, 1)),
        ("llama-70b", "H100", (4, 1)),
        ("llama-70b", "H200", (2, 1)),
        ("llama-70b", "A10G", (8, 2)),
        ("qwen-7b", "A10G", (1, 1)),
        ("mixtral", "A100-80", (2, 1)),
        ("deepseek-v3", "H200", (8, 1)),
        ("deepseek-v3", "H100", (8, 2)),
    ],
)
def test_the_fewest_gpus_are_those_that_people_use(name: str, gpu: str, layout: tuple[int, int]) -> None:
    """A node of eight H200 holds DeepSeek-V3 and one of eight H100 does not, as its makers say."""
    (found,) = size(name, gpu).proposed

    assert layout == (found.tensor, found.pipeline)
    assert found.fits
    assert found.sequences is not None
    assert found.sequences >= 8


def test_activations_are_near_what_an_engine_measured() -> None:
    """VLLM's own log of Llama 3 8B on an H100 (vllm-project/vllm#10511): 1.26 GiB, and 14.96 of weights."""
    share = size("llama-8b").proposed[0].share

    assert abs(share.activations / GIB - 1.26) < 0.05
    assert abs(share.weights / GIB - 14.96) < 0.01


def test_keys_that_are_fewer_than_gpus_are_held_several_times() -> None:
    """Four heads of keys over eight GPUs take as much of each as over four; latent attention is never split."""
    model, load = published("llama-8b", num_key_value_heads=4).model, Load(context=8192, sequences=8)
    two, four, eight = (fit(model, shape_of(model.config), load, GPUS["H100"], n, 1).share.cache for n in (2, 4, 8))
    latent = size("deepseek-v3", "H200").proposed[0]

    assert (2 * four, four) == (two, eight)
    assert latent.share.cache == 70_272 * 8192 * 8


def test_an_engine_that_makes_the_weights_smaller_leaves_the_embeddings() -> None:
    """Half of all but twice the vocabulary; a model that is quantised already is not done again."""
    plain, small = size("llama-8b"), size("llama-8b", quantization="fp8")
    embeddings = 2 * 128_256 * 4096

    assert plain.weights - small.weights == 8_030_261_248 - embeddings
    assert {"max_model_len": 8192, "quantization": "fp8"} == small.engine
    with pytest.raises(BadInput, match="quantised already"):
        size("deepseek-v3", quantization="fp8")


def test_a_smaller_cache_has_room_for_more() -> None:
    """A byte instead of two: nearly twice the sequences."""
    plain, small = size("llama-8b"), size("llama-8b", kv_cache_dtype="fp8")

    assert 2 * plain.proposed[0].sequences == pytest.approx(small.proposed[0].sequences or 0, abs=1)


def test_packed_weights_count_by_their_bits() -> None:
    """Eight parameters of four bits are one element of 32; the bytes are those of the files."""
    model = published("llama-8b", quantization_config={"quant_method": "awq", "bits": 4})
    packed = replace(model, model=replace(model.model, dtypes={"I32": 10**9, "F16": 10**8}, stored=42 * 10**8))

    found = sized(packed, None, ALL)

    assert (8_100_000_000, 4_200_000_000) == (found.parameters, found.weights)


def test_how_sure_it_is_follows_from_what_was_understood() -> None:
    """A configuration that tells no layers leaves the cache unknown, and says so."""
    nothing = replace(published("llama-8b"), model=replace(published("llama-8b").model, config={}))
    found = sized(nothing, None, ALL)

    assert [Sure.GOOD, Sure.FAIR, Sure.FAIR] == [size(n).sure for n in ("llama-8b", "mistral-7b", "deepseek-v3")]
    assert (Sure.ROUGH, None) == (found.sure, found.per_token)
    assert "not known" in found.doubts[0]


def test_without_a_load_a_usual_one_is_asked() -> None:
    """And never more tokens than the model reads."""
    short = sized(published("llama-8b", max_position_embeddings=2048), None, ALL)

    assert (2048, 8) == (short.load.context, short.load.sequences)
    assert list(GPUS) == [one.gpu for one in short.proposed]
    with pytest.raises(BadInput, match="at most 131,072 tokens"):
        size("llama-8b", context=200_000)


def test_a_gpu_that_can_never_hold_it_is_left_out() -> None:
    """Sixteen nodes of eight tiny ones are not enough."""
    found = sized(published("deepseek-v3"), None, (gpu_of(2),))

    assert ((), ("a GPU of 2 GiB",)) == (found.proposed, found.too_small)


def test_equal_after_json() -> None:
    """Programs read the whole of it."""
    found = size("mixtral")

    assert found == Size.from_json(found.to_json())
