"""What a model's ``config.json`` says of its memory: how its layers keep what they have read, and how it is stored.

The names of the keys are those of transformers' configurations.  What is not understood is said aloud as a doubt,
never guessed in silence.

Layers that look back over a window only keep that many tokens (Mistral 7B v0.1, Gemma, gpt-oss), those with a state
instead of a cache (Mamba, linear attention) keep none.  Latent attention (DeepSeek's MLA) keeps one compressed
vector, which every GPU of a tensor-parallel group holds whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks._plans.memory_fit import language_part, whole_number
from tasks.records import Value

WINDOWED = frozenset({"sliding_attention", "chunked_attention"})
WHOLE = "full_attention"


class Shape(Value):
    """What matters of a configuration; None for what it does not say.

    Of ``layers``, ``windowed`` keep at most ``window`` tokens and ``stateful`` keep none.  ``quantized`` names how
    the weights are stored, empty where they are plain numbers.
    """

    architecture: str = ""
    layers: int | None = None
    windowed: int = 0
    window: int | None = None
    stateful: int = 0
    heads: int | None = None
    kv_heads: int | None = None
    latent: bool = False
    experts: int | None = None
    experts_at_once: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    vocabulary: int | None = None
    longest: int | None = None
    tied: bool = False
    quantized: str = ""
    drafting: int = 0

    @property
    def kept(self) -> str:
        """Return how it keeps what it has read, in words."""
        if self.layers is None or self.heads is None:
            return "attention not known"
        ways = [self._attention()]
        if self.windowed:
            ways.append(f"{self.windowed} of {self.layers} layers look back {self.window:,} tokens only")
        if self.stateful:
            ways.append(f"{self.stateful} of {self.layers} layers keep a state instead of a cache")
        return ", ".join(ways)

    def _attention(self) -> str:
        if self.latent:
            return "latent attention (MLA)"
        if self.kv_heads == self.heads:
            return f"{self.heads} heads, each with its own keys"
        return f"{self.heads} heads that share {self.kv_heads} of keys (GQA)"

    def tokens_kept(self, length: int) -> float:
        """Return how many tokens a sequence of ``length`` takes in the cache, as a mean over all layers."""
        if not self.layers:
            return float(length)
        plain = self.layers - self.windowed - self.stateful
        return (plain * length + self.windowed * min(length, self.window or length)) / self.layers

    def longest_kept(self, tokens: float) -> int:
        """Return the longest sequence that takes ``tokens`` of the cache at most, by the same mean."""
        longest = self.longest or int(tokens)
        if self.tokens_kept(longest) <= tokens:
            return longest
        plain = (self.layers or 1) - self.windowed - self.stateful
        within = tokens * (self.layers or 1) / max(plain + self.windowed, 1)
        if not self.windowed or within <= (self.window or 0):
            return int(within)
        return int((tokens * (self.layers or 1) - self.windowed * (self.window or 0)) / max(plain, 1))


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Read the shape from a configuration."""
    text = language_part(config)
    layers, heads = whole_number(text, "num_hidden_layers"), whole_number(text, "num_attention_heads")
    windowed, window = _windows(text, layers or 0)
    names = config.get("architectures")
    at_once = whole_number(text, "num_experts_per_tok")
    return Shape(
        architecture=str(names[0]) if isinstance(names, list) and names else str(config.get("model_type", "")),
        layers=layers,
        windowed=windowed,
        window=window,
        stateful=_stateful(text),
        heads=heads,
        kv_heads=whole_number(text, "num_key_value_heads") or heads,
        latent=whole_number(text, "kv_lora_rank") is not None,
        experts=next((n for key in _EXPERTS if (n := whole_number(text, key))), None),
        experts_at_once=at_once,
        hidden=whole_number(text, "hidden_size"),
        intermediate=_intermediate(text, at_once),
        vocabulary=whole_number(text, "vocab_size"),
        longest=whole_number(text, "max_position_embeddings"),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        quantized=_quantized(config),
        drafting=whole_number(text, "num_nextn_predict_layers") or 0,
    )


def doubts(config: Mapping[str, Any], shape: Shape) -> tuple[str, ...]:
    """Return what makes an estimate from this configuration less sure, one sentence each."""
    text = language_part(config)
    said = (
        (shape.layers is None, "The configuration does not tell its layers, so the KV cache is not known."),
        (
            shape.windowed > 0,
            "An engine that mixes windows and whole attention may keep more than the windows: up to all tokens.",
        ),
        (shape.stateful > 0, "States of layers without a cache are not counted; they are small and do not grow."),
        (text is not config, "Only the language model was counted in the cache; what it sees or hears comes to it."),
        (
            shape.drafting > 0,
            "The weights hold layers for speculative decoding, which are loaded only where that is asked for.",
        ),
        (
            shape.latent,
            "Latent attention is held whole by every GPU of a tensor-parallel group, so more of them add no cache.",
        ),
        (
            shape.experts is not None,
            "All experts are in memory, however few of them answer a token; an imbalance is not counted.",
        ),
    )
    return tuple(sentence for holds, sentence in said if holds)


_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")


def _windows(text: Mapping[str, Any], layers: int) -> tuple[int, int | None]:
    """Return how many layers look back over a window, and how long that is."""
    window = whole_number(text, "sliding_window") or whole_number(text, "attention_chunk_size")
    kinds = text.get("layer_types")
    if isinstance(kinds, Sequence) and not isinstance(kinds, str):
        return (sum(kind in WINDOWED for kind in kinds), window) if window else (0, None)
    if window is None or text.get("use_sliding_window") is False:
        return 0, None
    every = whole_number(text, "sliding_window_pattern")
    if every is not None:
        return layers - layers // every, window
    if text.get("model_type") == "gemma2":  # every second layer, by its code
        return layers - layers // 2, window
    before = whole_number(text, "max_window_layers") if text.get("use_sliding_window") else None
    return layers - min(before or 0, layers), window


def _stateful(text: Mapping[str, Any]) -> int:
    kinds = text.get("layer_types")
    if isinstance(kinds, Sequence) and not isinstance(kinds, str):
        return sum(kind not in {*WINDOWED, WHOLE} for kind in kinds)
    return 0


def _intermediate(text: Mapping[str, Any], at_once: int | None) -> int | None:
    """Return the width of the widest layer between two: of all the experts that answer a token together."""
    each = whole_number(text, "moe_intermediate_size")
    plain = whole_number(text, "intermediate_size")
    if each is not None:
        together = each * ((at_once or 1) + (whole_number(text, "n_shared_experts") or 0))
        return max(together, plain or 0)
    return plain * at_once if plain and at_once else plain


def _quantized(config: Mapping[str, Any]) -> str:
    for tree in (config, language_part(config)):
        how = tree.get("quantization_config") or tree.get("compression_config")
        if isinstance(how, Mapping):
            return _named(how)
    return ""


def _named(how: Mapping[str, Any]) -> str:
    method = str(how.get("quant_method") or how.get("quant_algo") or "some way of its own")
    bits = how.get("bits") or how.get("w_bit")
    return f"{method}, {bits} bits" if isinstance(bits, int) else method
