"""What a file's path says: whether it can be stored safely, and what kind of file it claims to be.

A path from a Hub becomes a key in a bucket, a file on a node, a word in a log.  So it must mean the same file to
every one of these, on systems that fold upper and lower case or the forms of a character as well.  What is
mirrored has a plain ASCII name: a Cyrillic letter may look like one of ours, and is another.  What stays at the
Hub, such as a picture, may be called anything that can be printed.  A listing tells no symbolic link from a file;
it is known by its content.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator
from enum import StrEnum
from fnmatch import fnmatchcase

from tasks._weights.layout import RESERVED
from tasks.errors import Refused

LONGEST_PATH = 512
"""Bytes of a path; an S3 key holds 1,024, of which a prefix, model and commit need some."""

LONGEST_NAME = 255
"""Bytes of one name in a path, as many as Linux's file systems and NFS take."""

OTHER_FORMATS = frozenset({"onnx", "openvino", "coreml", "metal", "original"})
"""Folders in which repositories keep the same weights for other programs."""

INDEX_SUFFIX = ".safetensors.index.json"

_SHOWN = 60
_WINDOWS = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_UNPLAIN = frozenset('<>:"|?*')
"""ASCII characters that Windows forbids in names, or gives a meaning."""


class Kind(StrEnum):
    """Kinds of files that are mirrored."""

    WEIGHTS = "weights"
    INDEX = "index"
    CONFIG = "config"
    """JSON that an engine reads, and that may name code or hold a chat template."""
    TEMPLATE = "template"
    VOCABULARY = "vocabulary"
    """Tables of a tokenizer: data, whatever their keys are."""
    PAPER = "paper"
    """What people read, and what must go with the weights."""


_PATTERNS = {
    "tokenizer.json": Kind.VOCABULARY,
    "tekken.json": Kind.VOCABULARY,
    "vocab.json": Kind.VOCABULARY,
    "vocab.txt": Kind.VOCABULARY,
    "merges.txt": Kind.VOCABULARY,
    "*.model": Kind.VOCABULARY,
    "tokenizer.model.v*": Kind.VOCABULARY,
    "*.tiktoken": Kind.VOCABULARY,
    "*.jinja": Kind.TEMPLATE,
    "README.md": Kind.PAPER,
    "LICENSE*": Kind.PAPER,
    "NOTICE*": Kind.PAPER,
    # The indexes of pickles, and what a trainer noted for itself.
    "*.index.json": None,
    "trainer_state.json": None,
    "*.json": Kind.CONFIG,
}
"""The first pattern that fits a file's name decides; None is left at the Hub."""

LARGEST = {
    # Real ones are kilobytes; the largest hold a table of added tokens, about 1 MB.
    Kind.CONFIG: 4 * 2**20,
    # The largest of a hundred well-known ones has 17 kB.
    Kind.TEMPLATE: 2**18,
    # A hundred bytes a tensor, and the largest mixtures of experts have some 300,000 tensors: 30 MB.
    Kind.INDEX: 64 * 2**20,
    # A tokenizer.json of 260,000 tokens has 35 MB.
    Kind.VOCABULARY: 64 * 2**20,
    Kind.PAPER: 64 * 2**20,
}
"""Bytes of a file other than weights; what is larger is not what its name says."""


def kind_of(path: str) -> Kind | None:
    """Return what kind of mirrored file this is, or None for one that stays at the Hub.

    Engines read safetensors and their index in the top folder only; deeper ones are other models or formats.
    """
    folder, _, name = path.rpartition("/")
    if folder.split("/", maxsplit=1)[0] in OTHER_FORMATS:
        return None
    if name.endswith(".safetensors"):
        return None if folder else Kind.WEIGHTS
    if name.endswith(INDEX_SUFFIX):
        return None if folder else Kind.INDEX
    return next((kind for pattern, kind in _PATTERNS.items() if fnmatchcase(name, pattern)), None)


def refuse_paths(paths: Collection[str]) -> None:
    """Raise ``Refused`` for the first path that is unsafe, or that some system takes for another one of them."""
    for path in paths:
        if rule := _broken_rule(path):
            raise refusal(path, rule)
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.get(_folded(path))
        if other == path:
            raise refusal(path, "is listed twice")
        if other is not None:
            raise refusal(
                path, f"differs from {shown(other)} only in upper and lower case or the form of a character"
            )
        seen[_folded(path)] = path
    for path in paths:
        for folder in _folders(_folded(path)):
            if folder in seen:
                raise refusal(path, f"lies within {shown(seen[folder])}, which is a file")


def refusal(path: str, rule: str, *, remedy: str = "Choose another commit or repository.") -> Refused:
    """Return the error that says that ``path`` breaks ``rule``, a predicate."""
    return Refused(f"{shown(path)} {rule}.", remedy=remedy)


def shown(name: str) -> str:
    """Return a path or another name from a Hub as a message shows it: escaped, in quotes, 60 characters at most."""
    return ascii(name) if len(name) <= _SHOWN else f"{ascii(name[:_SHOWN])[:-1]}…'"


def _broken_rule(path: str) -> str | None:
    """Return the rule that the path breaks, if any."""
    unplain = not path.isascii() or _UNPLAIN & set(path)
    rules = (
        (not path.isprintable(), "holds characters that cannot be printed"),
        (_bytes(path) > LONGEST_PATH, f"is a path of more than {LONGEST_PATH} bytes"),
        (path.startswith("/"), "is an absolute path"),
        ("\\" in path, "holds a backslash"),
        (_folded(path).split("/")[0] in RESERVED, "is a name that the store keeps for itself"),
        (unplain and kind_of(path), "would be mirrored and holds other characters than plain ASCII ones"),
    )
    broken = next((rule for applies, rule in rules if applies), None)
    return broken or next((rule for name in path.split("/") if (rule := _broken_name(name))), None)


def _broken_name(name: str) -> str | None:
    """Return the rule that one name within a path breaks, if any."""
    rules = (
        (name == "..", "leads out of its folder"),
        (name in {"", "."}, "has an empty segment"),
        (_bytes(name) > LONGEST_NAME, f"has a segment of more than {LONGEST_NAME} bytes"),
        (name.endswith((".", " ")), "has a segment that ends in a dot or a space, which Windows drops"),
        (_WINDOWS.fullmatch(name), "has a segment that names a device on Windows"),
        (_DRIVE.match(name), "has a segment that names a drive on Windows"),
    )
    return next((rule for applies, rule in rules if applies), None)


def _bytes(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


def _folded(path: str) -> str:
    """Return what the path is to a system that ignores case and the forms of characters."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _folders(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in."""
    while path := path.rpartition("/")[0]:
        yield path
