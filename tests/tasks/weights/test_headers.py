"""Headers of safetensors files: what the format allows is read, everything else is refused and named."""

import gzip
import io
import json
import math
import pickle
import zipfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._weights import headers
from tasks._weights.headers import BITS, LARGEST_HEADER, LENGTH_BYTES, Header, header_bytes, read_header
from tasks.errors import Refused

NAME = "model.safetensors"


def encoded(tree: object, *, padding: int = 0) -> bytes:
    """Return a header with its length before it; a string stands for itself."""
    text = (tree if isinstance(tree, str) else json.dumps(tree)).encode() + b" " * padding
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def judged(tree: object, data_bytes: int) -> Header:
    """Read the header of a file with so many bytes of data."""
    header = encoded(tree)
    return read_header(NAME, len(header) + data_bytes, header)


def tensor(dtype: str = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict[str, Any]:
    """Return what a header says of one tensor; of four bytes unless told otherwise."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Return what a correct header holds, its tensors in any order, and the bytes of the data."""
    tree: dict[str, Any] = {"__metadata__": {"format": "pt"}} if draw(st.booleans()) else {}
    names = draw(st.lists(st.text(max_size=8).filter(lambda name: name != "__metadata__"), max_size=5, unique=True))
    offset = 0
    for name in names:
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        if math.prod(shape) * BITS[dtype] % 8:
            shape = [*shape, 4]
        end = offset + math.prod(shape) * BITS[dtype] // 8
        tree[name] = tensor(dtype, shape, [offset, end])
        offset = end
    return dict(draw(st.permutations(list(tree.items())))), offset


@settings(max_examples=30)
@given(trees(), st.integers(0, 9))
def test_reads_every_header_of_the_format(made: tuple[dict[str, Any], int], padding: int) -> None:
    """Names and elements by dtype come back, whatever the order of the tensors and the padding."""
    tree, data_bytes = made
    header = encoded(tree, padding=padding)
    size = len(header) + data_bytes

    assert len(header) == header_bytes(NAME, size, header[:8])
    found = read_header(NAME, size, header)
    tensors = {name: value for name, value in tree.items() if name != "__metadata__"}
    assert set(tensors) == found.tensors
    assert sum(math.prod(value["shape"]) for value in tensors.values()) == sum(found.parameters.values())
    assert {value["dtype"] for value in tensors.values()} == set(found.parameters)


@settings(max_examples=50)
@given(trees(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.integers(-2, 2))
def test_a_damaged_header_is_refused_or_read(
    made: tuple[dict[str, Any], int], damage: list[tuple[int, int]], longer: int
) -> None:
    """No bytes whatsoever raise anything but a refusal."""
    tree, data_bytes = made
    header = bytearray(encoded(tree))
    for place, byte in damage:
        header[place % len(header)] = byte
    size = len(header) + data_bytes + longer
    with suppress(Refused):
        read_header(NAME, size, bytes(header[: header_bytes(NAME, size, header)]))


def zipped() -> bytes:
    """Return a zip archive, as PyTorch saves."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(zipped(), "a zip archive", id="zip"),
        *(pytest.param(pickle.dumps({"a": [1]}, protocol=p), "a pickle", id=f"pickle {p}") for p in range(6)),
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", "a pickle", id="pickle that acts"),
        pytest.param(gzip.compress(b"x" * 50), "a compressed file", id="gzip"),
        pytest.param(b"<!DOCTYPE html><html>not found</html>", "HTML", id="page"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer", id="pointer"
        ),
        pytest.param(b"../../other/model.safetensors", "a symbolic link", id="link"),
        pytest.param(b"GGUF\x03\0\0\0" + b"\0" * 50, "a GGUF file", id="gguf"),
        pytest.param(b"\x7fELF\x02\x01\x01" + b"\0" * 50, "a program", id="elf"),
        pytest.param(b"MZ\x90\0\x03\0\0\0" + b"\0" * 50, "a program", id="exe"),
        pytest.param(b"\x93NUMPY\x01\0" + b"\0" * 50, "NumPy", id="numpy"),
        pytest.param(b'{"error": "Repository not found"}', "JSON", id="error"),
    ],
)
def test_says_what_a_file_is_that_is_called_safetensors(content: bytes, what: str) -> None:
    """A renamed pickle is told by its first bytes, and the refusal says so."""
    with pytest.raises(Refused, match=rf"'model.safetensors' is not safetensors but .*{what}"):
        header_bytes(NAME, len(content), content[:64])


def test_a_length_that_looks_like_a_pickle_is_no_pickle() -> None:
    """A header of 640 bytes begins with the two bytes of a pickle of protocol 2."""
    header = encoded({}, padding=638)

    assert header.startswith(b"\x80\x02")
    assert 648 == header_bytes(NAME, len(header), header)


@pytest.mark.parametrize(
    ("length", "size", "after", "rule"),
    [
        (2**63, 2**40, b"{", r"claims a header of 9,223,372,036,854,775,808 bytes and has"),
        (93, 100, b"{", "claims a header of 93 bytes and has 100 bytes in all"),
        (0, 100, b"{", "claims a header of 0 bytes"),
        (LARGEST_HEADER + 1, 2**40, b"{", "25,000,000 is the most"),
        (10, 100, b" {", "does not begin with `{`"),
    ],
)
def test_refuses_an_impossible_length(length: int, size: int, after: bytes, rule: str) -> None:
    """Nothing is asked for that the file cannot hold or that would fill the memory."""
    with pytest.raises(Refused, match=rule):
        header_bytes(NAME, size, length.to_bytes(8, "little") + after)


def test_the_first_eight_bytes_are_enough() -> None:
    """Nothing but the length is needed to know how much to ask for."""
    assert 92 == header_bytes(NAME, 92, (84).to_bytes(8, "little"))


def test_refuses_a_header_that_was_cut() -> None:
    """Fewer bytes than were asked for are not judged as if they were all."""
    header = encoded({"a": tensor()})
    with pytest.raises(Refused, match="ended after"):
        read_header(NAME, len(header) + 4, header[:-1])


@pytest.mark.parametrize(
    ("tree", "data_bytes", "rule"),
    [
        pytest.param("{]", 0, "header that is not JSON", id="syntax"),
        pytest.param("{" + '"a":{' * 100_000, 0, "nested too deeply", id="bomb"),
        pytest.param('{"a":' + "9" * 5_000 + "}", 0, "not JSON", id="endless number"),
        pytest.param('{"a":1,"a":1}', 0, "key occurs twice", id="twice"),
        pytest.param('{"\\ud800":{"dtype":"NO","shape":[],"data_offsets":[0,0]}}', 0, r"'\\ud800'", id="surrogate"),
        pytest.param({"__metadata__": {"a": 1}}, 0, "does not map strings to strings", id="metadata"),
        pytest.param({"__metadata__": []}, 0, "does not map strings to strings", id="metadata list"),
        pytest.param({"a": []}, 0, "is not declared by", id="no object"),
        pytest.param({"a": {"dtype": "U8", "shape": [0]}}, 0, "is not declared by", id="no offsets"),
        pytest.param({"a": tensor() | {"code": "x"}}, 4, "is not declared by", id="more keys"),
        pytest.param({"a": tensor("F128")}, 4, "dtype 'F128'", id="dtype"),
        pytest.param({"a": tensor(shape=[-4])}, 4, "no natural number", id="negative"),
        pytest.param({"a": tensor(shape=[4.0])}, 4, "no natural number", id="float"),
        pytest.param({"a": tensor(shape=[True, 4])}, 4, "no natural number", id="bool"),
        pytest.param('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', 4, "no natural number", id="nan"),
        pytest.param({"a": tensor(shape=[2**64])}, 4, "no natural number of 63 bits", id="64 bits"),
        pytest.param({"a": tensor(shape=[1] * 65)}, 4, "65 dimensions", id="dimensions"),
        pytest.param({"a": tensor(shape=[2**32, 2**32])}, 4, "more elements than", id="overflow"),
        pytest.param({"a": tensor(shape=[0, 2**32, 2**32])}, 4, "more elements than", id="overflow times zero"),
        pytest.param({"a": tensor(shape=[5])}, 4, "do not fit its shape", id="shape"),
        pytest.param({"a": tensor("F6_E2M3", [1], [0, 1])}, 1, "do not fit its shape", id="part of a byte"),
        pytest.param({"a": tensor(offsets=[4, 0])}, 4, "do not fit its shape", id="backwards"),
        pytest.param({"a": tensor(offsets=[-4, 0])}, 4, "no natural number", id="before"),
        pytest.param({"a": tensor(offsets=[0, 4, 8])}, 4, "is not declared by", id="three offsets"),
        pytest.param({"a": tensor(offsets=[1, 5])}, 5, "begins at byte 1 of the data and not at 0", id="hole"),
        pytest.param({"a": tensor(), "b": tensor()}, 4, "begins at byte 0 of the data and not at 4", id="overlap"),
        pytest.param({"a": tensor()}, 3, "holds 3 bytes of data, of which its header declares 4", id="truncated"),
        pytest.param({"a": tensor()}, 5, "holds 5 bytes of data, of which its header declares 4", id="hidden bytes"),
    ],
)
def test_refuses_what_the_format_forbids(tree: object, data_bytes: int, rule: str) -> None:
    """The refusal names the file, the tensor and the rule."""
    with pytest.raises(Refused, match=rule) as caught:
        judged(tree, data_bytes)

    assert repr(NAME) in str(caught.value)


def test_refuses_more_tensors_than_any_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty tensors cost a header nothing, and an engine an object each."""
    monkeypatch.setattr(headers, "MOST_TENSORS", 2)
    with pytest.raises(Refused, match="3 tensors, and 2 is the most"):
        judged({str(number): tensor(shape=[0], offsets=[0, 0]) for number in range(3)}, 0)


def test_counts_elements_of_less_than_a_byte() -> None:
    """Two elements of four bits share a byte, and a scalar has one element."""
    found = judged({"a": tensor("F4", [2, 4], [0, 4]), "b": tensor("BF16", [], [4, 6])}, 6)

    assert {"F4": 8, "BF16": 1} == found.parameters
