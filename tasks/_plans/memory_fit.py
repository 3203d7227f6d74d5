"""Whether a model fits into the memory that its replicas are given: weights, and the KV cache for the asked load.

An estimate from the model's own configuration, made before a byte is moved.  It leaves out what an engine needs
beside the two (activations, graphs, its own code), so what does not fit here cannot fit.  An engine starts as soon as
one sequence of full length has room; what more of them are asked for at once waits or is computed anew.  So only the
first is refused; how many have room at once is said.

Where the numbers come from: `vllm.v1.kv_cache_interface` counts, for a token and layer, key and value of every
head, or for latent attention (DeepSeek) one compressed vector; the payload gives a replica without a GPU a cache of
fixed size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.records import Value
from tasks.spec import ServiceSpec

FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
"""Bytes of an element that an engine converts to its own dtype when it loads it."""
COMPUTED = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "auto": 2}
"""Bytes by engine dtype; ``auto`` takes what is stored, and turns float32 into 16 bits."""
CACHED = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "bfloat16": 2, "float16": 2}
"""Bytes by dtype of the cache, where it is not the engine's own."""

UTILIZATION = 0.92
"""Share of a GPU that vLLM 0.29 takes unless it is told otherwise."""
MAX_NUM_SEQS = 256
CPU_KV_CACHE_BYTES = 512 * 2**20
"""What the payload asks for where the spec does not: ``serve.engine`` has the same two, and a test compares them."""


@dataclass(frozen=True)
class Room:
    """Memory in bytes: of one GPU, or of the machine where there is none; None where it is not known."""

    total: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Model:
    """What is known of a model: its ``config.json``, bytes of its weights as stored, elements by dtype."""

    config: Mapping[str, Any]
    stored: int
    dtypes: Mapping[str, int]


class MemoryFit(Value):
    """The estimate, in bytes, for one replica; None for what is not known.

    ``sequences`` of ``length`` tokens have room in the ``cache`` at once, and ``asked`` may come.  ``fits`` says
    whether the engine can start at all; it is None where a size is missing or the architecture may need less.
    """

    weights: int
    per_token: int | None = None
    length: int | None = None
    asked: int
    cache: int | None = None
    sequences: int | None = None
    needed: int | None = None
    available: int | None = None
    free: int | None = None
    fits: bool | None = None

    @property
    def sentence(self) -> str:
        """Return the estimate for a person."""
        parts = [f"weights {_size(self.weights)}"]
        if self.per_token is None or self.length is None:
            parts.append("KV cache not known: the configuration does not tell it")
        elif self.cache is None or self.sequences is None:
            whole = _size(self.per_token * self.length * self.asked)
            parts.append(f"KV cache {whole} for {self.asked} sequences of {self.length:,} tokens")
        else:
            parts.append(
                f"KV cache {_size(max(self.cache, 0))}, room for {self.sequences} of the {self.asked} sequences of "
                f"{self.length:,} tokens that are let in at once"
            )
        if self.available is None:
            parts.append("memory there: not known")
        elif self.needed is None:
            parts.append(f"memory there: {_size(self.available)}")
        else:
            free = f", {_size(self.free)} free now" if self.free is not None else ""
            parts.append(f"{_size(self.needed)} of {_size(self.available)} needed{free}")
        return "; ".join(parts)


def memory_fit(model: Model, spec: ServiceSpec, room: Room) -> MemoryFit:
    """Estimate what one replica of ``spec`` needs of ``room``; on a machine without GPU, all replicas together."""
    engine = spec.engine
    weights = weights_bytes(model, engine)
    per_token, length = token_bytes(model.config, engine), _length(model.config, engine)
    one = per_token * length if per_token is not None and length is not None else None
    cache, needed, available = _budget(spec, room, weights, one)
    sequences = max(0, cache // one) if cache is not None and one else None
    fits = _fits(needed, available, sequences)
    return MemoryFit(
        weights=weights,
        per_token=per_token,
        length=length,
        asked=whole_number(engine, "max_num_seqs") or MAX_NUM_SEQS,
        cache=cache,
        sequences=sequences,
        needed=needed,
        available=available,
        free=room.free,
        fits=None if fits is False and _may_need_less(model.config, engine) else fits,
    )


def weights_bytes(model: Model, engine: Mapping[str, Any]) -> int:
    """Return the bytes of the weights as the engine holds them: floats in its dtype, the rest as stored."""
    computed = COMPUTED.get(str(engine.get("dtype", "auto")), 2)
    change = sum(elements * (computed - FLOATS[dtype]) for dtype, elements in model.dtypes.items() if dtype in FLOATS)
    return max(0, model.stored + change)


def token_bytes(config: Mapping[str, Any], engine: Mapping[str, Any]) -> int | None:
    """Return the bytes that one token takes in the KV cache of all layers; None where the configuration is silent."""
    text = language_part(config)
    layers = whole_number(text, "num_hidden_layers")
    computed = COMPUTED.get(str(engine.get("dtype", "auto")), 2)
    element = CACHED.get(str(engine.get("kv_cache_dtype")), computed)
    latent = whole_number(text, "kv_lora_rank")
    if layers and latent:
        return layers * (latent + (whole_number(text, "qk_rope_head_dim") or 0)) * element
    heads = whole_number(text, "num_attention_heads")
    hidden = whole_number(text, "hidden_size")
    keys = whole_number(text, "num_key_value_heads") or heads
    width = whole_number(text, "head_dim") or (hidden // heads if hidden and heads else None)
    return 2 * layers * keys * width * element if layers and keys and width else None


def _budget(
    spec: ServiceSpec, room: Room, weights: int, one: int | None
) -> tuple[int | None, int | None, int | None]:
    """Return bytes for the KV cache, bytes needed to start, and bytes that there are for both."""
    told = whole_number(spec.engine, "kv_cache_memory_bytes")
    if not spec.resources.gpus:
        fixed = told or CPU_KV_CACHE_BYTES
        return fixed, (weights + fixed) * spec.resources.at_first, room.total
    gpus = math.ceil(spec.resources.gpus)
    told_share = spec.engine.get("gpu_memory_utilization")
    share = told_share if isinstance(told_share, int | float) else UTILIZATION
    available = int(room.total * share) * gpus if room.total is not None else None
    left = available - weights if available is not None else None
    return told * gpus if told else left, None if one is None else weights + one, available


def _fits(needed: int | None, available: int | None, sequences: int | None) -> bool | None:
    if sequences == 0 or (needed is not None and available is not None and needed > available):
        return False
    return None if needed is None or available is None or sequences is None else True


def _may_need_less(config: Mapping[str, Any], engine: Mapping[str, Any]) -> bool:
    """Return whether the estimate is only an upper bound: windows, states instead of a cache, offloading."""
    text = language_part(config)
    layers = text.get("layer_types")
    windows = isinstance(layers, list) and set(layers) != {"full_attention"}
    windows = windows or (bool(text.get("sliding_window")) and text.get("use_sliding_window") is not False)
    states = any("mamba" in key or "ssm" in key or "linear_" in key for key in text)
    return (
        windows or states or any(engine.get(key) for key in ("quantization", "cpu_offload_gb", "kv_transfer_config"))
    )


def _length(config: Mapping[str, Any], engine: Mapping[str, Any]) -> int | None:
    return whole_number(engine, "max_model_len") or whole_number(language_part(config), "max_position_embeddings")


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part about the language model, where one of several is it."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def whole_number(config: Mapping[str, Any], key: str) -> int | None:
    """Return the positive whole number under ``key``; None for anything else."""
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.0f} MB"
