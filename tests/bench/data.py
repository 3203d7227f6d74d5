"""The repositories that are moved: random shards in real safetensors files, beside what a model has besides.

Random bytes, because a tool or a store that compresses or deduplicates must gain nothing by it.  They are made once,
published in the embedded Hub's own format under ``.slipway/bench``, and used again while they are whole.  Commit
``c2`` is ``c1`` with one shard replaced by another of the same size, as a retrained model's are.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NotFound
from tasks.local.hub.objects import sha256_of
from tasks.local.hub.publishing import publish
from tasks.local.hub.repositories import blob_path, read_repository, resolve_revision

MIB = 2**20
BLOCK_BYTES = 16 * MIB
C1, C2 = "c1", "c2"


@dataclass(frozen=True)
class Model:
    """A repository: how many shards, each of how many bytes."""

    name: str
    shards: int
    shard_bytes: int

    def shard(self, number: int) -> str:
        """Return the name of the shard ``number``, counted from one."""
        return f"model-{number:05}-of-{self.shards:05}.safetensors"


SMALL = Model("bench/small", 4, 50_000_000)
ONE = Model("bench/one", 4, 256 * MIB)
FOUR = Model("bench/four", 8, 512 * MIB)


@dataclass(frozen=True)
class Content:
    """A file of a commit: ``size`` in bytes, ``sha256`` of them, ``blob`` where the Hub keeps them."""

    path: str
    size: int
    sha256: str
    blob: Path
    large: bool


@dataclass(frozen=True)
class Published:
    """A commit on the Hub's disk."""

    model: str
    ref: str
    commit: str
    files: tuple[Content, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all its files."""
        return sum(file.size for file in self.files)


def provide(root: Path, model: Model) -> tuple[Published, Published]:
    """Return both commits of ``model`` under the Hub's ``root``, made now unless they are there and whole."""
    try:
        return _published(root, model, C1), _published(root, model, C2)
    except (NotFound, KeyError):
        return _make(root, model)


def warm(published: Published) -> None:
    """Read the commit's files once, so that no run waits for the disk below the Hub."""
    buffer = bytearray(BLOCK_BYTES)
    for file in published.files:
        with file.blob.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _make(root: Path, model: Model) -> tuple[Published, Published]:
    folder = root.parent / "making"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _write_papers(folder, model)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda number: _write_shard(folder, model, number), range(1, model.shards + 1)))
        publish(root, model.name, folder, message="first", ref=C1)
        _write_shard(folder, model, model.shards)
        publish(root, model.name, folder, message="second", ref=C2)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _published(root, model, C1), _published(root, model, C2)


def _published(root: Path, model: Model, ref: str) -> Published:
    """Return a commit that is on the disk; raises ``NotFound`` where it, or a byte of it, is missing."""
    record = resolve_revision(root, read_repository(root, model.name), ref)
    files = []
    for file in record.files:
        blob = blob_path(root, file)
        if not blob.is_file() or blob.stat().st_size != file.size:
            raise NotFound(f"{file.path} of {model.name} is not whole.")
        sha256 = file.lfs.sha256 if file.lfs else sha256_of(blob)
        files.append(Content(file.path, file.size, sha256, blob, large=file.lfs is not None))
    if {model.shard(n) for n in range(1, model.shards + 1)} - {f.path for f in files if f.size == model.shard_bytes}:
        raise NotFound(f"{model.name} was made with other sizes.")
    return Published(model.name, ref, record.id, tuple(files))


def _write_shard(folder: Path, model: Model, number: int) -> None:
    """Write one tensor of random bytes, as a safetensors file of exactly the model's shard size."""
    with (folder / model.shard(number)).open("wb") as stream:
        for piece in _safetensors(f"model.layers.{number}.weight", model.shard_bytes):
            stream.write(piece)


def _safetensors(tensor: str, size: int) -> Iterator[bytes]:
    header_bytes = 256  # of which the JSON fills a part, and spaces the rest, as the format allows
    left = size - 8 - header_bytes
    header = {tensor: {"dtype": "BF16", "shape": [left // 2], "data_offsets": [0, left]}}
    yield header_bytes.to_bytes(8, "little") + json.dumps(header).encode().ljust(header_bytes)
    while left:
        piece = os.urandom(min(left, BLOCK_BYTES))
        yield piece
        left -= len(piece)


def _write_papers(folder: Path, model: Model) -> None:
    shards = {f"model.layers.{n}.weight": model.shard(n) for n in range(1, model.shards + 1)}
    papers = {
        "config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"},
        "generation_config.json": {"do_sample": False},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": {str(n): n for n in range(20_000)}}},
        "model.safetensors.index.json": {
            "metadata": {"total_size": model.shards * (model.shard_bytes - 264)},
            "weight_map": shards,
        },
    }
    for name, paper in papers.items():
        (folder / name).write_text(json.dumps(paper))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights, for a benchmark.\n")
