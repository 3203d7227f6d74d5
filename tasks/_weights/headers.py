"""The header of a safetensors file, judged before the bytes behind it are fetched.

The format, as its README and its reference implementation have it (safetensors 0.8, ``tensor.rs``): eight bytes,
the length N of the header, little-endian; N bytes of JSON that begin with ``{`` and may end in spaces; then the
tensors' data.  The JSON gives each tensor a dtype, a shape and the offsets of its data; ``__metadata__`` maps
strings to strings.  The data is covered by the tensors from its first byte to its last, without holes or overlaps,
which leaves no room for a second file inside (``Metadata::validate``).

What the reference lets pass and is refused here: keys that occur twice, which two readers may read in two ways;
keys that the format does not know; numbers of tensors and dimensions that no model has.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import cast

from tasks._weights.json_text import parse_unique
from tasks._weights.names import refusal, shown
from tasks.errors import Refused

LENGTH_BYTES = 8
"""Bytes before the header, which hold its length."""

SMALLEST_FILE = LENGTH_BYTES + len("{}")
"""Bytes of a file without a tensor."""

LARGEST_HEADER = 25_000_000
"""Bytes of a header: what huggingface_hub reads (``SAFETENSORS_MAX_HEADER_LENGTH``), a quarter of what the format
allows; a hundred bytes a tensor make 250,000 tensors in one file."""

MOST_TENSORS = 200_000
"""Tensors in one file; the largest mixtures of experts have some 300,000 in a hundred files."""

MOST_DIMENSIONS = 64
"""Dimensions of a tensor, as many as NumPy has."""

MOST_ELEMENTS = 2**63 - 1
"""Elements of a tensor, counted without its empty dimensions; more cannot be counted in the engines' integers."""

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of an element by dtype; all that safetensors 0.8 knows."""

METADATA = "__metadata__"

_LONGEST_LINK = 4096
"""Bytes of the longest path that Linux takes, and so of the longest symbolic link."""

_FOREIGN = (
    (re.compile(rb"PK[\x03\x05\x07]"), "a zip archive, as PyTorch writes pickles"),
    (re.compile(rb"\x80[\x00-\x05]"), "a pickle"),
    (re.compile(rb"\(?[dl]p0?|[(c][\w.]+\n|[\]}]q\x00|\([SVIFL]"), "a pickle"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf"), "a compressed file"),
    (re.compile(rb"GG[UM][FL]"), "a GGUF file"),
    (re.compile(rb"\x7fELF|MZ"), "a program"),
    (re.compile(rb"\x93NUMPY|\x89HDF"), "an array of NumPy or HDF5"),
    (re.compile(rb"version "), "a git-lfs pointer in place of the file"),
    (re.compile(rb"\s*<"), "a page of HTML or XML"),
    (re.compile(rb"\s*[{\[]\s*[\"\]}{\[]"), "JSON without a length before it"),
)
"""How other files begin; looked at only in what cannot be safetensors, whose first byte may be any."""


@dataclass(frozen=True)
class Header:
    """What a file's header declares: its tensors' names, and elements by dtype (``BF16``)."""

    tensors: frozenset[str]
    parameters: dict[str, int]


def header_bytes(path: str, size: int, start: bytes) -> int:
    """Return how many bytes the header takes, counted from the beginning of the file ``path`` of ``size`` bytes.

    ``start`` is the beginning of the file, eight bytes at least.  Raises ``Refused`` for what cannot be
    safetensors and, where it can be told, says what it is instead.
    """
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    opening = start[LENGTH_BYTES : LENGTH_BYTES + 1]
    impossible = len(start) < LENGTH_BYTES or not len("{}") <= length <= size - LENGTH_BYTES
    if (impossible or length > LARGEST_HEADER or opening not in (b"", b"{")) and (what := _foreign(size, start)):
        raise refusal(path, f"is not safetensors but {what}")
    if impossible:
        raise refusal(path, f"claims a header of {length:,} bytes and has {size:,} bytes in all")
    if length > LARGEST_HEADER:
        raise refusal(path, f"claims a header of {length:,} bytes, and {LARGEST_HEADER:,} is the most")
    if opening not in (b"", b"{"):
        raise refusal(path, "has a header that does not begin with `{`")
    return LENGTH_BYTES + length


def read_header(path: str, size: int, header: bytes) -> Header:
    """Read the first ``header_bytes`` bytes of the file ``path`` of ``size`` bytes.

    Raises ``Refused`` unless the tensors are such as the format and this module's limits allow, and their data
    ends where the file does.
    """
    length = header_bytes(path, size, header)
    if len(header) != length:
        raise refusal(path, f"ended after {len(header):,} bytes of its header of {length:,}")
    # An object, for it begins with a brace.
    tree = cast("dict[str, object]", parse_unique(path, header[LENGTH_BYTES:], part="has a header that "))
    _refuse_metadata(path, tree.pop(METADATA, None))
    if len(tree) > MOST_TENSORS:
        raise refusal(path, f"has {len(tree):,} tensors, and {MOST_TENSORS:,} is the most")
    parameters: Counter[str] = Counter()
    spans: list[tuple[int, int, str]] = []
    for name, tensor in tree.items():
        dtype, elements, begin, end = _tensor(path, name, tensor)
        parameters[dtype] += elements
        spans.append((begin, end, name))
    _refuse_gaps(path, size - length, spans)
    return Header(tensors=frozenset(tree), parameters=dict(parameters))


def _foreign(size: int, start: bytes) -> str:
    """Return what a file that begins like this is, or nothing where it cannot be told."""
    if found := next((what for pattern, what in _FOREIGN if pattern.match(start)), None):
        return found
    printable = start.isascii() and start.decode("ascii").isprintable()
    return "text, such as a symbolic link holds" if size <= _LONGEST_LINK and printable else ""


def _refuse_metadata(path: str, metadata: object) -> None:
    if metadata is None or (isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())):
        return
    raise refusal(path, f"has a `{METADATA}` that does not map strings to strings")


def _tensor(path: str, name: str, tensor: object) -> tuple[str, int, int, int]:
    """Return dtype, number of elements, and first and last offset of one tensor, as far as it agrees with itself."""
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if not rest:
            pass
        case _:
            raise _bad_tensor(path, name, "is not declared by dtype, shape and two offsets alone")
    if dtype not in BITS:
        raise _bad_tensor(path, name, f"has the dtype {shown(dtype)}, which safetensors does not know")
    if not all(type(number) is int and 0 <= number <= MOST_ELEMENTS for number in (*shape, begin, end)):
        raise _bad_tensor(path, name, "has a shape or an offset that is no natural number of 63 bits")
    if len(shape) > MOST_DIMENSIONS:
        raise _bad_tensor(path, name, f"has {len(shape):,} dimensions, and {MOST_DIMENSIONS} is the most")
    if math.prod(filter(None, shape)) > MOST_ELEMENTS:
        raise _bad_tensor(path, name, "claims more elements than can be counted in 63 bits")
    elements = math.prod(shape)
    if elements * BITS[dtype] != (end - begin) * 8:
        raise _bad_tensor(path, name, f"has offsets for {end - begin:,} bytes, which do not fit its shape and dtype")
    return dtype, elements, begin, end


def _bad_tensor(path: str, name: str, rule: str) -> Refused:
    return refusal(path, f"declares a tensor {shown(name)} that {rule}")


def _refuse_gaps(path: str, data_bytes: int, spans: list[tuple[int, int, str]]) -> None:
    """Raise ``Refused`` unless the tensors follow one another from the first byte of the data to the last."""
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            raise _bad_tensor(path, name, f"begins at byte {begin:,} of the data and not at {expected:,}")
        expected = end
    if expected != data_bytes:
        raise refusal(path, f"holds {data_bytes:,} bytes of data, of which its header declares {expected:,}")
