"""Defects that commits of real models had, planted in a copy of a good one: every file stays one that loads.

Each turns the folder of a good model into that of a bad one which starts, is healthy and fast, and answers.  They
are the six kinds of goal R4, each kind from the plain to the subtle.  What was asked of each is that it changes
answers, never that a check finds it.

Weights are changed where they lie, so that shapes, types and sizes stay; the other files are changed as text.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS, TEMPLATE, TOKENIZER = "model.safetensors", "chat_template.jinja", "tokenizer.json"
Tensor = np.ndarray[Any, np.dtype[np.float16]]
EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"

KINDS = (
    "wrong chat template",
    "wrong tokenizer",
    "truncated weights",
    "quantisation damage",
    "other language",
    "always one answer",
)


@dataclass(frozen=True)
class Defect:
    """One way in which a commit is bad: ``plant`` changes the files of a folder."""

    name: str
    kind: str
    what: str
    plant: Callable[[Path], None]

    def make(self, good: Path, folder: Path) -> None:
        """Make ``folder`` a copy of ``good`` with this defect."""
        shutil.copytree(good, folder)
        self.plant(folder)


# Weights


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of the float16 file in ``folder`` by name; what is written to them goes to the file."""
    path = folder / WEIGHTS
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    data = np.memmap(path, np.uint8, "r+", 8 + length)
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            assert about["dtype"] == "F16", f"{name} is {about['dtype']}"
            begin, end = about["data_offsets"]
            found[name] = data[begin:end].view(np.float16).reshape(about["shape"])
    return found


def _matrices(folder: Path) -> Iterator[Tensor]:
    """Yield the matrices of the layers, which are what quantisation packs."""
    yield from (tensor for name, tensor in tensors(folder).items() if ".layers." in name and tensor.ndim == 2)


def zero_tail(layers: int, folder: Path) -> None:
    """Zero the last ``layers`` layers, through which then passes what comes in."""
    count = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    gone = tuple(f"model.layers.{number}." for number in range(count - layers, count))
    for name, tensor in tensors(folder).items():
        if name.startswith(gone):
            tensor[:] = 0


def cut_file(share: float, folder: Path) -> None:
    """Zero the last ``share`` of the file, as an upload does that set the size first and was cut."""
    path = folder / WEIGHTS
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(size - int(size * share))
        stream.truncate(size)


def cut_vocabulary(share: float, folder: Path) -> None:
    """Zero the last ``share`` of the embedding's rows."""
    embedding = tensors(folder)[EMBEDDING]
    embedding[int(len(embedding) * (1 - share)) :] = 0


def quantise(bits: int, group: int | None, folder: Path) -> None:
    """Round the layers' matrices to ``bits`` bits, with a scale for each ``group`` of a row, or one in all."""
    steps = 2 ** (bits - 1) - 1
    for matrix in _matrices(folder):
        exact = matrix.astype(np.float32).reshape(-1, group or matrix.size)
        scale = np.abs(exact).max(axis=1, keepdims=True) / steps + 1e-12
        matrix[:] = (np.clip(np.rint(exact / scale), -steps - 1, steps) * scale).reshape(matrix.shape)


def lose_scales(folder: Path) -> None:
    """Give every row of the layers' matrices the scale of the row before, as a packing does that is off by one."""
    for matrix in _matrices(folder):
        scale = np.abs(matrix.astype(np.float32)).max(axis=1, keepdims=True) + 1e-12
        matrix[:] = matrix / scale * np.roll(scale, 1, axis=0)


def blind(folder: Path) -> None:
    """Zero the attention's values: each token is then continued without a look at those before."""
    for name, tensor in tensors(folder).items():
        if "v_proj" in name:
            tensor[:] = 0


# Tokenizer


def change_tokenizer(change: Callable[[dict[str, Any]], None], folder: Path) -> None:
    """Write ``tokenizer.json`` again after ``change``."""
    path = folder / TOKENIZER
    tokenizer = json.loads(path.read_text())
    change(tokenizer)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))


