"""How much memory a model takes on each of so many GPUs, and on how many of them it fits: a pure estimate.

Weights and KV cache are computed as ``plan`` does (``tasks._plans.memory_fit``).  What an engine needs beside them is
an allowance, because only the engine itself can measure it:

- activations: the widest step of one layer for the largest batch, and the logits.  Against vLLM's own logs, the
  formula gives 1.28 GiB for Llama 3 8B where it measured 1.26 (vllm-project/vllm#10511).
- CUDA graphs: 20 MiB for each layer, about what vLLM 0.29 reports; they count within its share of the GPU.
- runtime: CUDA's own, and with several GPUs the buffers that they talk through (#10511 has 1.8 GiB).

Ray takes nothing of a GPU; what it takes of the host is in ``HOST_BYTES``.
"""

import math
from collections.abc import Iterator

from tasks._plans.memory_fit import UTILIZATION, Model, token_bytes, weights_bytes
from tasks._sizing.gpus import GIB, Gpu, instance_for
from tasks._sizing.shape import Shape
from tasks.records import Value

MIB = 2**20
GRAPH_BYTES = 20 * MIB
RUNTIME_BYTES, TOGETHER_BYTES = int(0.3 * GIB), int(1.8 * GIB)
MAX_NUM_SEQS = 256
"""Sequences whose logits are there at once: what the payload asks of vLLM."""
SHARDS = (1, 2, 4, 8)
"""GPUs of one node that share each layer: NVLink ends at the node."""
MOST_NODES = 16
ONLINE = {"fp8": 1.0, "bitsandbytes": 0.5}
"""Bytes of an element that the engine makes smaller itself when it loads it; embeddings stay as they are."""

HOST_BYTES = {"ray and the replica": 3 * 10**9, "the engine, for each GPU": 6 * 10**9}
"""Host memory of a replica's pod, as an allowance: Ray's raylet, agent and Serve proxy with the replica, and one
process with CUDA's libraries for each GPU.  Pages of weights that are read count too, and are given back."""


class Load(Value):
    """What is asked of a replica: ``sequences`` at once of ``context`` tokens each, and how numbers are held."""

    context: int
    sequences: int
    quantization: str = ""
    kv_cache_dtype: str = "auto"
    utilization: float = UTILIZATION


class Share(Value):
    """Bytes on one GPU; ``cache`` is for the load that was asked for."""

    weights: int
    cache: int
    activations: int
    graphs: int
    runtime: int

    @property
    def total(self) -> int:
        """Return all of it."""
        return self.fixed + self.cache

    @property
    def fixed(self) -> int:
        """Return what does not depend on the load."""
        return self.weights + self.activations + self.graphs + self.runtime


class Fit(Value):
    """A replica on ``tensor`` times ``pipeline`` GPUs of one kind.

    ``available`` is what the engine may use of each, ``sequences`` how many of the asked length have room at once,
    and ``longest`` the longest that a single one may be.  ``fits`` says whether the load that was asked for does.
    """

    gpu: str
    nominal: str
    tensor: int
    pipeline: int
    share: Share
    available: int
    sequences: int | None
    longest: int | None
    instance: str = ""

    @property
    def gpus(self) -> int:
        """Return how many GPUs a replica takes."""
        return self.tensor * self.pipeline

    @property
    def fits(self) -> bool:
        """Return whether each GPU has room for its share."""
        return self.share.total <= self.available

    @property
    def host(self) -> int:
        """Return the bytes of host memory, over all nodes of a replica."""
        of_ray, of_shard = HOST_BYTES.values()
        return of_ray * self.pipeline + of_shard * self.gpus


def weights_of(model: Model, shape: Shape, load: Load) -> int:
    """Return the bytes of the weights as the engine holds them."""
    held = weights_bytes(model, {})
    smaller = ONLINE.get(load.quantization)
    if smaller is None:
        return held
    elements = sum(model.dtypes.values()) or held // 2
    embeddings = (shape.vocabulary or 0) * (shape.hidden or 0) * (1 if shape.tied else 2)
    return int(2 * embeddings + smaller * max(elements - embeddings, 0))


