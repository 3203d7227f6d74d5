"""The policy over a commit's listing: what is mirrored, what is refused, and that refusals name file and rule."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights.hub import HubFile
from tasks._weights.safety import LARGEST_CONFIG, LONGEST_PATH, admit, is_config, refuse_code
from tasks.errors import Refused
from tasks.spec import Limits

SHA256 = "a" * 64


def listing(*paths: str, size: int = 10) -> tuple[HubFile, ...]:
    """Return a listing of these paths."""
    return tuple(HubFile(path=path, size=size, sha256=SHA256) for path in paths)


def test_takes_what_a_server_reads_and_leaves_the_rest() -> None:
    """Weights, configuration, tokenizer, template and licence go along; other formats and pictures stay."""
    taken = {
        "model.safetensors",
        "config.json",
        "tokenizer.model",
        "merges.txt",
        "qwen.tiktoken",
        "chat_template.jinja",
        "README.md",
        "LICENSE.txt",
        "1_Pooling/config.json",
    }
    left = {
        ".gitattributes",
        "onnx/model.onnx",
        "onnx/config.json",
        "original/consolidated.safetensors",
        "deep/model.safetensors",
        "model.gguf",
        "picture.png",
        "pytorch_model.bin",
        "training.log",
    }
    assert {file.path for file in admit(listing(*taken, *left), Limits())} == taken


def test_largest_file_goes_first() -> None:
    """The longest transfer starts first, so that it does not end alone."""
    files = (*listing("config.json"), *listing("model.safetensors", size=99))
    assert [file.path for file in admit(files, Limits())] == ["model.safetensors", "config.json"]


@pytest.mark.parametrize(
    "path",
    [
        "../escape.json",
        "/etc/passwd",
        "a/../../b.json",
        "a//b.json",
        "./a.json",
        "a\\b.json",
        "nul\0.json",
        "line\nbreak.json",
        "right\u202eleft.json",
        "x" * (LONGEST_PATH + 1),
        ".manifest.json",
        "hash",
        "modeling_evil.py",
        "deep/Setup.PY",
        "kernel.so",
        "MODEL.safetensors",
    ],
)
def test_refuses_a_file_by_its_path(path: str) -> None:
    """One such file refuses the commit, and the refusal names it and what to do."""
    with pytest.raises(Refused) as caught:
        admit(listing("model.safetensors", path), Limits())

    assert repr(path[:60])[:-1] in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("path", ["pytorch_model.bin", "model.pt", "a/b.PKL", "x.ckpt"])
def test_refuses_pickles_as_the_only_weights(path: str) -> None:
    """A commit whose weights can run code when loaded is refused, naming one of them."""
    with pytest.raises(Refused, match="can run code") as caught:
        admit(listing("config.json", path), Limits())

    assert path in str(caught.value)


def test_refuses_a_commit_without_weights() -> None:
    """GGUF alone is no model that can be served here."""
    with pytest.raises(Refused, match="safetensors at its top level"):
        admit(listing("config.json", "model.gguf"), Limits())


def test_refuses_beyond_the_limits() -> None:
    """Bytes and files have their limits; what is not mirrored does not count as bytes."""
    files = (*listing("model.safetensors", size=100), *listing("model.gguf", size=10_000))
    assert admit(files, Limits(total_bytes=100, files=2))

    with pytest.raises(Refused, match=r"model\.safetensors"):
        admit(files, Limits(total_bytes=99, files=2))
    with pytest.raises(Refused, match="2 files"):
        admit(files, Limits(total_bytes=100, files=1))


def test_refuses_a_file_without_a_hash_and_an_oversized_configuration() -> None:
    """What cannot be verified, or would not fit memory, is not begun."""
    weights = listing("model.safetensors")
    with pytest.raises(Refused, match="without a hash"):
        admit((*weights, HubFile(path="config.json", size=1)), Limits())
    with pytest.raises(Refused, match="configuration"):
        admit((*weights, *listing("config.json", size=LARGEST_CONFIG + 1)), Limits())


@pytest.mark.parametrize(
    "tree", [{"auto_map": {}}, {"a": [{"auto_map": {"AutoModel": "x--y.Z"}}]}], ids=["top", "nested"]
)
def test_refuses_configuration_that_asks_for_code(tree: object) -> None:
    """`auto_map` anywhere in a configuration refuses the commit."""
    with pytest.raises(Refused, match="auto_map"):
        refuse_code("config.json", json.dumps(tree).encode())


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[" * 100_000], ids=["cut", "bytes", "bomb"])
def test_refuses_configuration_that_is_not_json(data: bytes) -> None:
    """What cannot be judged is refused, a nesting bomb included."""
    with pytest.raises(Refused, match="not JSON"):
        refuse_code("config.json", data)


def test_reads_every_configuration() -> None:
    """Tokenizers and processors name code as well as models do."""
    assert all(is_config(path) for path in ("config.json", "tokenizer_config.json", "preprocessor_config.json"))
    assert not is_config("tokenizer.json")
    refuse_code("config.json", b'{"architectures": ["LlamaForCausalLM"]}')


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=40), max_size=5))
def test_admitted_paths_stay_in_their_folder(paths: list[str]) -> None:
    """Whatever a Hub lists, what is admitted is a relative path of printable parts."""
    try:
        admitted = admit(listing("model.safetensors", *paths), Limits())
    except Refused:
        return
    for file in admitted:
        assert file.path.isprintable()
        assert not {"", ".", ".."} & set(file.path.split("/"))
