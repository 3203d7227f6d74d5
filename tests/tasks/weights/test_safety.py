"""The policy over a commit's listing: what is mirrored, what is refused, and that refusals name file and rule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights.hub import HubFile
from tasks._weights.names import LARGEST, Kind
from tasks._weights.safety import MOST_JUDGED, admit, refuse_licence
from tasks.errors import Refused
from tasks.spec import Limits

SHA256 = "a" * 64


def listing(*paths: str, size: int = 10) -> tuple[HubFile, ...]:
    """Return a listing of these paths."""
    return tuple(HubFile(path=path, size=size, sha256=SHA256) for path in paths)


WEIGHTS = listing("model.safetensors")


def test_takes_what_a_server_reads_and_leaves_the_rest() -> None:
    """Weights, configuration, tokenizer, template and licence go along; other formats and pictures stay."""
    taken = {
        "model.safetensors",
        "model.safetensors.index.json",
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
        "pytorch_model.bin.index.json",
        "training.log",
    }
    assert taken == {file.path for file in admit(listing(*taken, *left), Limits())}


def test_largest_file_goes_first() -> None:
    """The longest transfer starts first, so that it does not end alone."""
    files = (*listing("config.json"), *listing("model.safetensors", size=99))
    assert ["model.safetensors", "config.json"] == [file.path for file in admit(files, Limits())]


def test_refuses_an_unsafe_path_even_of_a_file_that_is_not_mirrored() -> None:
    """One such name makes the whole listing suspect."""
    with pytest.raises(Refused, match=r"'\.\./evil\.png' leads out of its folder"):
        admit((*WEIGHTS, *listing("../evil.png")), Limits())


@pytest.mark.parametrize(
    "path", ["modeling_evil.py", "deep/Setup.PY", ".py", "kernel.so", "kernel.so.1.2", "a/x.exe", "run.sh", "x.whl"]
)
def test_refuses_code(path: str) -> None:
    """A commit that carries code needs it or hides it."""
    with pytest.raises(Refused, match="is code") as caught:
        admit((*WEIGHTS, *listing(path)), Limits())

    assert repr(path) in str(caught.value)


@pytest.mark.parametrize("path", ["pytorch_model.bin", "model.pt", "a/b.PKL", "x.ckpt", "x.pth", "x.npy"])
def test_refuses_pickles_as_the_only_weights(path: str) -> None:
    """A commit whose weights can run code when loaded is refused, naming one of them."""
    with pytest.raises(Refused, match="can run code") as caught:
        admit(listing("config.json", path), Limits())

    assert path in str(caught.value)
    assert WEIGHTS == admit((*WEIGHTS, *listing(path)), Limits())


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


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        (HubFile(path="config.json", size=1), "without a hash"),
        (HubFile(path="config.json", size=-1, git_sha1="a" * 40), "declared with -1 bytes"),
        (HubFile(path="shard.safetensors", size=130, git_sha1="a" * 40), "without a sha256"),
        (HubFile(path="shard.safetensors", size=9, sha256=SHA256), "declared with 9 bytes"),
    ],
    ids=["no hash", "negative", "not in lfs", "too small"],
)
def test_refuses_a_declaration_that_cannot_be_true(file: HubFile, rule: str) -> None:
    """What cannot be verified, or cannot be what it is called, is not begun."""
    with pytest.raises(Refused, match=rule):
        admit((*WEIGHTS, file), Limits())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("config.json", Kind.CONFIG),
        ("chat_template.jinja", Kind.TEMPLATE),
        ("model.safetensors.index.json", Kind.INDEX),
        ("tokenizer.json", Kind.VOCABULARY),
        ("README.md", Kind.PAPER),
    ],
)
def test_refuses_a_small_file_that_is_large(path: str, kind: Kind) -> None:
    """Each kind has its own size, beyond which it is not what its name says."""
    assert admit((*WEIGHTS, *listing(path, size=LARGEST[kind])), Limits())

    with pytest.raises(Refused, match=rf"'{path}' has .* bytes, and a {kind} has"):
        admit((*WEIGHTS, *listing(path, size=LARGEST[kind] + 1)), Limits())


def test_refuses_more_small_files_than_can_be_read_whole() -> None:
    """Each within its size, together they would fill the memory of whoever judges them."""
    many = [f"{number}.json" for number in range(1 + MOST_JUDGED // LARGEST[Kind.CONFIG])]

    with pytest.raises(Refused, match=r"'0\.json' and 32 more files"):
        admit((*WEIGHTS, *listing(*many, size=LARGEST[Kind.CONFIG])), Limits())


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=40), st.integers(-1, 2**63)), max_size=5))
def test_a_listing_is_admitted_or_refused(entries: list[tuple[str, int]]) -> None:
    """Whatever a Hub lists, what is admitted is part of it and within the limits."""
    files = (*WEIGHTS, *(HubFile(path=path, size=size, sha256=SHA256) for path, size in entries))
    try:
        admitted = admit(files, Limits())
    except Refused:
        return
    assert set(admitted) <= set(files)
    assert sum(file.size for file in admitted) <= Limits().total_bytes


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [(None, ()), ("other", ()), ("apache-2.0", ("mit", "apache-2.0")), ("Apache-2.0", ("apache-2.0",))],
)
def test_lets_pass_a_licence_of_the_list(licence: str | None, allowed: tuple[str, ...]) -> None:
    """Without a list every licence passes; the Hub's letters may be upper-case."""
    refuse_licence(licence, allowed)


def test_refuses_a_licence_outside_the_list() -> None:
    """The refusal names what was found, which may be nothing, and what is allowed."""
    with pytest.raises(Refused, match=r"has the licence 'cc-by-nc-4\.0', and the spec allows mit, apache-2\.0 only"):
        refuse_licence("cc-by-nc-4.0", ("mit", "apache-2.0"))
    with pytest.raises(Refused, match="declares no licence"):
        refuse_licence(None, ("mit",))