def cache_per_token(model: Model, load: Load) -> int | None:
    """Return the bytes of one token in the cache of all layers, on all GPUs together that hold it once."""
    return token_bytes(model.config, {"kv_cache_dtype": load.kv_cache_dtype})


def fit(model: Model, shape: Shape, load: Load, gpu: Gpu, tensor: int, pipeline: int) -> Fit:
    """Return how the load fits on so many GPUs."""
    per_token = _token_on_one(model, shape, load, tensor, pipeline)
    share = _share(model, shape, load, gpu, tensor, pipeline, per_token)
    available = int(gpu.memory * load.utilization)
    left = available - share.fixed
    sequences = longest = None
    if per_token:
        sequences = max(0, int(left / (per_token * shape.tokens_kept(load.context))))
        longest = max(0, shape.longest_kept(max(left, 0) / per_token))
    return Fit(
        gpu=gpu.name,
        nominal=gpu.nominal,
        tensor=tensor,
        pipeline=pipeline,
        share=share,
        available=available,
        sequences=sequences,
        longest=longest,
        instance=instance_for(gpu, tensor * pipeline),
    )


def smallest(model: Model, shape: Shape, load: Load, gpu: Gpu) -> Fit | None:
    """Return the fewest GPUs on which the load fits; None where not even ``MOST_NODES`` nodes of eight are enough."""
    tried = (fit(model, shape, load, gpu, tensor, pipeline) for tensor, pipeline in _layouts(shape))
    return next((one for one in tried if one.fits), None)


def _layouts(shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield tensor and pipeline parallelism, the fewest GPUs first: within one node, then over several."""
    possible = [shards for shards in SHARDS if _divides(shape, shards)]
    yield from ((shards, 1) for shards in possible)
    for nodes in range(2, min(MOST_NODES, shape.layers or 1) + 1):
        yield possible[-1], nodes


def _divides(shape: Shape, shards: int) -> bool:
    """Return whether vLLM splits the heads so: evenly, and keys evenly or each of them over several GPUs."""
    heads, keys = shape.heads or shards, shape.kv_heads or shards
    return heads % shards == 0 and (shape.latent or keys % shards == 0 or shards % keys == 0)


def _token_on_one(model: Model, shape: Shape, load: Load, tensor: int, pipeline: int) -> float | None:
    """Return the bytes of one token on one GPU: keys that are fewer than the GPUs are held several times."""
    whole = cache_per_token(model, load)
    if whole is None:
        return None
    held = 1.0 if shape.latent else max(1 / (shape.kv_heads or 1), 1 / tensor)
    return whole * held / _stages(shape, pipeline)


def _stages(shape: Shape, pipeline: int) -> float:
    """Return by what the largest stage of a pipeline is smaller than all layers: they do not always divide."""
    layers = shape.layers or pipeline
    return layers / math.ceil(layers / pipeline)


def _share(
    model: Model, shape: Shape, load: Load, gpu: Gpu, tensor: int, pipeline: int, per_token: float | None
) -> Share:
    stages = _stages(shape, pipeline)
    tokens = shape.tokens_kept(load.context) * load.sequences
    return Share(
        weights=int(weights_of(model, shape, load) / tensor / stages),
        cache=int(per_token * tokens) if per_token else 0,
        activations=_activations(shape, _batched_tokens(gpu)),
        graphs=int(GRAPH_BYTES * (shape.layers or 0) / stages),
        runtime=RUNTIME_BYTES if tensor * pipeline == 1 else TOGETHER_BYTES,
    )


def _activations(shape: Shape, tokens: int) -> int:
    width = 6 * (shape.hidden or 0) + 3 * (shape.intermediate or 0)
    return 2 * tokens * width + 8 * MAX_NUM_SEQS * (shape.vocabulary or 0)


def _batched_tokens(gpu: Gpu) -> int:
    """Return how many tokens vLLM 0.29 computes at once on such a GPU, unless it is told otherwise.

    ``EngineArgs`` asks the memory and whether it is an A100.
    """
    if gpu.memory >= 160 * GIB:
        return 16_384
    return 8_192 if gpu.memory >= 70 * GIB and not gpu.name.startswith("A100") else 2_048
