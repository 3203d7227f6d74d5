"""Which files of a commit are mirrored, and which commits are refused, judged before the first large byte.

Nothing from a Hub is trusted.  What is mirrored is a short list of kinds that a server needs and that hold data
only; everything else stays at the Hub.  Code is never mirrored, and a repository that carries any is refused,
not stripped: its model needs that code or hides it, and either is for a person to look at.  Pickles beside
safetensors stay at the Hub; alone, they refuse the commit.  Every refusal names the file and the rule.

This module judges the listing; ``headers`` and ``contents`` judge the first bytes and the small files.
"""

from tasks._weights.contents import is_small_judged
from tasks._weights.headers import SMALLEST_FILE
from tasks._weights.hub import HubFile
from tasks._weights.names import LARGEST, Kind, kind_of, refusal, refuse_paths, shown
from tasks.errors import Refused
from tasks.spec import Limits

PICKLES = frozenset({"bin", "pt", "pth", "pkl", "pickle", "ckpt", "joblib", "npy", "npz"})
"""Kinds whose loading can run code, by suffix."""

PYTHON = frozenset({"py", "pyc", "pyo", "pyd", "pyx", "pyz", "pyw", "whl"})
PROGRAMS = frozenset({"so", "dll", "dylib", "exe", "msi", "jar", "wasm", "cubin"})
SCRIPTS = frozenset({"sh", "bash", "bat", "cmd", "ps1"})
CODE = PYTHON | PROGRAMS | SCRIPTS
"""Kinds that are code, by suffix."""

MOST_JUDGED = 128 * 2**20
"""Bytes of all small files together that are read before the first large one; an index and some configurations."""

_LIMITS_REMEDY = "Raise `limits` in the spec if this is meant."


def admit(files: tuple[HubFile, ...], limits: Limits) -> tuple[HubFile, ...]:
    """Return the files to mirror, largest first; raises ``Refused`` for a listing that breaks a rule.

    ``limits.files`` counts all files listed, ``limits.total_bytes`` the bytes of those to mirror.
    """
    if len(files) > limits.files:
        raise Refused(
            f"The commit has {len(files):,} files, more than the {limits.files:,} allowed.",
            remedy=_LIMITS_REMEDY,
        )
    refuse_paths([file.path for file in files])
    for file in files:
        if _suffix(file.path) in CODE:
            raise refusal(file.path, "is code, and code from a Hub is never run")
    kinds = {file: kind for file in files if (kind := kind_of(file.path))}
    _refuse_other_weights(files, kinds)
    for file, kind in kinds.items():
        _refuse_declaration(file, kind)
    wanted = tuple(sorted(kinds, key=lambda file: (-file.size, file.path)))
    _refuse_much_to_read(wanted)
    total = sum(file.size for file in wanted)
    if total > limits.total_bytes:
        raise Refused(
            f"The commit holds {total:,} bytes, more than the {limits.total_bytes:,} allowed; "
            f"the largest file is {shown(wanted[0].path)}.",
            remedy=_LIMITS_REMEDY,
        )
    return wanted


def refuse_licence(licence: str | None, allowed: tuple[str, ...]) -> None:
    """Raise ``Refused`` when ``licence``, as the Hub writes it, is not one of ``allowed``; empty allows any.

    With a list, a model that declares no licence is refused: nothing says that it may be used.
    """
    if not allowed or (licence is not None and licence.lower() in allowed):
        return
    found = "declares no licence" if licence is None else f"has the licence {shown(licence)}"
    raise Refused(
        f"The model {found}, and the spec allows {', '.join(allowed)} only.",
        remedy="Choose another model, or add its licence to `limits.licences` in the spec.",
    )


def _suffix(path: str) -> str:
    """Return what follows the last dot, lower-case; a library's version (``.so.1``) does not count."""
    name = path.lower().rpartition("/")[2].rstrip("0123456789.")
    return name.rpartition(".")[2] if "." in name else ""


def _refuse_other_weights(files: tuple[HubFile, ...], kinds: dict[HubFile, Kind]) -> None:
    """Raise ``Refused`` for a commit without weights that may be loaded."""
    if Kind.WEIGHTS in kinds.values():
        return
    pickled = next((file.path for file in files if _suffix(file.path) in PICKLES), None)
    if pickled is not None:
        raise refusal(pickled, "can run code when loaded, and the commit has no safetensors instead")
    raise Refused(
        "The commit has no *.safetensors at its top level.",
        remedy="Choose a repository with safetensors weights.",
    )


def _refuse_declaration(file: HubFile, kind: Kind) -> None:
    """Raise ``Refused`` for a file whose size or hash cannot be those of its kind."""
    least = SMALLEST_FILE if kind is Kind.WEIGHTS else 0
    if file.size < least:
        raise refusal(file.path, f"is declared with {file.size:,} bytes, and {kind} have {least} at least")
    if kind is Kind.WEIGHTS and file.sha256 is None:
        raise refusal(file.path, "is declared without a sha256, as a git-lfs pointer served for weights would be")
    if file.sha256 is None and file.git_sha1 is None:
        raise refusal(file.path, "is declared without a hash")
    if file.size > LARGEST.get(kind, file.size):
        raise refusal(file.path, f"has {file.size:,} bytes, and a {kind} has {LARGEST[kind]:,} at most")


def _refuse_much_to_read(wanted: tuple[HubFile, ...]) -> None:
    """Raise ``Refused`` for small files that are too many to be held in memory; the largest of them is named."""
    small = [file for file in wanted if is_small_judged(file)]
    total = sum(file.size for file in small)
    if total > MOST_JUDGED:
        raise refusal(
            small[0].path,
            f"and {len(small) - 1:,} more files to be read whole have {total:,} bytes together, "
            f"and {MOST_JUDGED:,} is the most",
        )