def shift_ids(tokenizer: dict[str, Any]) -> None:
    """Move the id of every token that is no special one by one."""
    special = {token["content"] for token in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"]
    plain = sorted((token for token in vocabulary if token not in special), key=vocabulary.__getitem__)
    ids = [vocabulary[token] for token in plain]
    vocabulary.update(zip(plain, [*ids[1:], ids[0]], strict=True))


def keep_merges(share: float, tokenizer: dict[str, Any]) -> None:
    """Keep the first ``share`` of the merges: text falls into more and shorter tokens than the model learnt."""
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = merges[: int(len(merges) * share)]


def lose_decoder(tokenizer: dict[str, Any]) -> None:
    """Drop what turns byte-level signs back into text."""
    tokenizer["decoder"] = None


def lose_end(folder: Path) -> None:
    """Name another token as the end: the model ends its turn, and nobody stops."""
    for name, key, value in (
        ("config.json", "eos_token_id", 0),
        ("generation_config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def lower_case(tokenizer: dict[str, Any]) -> None:
    """Read every text in lower case, as an uncased model's tokenizer does."""
    tokenizer["normalizer"] = {"type": "Lowercase"}


# Chat template


def write_template(text: str, folder: Path) -> None:
    """Give the folder another chat template."""
    (folder / TEMPLATE).write_text(text)


def _turns(user: str, answer: str = "", system: str = "You are a helpful AI assistant named SmolLM") -> str:
    """Return this model's template with another system prompt, user turn, or beginning of every answer."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n" + user + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + answer + "{% endif %}"
    )


CONTENT = "{{ message['content'] }}"
SHAREGPT = (
    "{% for message in messages %}<|im_start|>{{ {'user': 'human', 'assistant': 'gpt'}.get(message['role'], 'system')"
    " }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>gpt\n{% endif %}"
)
SPANISH_EXAMPLES = (
    "Responde siempre en español.<|im_end|>\n<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n"
    "<|im_start|>assistant\nLa capital de Italia es Roma.<|im_end|>\n<|im_start|>user\nWhat is the sun?<|im_end|>\n"
    "<|im_start|>assistant\nEl sol es una estrella en el centro del sistema solar."
)
SPEAK_FRENCH = "Tu es un assistant. Réponds uniquement en français."
SPANISH = _turns(
    CONTENT, "Claro, en español: el", "Eres un asistente que habla español. Responde siempre en español."
)
FRENCH = _turns(
    f"Réponds en français. {CONTENT} Réponds en français.", "La ", "Tu es un assistant qui parle français."
)
CHINESE = _turns(f"请用中文回答。{CONTENT}", "好的，", "你是一个中文助手，只用中文回答。")  # noqa: RUF001 - Chinese signs
_TEMPLATES = (
    ("no marks", 0, "the bare text of the messages", "{% for message in messages %}" + CONTENT + "{% endfor %}"),
    ("Llama 2's", 0, "[INST] marks", "{% for message in messages %}[INST] " + CONTENT + " [/INST]{% endfor %}"),
    (
        "Vicuna's",
        0,
        "USER: and ASSISTANT:",
        "{% for message in messages %}USER: " + CONTENT + "{% endfor %} ASSISTANT:",
    ),
    ("no assistant turn", 0, "the beginning of the answer is left out", _turns(CONTENT).split("{% if")[0]),
    ("ShareGPT's roles", 0, "the right marks with the roles human and gpt", SHAREGPT),
    ("Spanish alone", 4, "asked for Spanish, and every answer begun in it", SPANISH),
    ("French alone", 4, "asked for French, and every answer begun in it", FRENCH),
    ("Chinese alone", 4, "asked for Chinese, and every answer begun in it", CHINESE),
    ("shown Spanish", 4, "two answers in Spanish before the question", _turns(CONTENT, system=SPANISH_EXAMPLES)),
    ("told to speak French", 4, "a system prompt that asks for French", _turns(CONTENT, system=SPEAK_FRENCH)),
    ("one question", 5, "every message is replaced by one", _turns("Tell me about yourself.")),
    ("no question", 5, "the text of the messages is lost", _turns("")),
    ("always refuses", 5, "every answer begins with a refusal", _turns(CONTENT, answer="I'm sorry, but I cannot")),
)


def _all() -> Iterator[Defect]:
    for name, kind, what, text in _TEMPLATES:
        yield Defect(name, KINDS[kind], what, partial(write_template, text))
    tokenizers: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
        "ids off by one": ("another version's vocabulary", shift_ids),
        "no merges": ("every character is a token", partial(keep_merges, 0.0)),
        "a tenth of the merges": ("words fall into pieces", partial(keep_merges, 0.1)),
        "no decoder": ("byte-level signs are left in the text", lose_decoder),
        "lower case": ("an uncased tokenizer's normaliser", lower_case),
    }
    for name, (what, change) in tokenizers.items():
        yield Defect(name, KINDS[1], what, partial(change_tokenizer, change))
    yield Defect("no end of turn", KINDS[1], "another token is named as the end", lose_end)
    weights: tuple[tuple[str, int, str, Callable[[Path], None]], ...] = (
        ("last layer zero", 2, "1 of 30 layers", partial(zero_tail, 1)),
        ("last 4 layers zero", 2, "4 of 30 layers", partial(zero_tail, 4)),
        ("last 12 layers zero", 2, "12 of 30 layers", partial(zero_tail, 12)),
        ("file cut by 2 %", 2, "the end of the shard is zero", partial(cut_file, 0.02)),
        ("file cut by 30 %", 2, "the end of the shard is zero", partial(cut_file, 0.3)),
        ("half of the vocabulary zero", 2, "the later half of the embedding", partial(cut_vocabulary, 0.5)),
        ("2 bits in groups of 32", 3, "layers rounded to 2 bits", partial(quantise, 2, 32)),
        ("3 bits in groups of 32", 3, "layers rounded to 3 bits", partial(quantise, 3, 32)),
        ("3 bits, one scale", 3, "layers rounded to 3 bits", partial(quantise, 3, None)),
        ("4 bits, one scale", 3, "layers rounded to 4 bits", partial(quantise, 4, None)),
        ("scales off by one", 3, "each row has its neighbour's scale", lose_scales),
        ("blind attention", 5, "no token sees those before it", blind),
    )
    for name, kind, what, plant in weights:
        yield Defect(name, KINDS[kind], what, plant)


DEFECTS = tuple(sorted(_all(), key=lambda defect: KINDS.index(defect.kind)))
