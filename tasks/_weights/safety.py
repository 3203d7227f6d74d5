"""Which files of a commit are mirrored, and which commits are refused, judged before the first large byte.

Nothing from a Hub is trusted.  What is mirrored is a short list of kinds that a server needs and that hold data
only; everything else stays at the Hub.  Code is never mirrored, and a repository that carries any is refused,
not stripped: its model needs that code or hides it, and either is for a person to look at.  Every refusal names
the file and the rule.
"""

import json
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tasks._weights.hub import HubFile
from tasks.errors import Refused
from tasks.spec import Limits

RESERVED = frozenset({".manifest.json", "hash"})
"""Names that a commit's folder in the store uses itself; `hash` is what Ray Serve's own mirror reads."""

MIRRORED = (
    "*.json",
    "*.model",
    "merges.txt",
    "vocab.txt",
    "*.tiktoken",
    "*.jinja",
    "README.md",
    "LICENSE*",
    "NOTICE*",
)
"""Kinds a server reads besides weights, and the papers that must go with them."""

OTHER_FORMATS = frozenset({"onnx", "openvino", "coreml", "metal", "original"})
"""Folders in which repositories keep the same weights for other programs."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
"""Kinds whose loading can run code."""

LONGEST_PATH = 512
"""Bytes of a path; an S3 key holds 1,024, of which a prefix, model and commit need some."""

LARGEST_CONFIG = 4 * 2**20
"""Bytes of a configuration file; real ones are a few kilobytes."""


def admit(files: tuple[HubFile, ...], limits: Limits) -> tuple[HubFile, ...]:
    """Return the files to mirror, largest first; raises ``Refused`` for a listing that breaks a rule.

    ``limits.files`` counts all files listed, ``limits.total_bytes`` the bytes of those to mirror.
    """
    if len(files) > limits.files:
        raise Refused(
            f"The commit has {len(files):,} files, more than the {limits.files:,} allowed.",
            remedy=_LIMITS_REMEDY,
        )
    seen: dict[str, str] = {}
    for file in files:
        _refuse_path(file.path)
        if other := seen.get(file.path.casefold()):
            raise _refused(file.path, f"differs from {other!r} by upper and lower case only")
        seen[file.path.casefold()] = file.path
        if file.path.lower().endswith((".py", ".pyc", ".so")):
            raise _refused(file.path, "is code, and code from a Hub is never run")
    wanted = tuple(sorted((f for f in files if _is_mirrored(f.path)), key=lambda f: (-f.size, f.path)))
    _refuse_weights(files, wanted)
    for file in wanted:
        if file.sha256 is None and file.git_sha1 is None:
            raise _refused(file.path, "is declared without a hash")
        if is_config(file.path) and file.size > LARGEST_CONFIG:
            raise _refused(file.path, f"is a configuration of {file.size:,} bytes")
    total = sum(file.size for file in wanted)
    if total > limits.total_bytes:
        raise Refused(
            f"The commit holds {total:,} bytes, more than the {limits.total_bytes:,} allowed; "
            f"the largest file is {wanted[0].path}.",
            remedy=_LIMITS_REMEDY,
        )
    return wanted


def is_config(path: str) -> bool:
    """Say whether the file may name code to load, and so is read before anything large."""
    return path.endswith("config.json")


def refuse_code(path: str, data: bytes) -> None:
    """Raise ``Refused`` when the configuration file ``path``, which holds ``data``, asks for code (``auto_map``)."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refused(path, "is not JSON") from error
    if _has_key(tree, "auto_map"):
        raise _refused(path, "asks for code by `auto_map`, and code from a Hub is never run")


_LIMITS_REMEDY = "Raise `limits` in the spec if this is meant."


def _refused(path: str, rule: str) -> Refused:
    return Refused(f"{path!r} {rule}.", remedy="Choose another commit or repository.")


def _refuse_path(path: str) -> None:
    if len(path.encode()) > LONGEST_PATH:
        raise _refused(path[:60] + "…", f"is a path of more than {LONGEST_PATH} bytes")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise _refused(path, "leads out of its folder")
    if "\\" in path or not path.isprintable():
        raise _refused(path, "holds characters that a path must not hold")
    if path in RESERVED:
        raise _refused(path, "is a name that the store keeps for itself")


def _is_mirrored(path: str) -> bool:
    if path.split("/", maxsplit=1)[0] in OTHER_FORMATS:
        return False
    return _is_weights(path) or any(fnmatchcase(PurePosixPath(path).name, kind) for kind in MIRRORED)


def _is_weights(path: str) -> bool:
    """Engines read safetensors of the top folder only; deeper ones are other models or other formats."""
    return path.endswith(".safetensors") and "/" not in path


def _refuse_weights(files: tuple[HubFile, ...], wanted: tuple[HubFile, ...]) -> None:
    if any(_is_weights(file.path) for file in wanted):
        return
    pickled = next((f.path for f in files if PurePosixPath(f.path).suffix.lower() in PICKLES), None)
    if pickled is not None:
        raise _refused(pickled, "can run code when loaded, and the commit has no safetensors instead")
    raise Refused(
        "The commit has no *.safetensors at its top level.",
        remedy="Choose a repository with safetensors weights.",
    )


def _has_key(tree: object, key: str) -> bool:
    """Look through ``tree`` without recursion, which a nested file could exhaust."""
    todo: list[object] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if key in node:
                return True
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return False
