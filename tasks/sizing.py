"""How much memory and how many GPUs a model needs, from its Hub's metadata alone; what ``slipway size`` says.

    size_of(settings, "meta-llama/Llama-3.1-70B-Instruct", "main", load, (gpu,))

The weights are exact, the KV cache is exact for configurations that are understood, and the rest is an allowance; how
sure the sum is, is said with it.
"""

from collections.abc import Mapping
from enum import StrEnum

from tasks._plans.memory_fit import CACHED
from tasks._sizing.estimate import HOST_BYTES, ONLINE, Fit, Load, cache_per_token, smallest, weights_of
from tasks._sizing.gpus import GPUS, Gpu, gpu_called, gpu_of
from tasks._sizing.reading import Published, read_published
from tasks._sizing.shape import Shape, doubts, shape_of
from tasks._weights.access import open_hub
from tasks.errors import BadInput
from tasks.records import Commit, Value
from tasks.settings import Settings

__all__ = ["CACHED", "GPUS", "ONLINE", "Gpu", "Load", "Size", "gpu_called", "gpu_of", "size_of", "sized"]

USUAL_CONTEXT, USUAL_SEQUENCES = 8_192, 8
"""What is asked where nobody says: a chat of some length, and a few people at once."""
PACKED_BITS = {"awq": 4, "gptq": 4}


class Sure(StrEnum):
    """Good: only the allowances are unsure.  Fair: engines differ in a part of it.  Rough: a part is not known."""

    GOOD = "good"
    FAIR = "fair"
    ROUGH = "rough"


class Size(Value):
    """What a model needs.  Sizes are bytes; ``per_token`` is of the cache over all layers, held once.

    ``proposed`` is the fewest GPUs of each kind that was asked about; a kind on which it cannot run is left out.
    """

    version: int = 1
    model: str
    ref: str
    commit: Commit
    licence: str | None
    shape: Shape
    parameters: int | None
    dtypes: dict[str, int]
    stored: int
    weights: int
    per_token: int | None
    load: Load
    proposed: tuple[Fit, ...]
    too_small: tuple[str, ...] = ()
    sure: Sure
    doubts: tuple[str, ...]
    host: dict[str, int]

    @property
    def engine(self) -> dict[str, int | str]:
        """Return the engine arguments that fit the first proposal."""
        best = next(iter(self.proposed), None)
        parallel = {} if best is None else {
            "tensor_parallel_size": best.tensor,
            "pipeline_parallel_size": best.pipeline,
        }  # fmt: skip
        arguments: dict[str, int | str] = {name: size for name, size in parallel.items() if size > 1}
        arguments["max_model_len"] = self.load.context
        if self.load.quantization:
            arguments["quantization"] = self.load.quantization
        if self.load.kv_cache_dtype != "auto":
            arguments["kv_cache_dtype"] = self.load.kv_cache_dtype
        return arguments


def size_of(settings: Settings, model: str, ref: str, load: Load | None, gpus: tuple[Gpu, ...]) -> Size:
    """Ask the configured Hub about ``ref`` of ``model``, and size it for ``load`` on each of ``gpus``.

    Without a load it is ``USUAL_SEQUENCES`` of ``USUAL_CONTEXT`` tokens, or of the model's longest.  Raises
    ``BadInput`` for a load that the model cannot have, ``NotFound`` for a commit without safetensors, and whatever
    a Hub raises.
    """
    with open_hub(settings) as hub:
        published = read_published(hub, model, ref)
    return sized(published, load, gpus)


def sized(published: Published, load: Load | None, gpus: tuple[Gpu, ...]) -> Size:
    """Return the estimate for what a Hub told; raises ``BadInput`` as ``size_of`` does."""
    model = published.model
    shape = shape_of(model.config)
    load = _checked(shape, load or Load(context=0, sequences=USUAL_SEQUENCES))
    fits = {gpu.name: smallest(model, shape, load, gpu) for gpu in gpus}
    found = (*published.doubts, *doubts(model.config, shape))
    per_token = cache_per_token(model, load)
    return Size(
        model=published.name,
        ref=published.ref,
        commit=published.commit,
        licence=published.licence,
        shape=shape,
        parameters=_parameters(model.dtypes, shape),
        dtypes=dict(model.dtypes),
        stored=model.stored,
        weights=weights_of(model, shape, load),
        per_token=per_token,
        load=load,
        proposed=tuple(one for one in fits.values() if one is not None),
        too_small=tuple(name for name, one in fits.items() if one is None),
        sure=_sureness(shape, per_token, bool(model.dtypes)),
        doubts=found,
        host=HOST_BYTES,
    )


def _checked(shape: Shape, load: Load) -> Load:
    """Return the load with its context filled in; raises ``BadInput`` for one that the model cannot have."""
    longest = shape.longest
    context = load.context or min(longest or USUAL_CONTEXT, USUAL_CONTEXT)
    if longest is not None and context > longest:
        raise BadInput(
            f"The model reads at most {longest:,} tokens, not {context:,}.", remedy=f"Ask for --context {longest}."
        )
    if load.quantization and shape.quantized:
        raise BadInput(f"The weights are quantised already ({shape.quantized}).", remedy="Leave out --quantization.")
    return load.model_copy(update={"context": context})


def _parameters(dtypes: Mapping[str, int], shape: Shape) -> int | None:
    """Return the parameters; packed ones are several in each element."""
    if not dtypes:
        return None
    method, _, bits = shape.quantized.partition(", ")
    packed = int(bits.split()[0]) if bits else PACKED_BITS.get(method)
    return sum(n * (32 // packed if packed and dtype == "I32" else 1) for dtype, n in dtypes.items())


def _sureness(shape: Shape, per_token: int | None, has_headers: bool) -> Sure:
    if per_token is None or not has_headers or shape.stateful:
        return Sure.ROUGH
    return Sure.FAIR if shape.drafting or shape.windowed else Sure.GOOD
