"""Signatures over the files of a commit: the OpenSSF's ``model-signing``, with a key of one's own.

A signature says that the holder of a key vouches for exactly these paths with exactly these sha256 digests; it says
nothing of what else the manifest records.  It is made of digests that are known already, so no byte is read again,
and it is a plain bundle of that package: whoever has the commit's folder checks it without Slipway, by
``model_signing verify key FOLDER --signature FOLDER/.manifest.sig --public_key KEY``, and signs it the same way.
Two signatures of the same files differ, as those of elliptic curves do; what is signed does not.

Git's own files at the top of the folder are left out, as that command does.  Every other file must be signed: a
list of files to ignore that a signature brings along is not obeyed.

The package is driven by its public interface, with a hashing configuration that knows the digests, and one class
of a private module, ``Digest``, without which none can be stated.
"""

import json
import os
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pydantic import SecretStr

from tasks._weights.layout import RESERVED
from tasks.errors import BadInput, IntegrityError, Refused
from tasks.records import Manifest

if TYPE_CHECKING:
    from model_signing import hashing, manifest

_GIT = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
_UNFIT = (
    *(InvalidSignature, UnsupportedAlgorithm),
    *(ValueError, TypeError, LookupError, AttributeError, RecursionError),
)
"""What the package and the libraries below it raise for a file that is not what it should be."""


def sign(manifest: Manifest, key: Path, password: SecretStr | None = None) -> bytes:
    """Return a signature over the files of ``manifest`` by the private ``key``, a PEM file.

    Raises ``BadInput`` for a key that cannot be read, opened with ``password``, or used.
    """
    from model_signing import signing  # noqa: PLC0415 - most of a second that commands without signatures do not pay

    # The package says that it takes text, and hands it to what takes bytes alone.
    secret: Any = password.get_secret_value().encode() if password else None
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key, password=secret)  # type: ignore[no-untyped-call]
    except (OSError, *_UNFIT) as error:
        raise _unusable(key, "private", error) from error
    known = _known(f"{manifest.model}@{manifest.commit}", _signable(manifest))
    with _file_in_memory() as bundle:
        signer.set_hashing_config(known).sign(Path(), bundle)
        return bundle.read_bytes()


def check_signature(manifest: Manifest, signature: bytes | None, public_key: Path) -> None:
    """Make sure that ``signature`` is by the holder of ``public_key``, a PEM file, over the files of ``manifest``.

    Raises ``Refused`` when there is none, ``IntegrityError`` when it is by another key, damaged, or over other
    files, each of which is named, and ``BadInput`` for a key that cannot be read.
    """
    what = f"{manifest.model}@{manifest.commit}"
    if signature is None:
        raise Refused(
            f"{what} carries no signature, and one is demanded.",
            remedy="Delete its folder in the store and mirror it with SLIPWAY_SIGNING__KEY set.",
        )
    signed = _signed_by(public_key, signature, what)
    present = {file.path: file.sha256 for file in manifest.files}
    faults = {
        "missing": signed.keys() - present.keys() - RESERVED,
        "changed": {path for path in signed.keys() & present.keys() if signed[path] != present[path]},
        "not signed": _signable(manifest).keys() - signed.keys(),
    }
    if any(faults.values()):
        raise IntegrityError(
            f"{what} is not what was signed: "
            + "; ".join(f"{fault}: {_named(paths)}" for fault, paths in faults.items() if paths)
            + ".",
            remedy="Delete its folder in the store and mirror it again, or ask whoever signed it.",
        )


def _signed_by(public_key: Path, signature: bytes, what: str) -> dict[str, str]:
    """Return what the holder of the key has signed: sha256 by path.

    What is read here is handed to the package, which compares it with what it has verified.
    """
    from model_signing import verifying  # noqa: PLC0415 - most of a second

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)  # type: ignore[no-untyped-call]
    except (OSError, *_UNFIT) as error:
        raise _unusable(public_key, "public", error) from error
    try:
        signed = _read(signature)
        with _file_in_memory(signature) as bundle:
            verifier.set_hashing_config(_known(what, signed)).verify(Path(), bundle)
    except _UNFIT as error:
        raise IntegrityError(
            f"The signature of {what} is damaged, or not by the key in {public_key}.",
            remedy="Check that it is the right key; if so, do not use these files.",
        ) from error
    return signed


def _read(signature: bytes) -> dict[str, str]:
    """Return what a bundle claims to sign; its layout is that of Sigstore, DSSE and in-toto."""
    bundle = json.loads(signature)
    if not bundle["verificationMaterial"]["publicKey"]["hint"]:
        raise ValueError("it names no key")  # the package takes these, and prints that they are old
    statement = json.loads(b64decode(bundle["dsseEnvelope"]["payload"]))
    return {resource["name"]: resource["digest"] for resource in statement["predicate"]["resources"]}


def _known(name: str, digests: Mapping[str, str]) -> "hashing.Config":
    """Return a configuration that states ``digests`` (sha256 by path) where others hash files."""
    from model_signing import hashing, manifest  # noqa: PLC0415 - most of a second
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415

    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": sorted(_GIT | RESERVED)}

    class Known(hashing.Config):
        def hash(self, *_: object, **__: object) -> "manifest.Manifest":
            items = [
                manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest("sha256", bytes.fromhex(digest)))
                for path, digest in digests.items()
            ]
            return manifest.Manifest(name, items, manifest.SerializationType.from_args(how))

    return Known()  # type: ignore[no-untyped-call]


def _signable(manifest: Manifest) -> dict[str, str]:
    """Return sha256 by path of all files but Git's own."""
    return {file.path: file.sha256 for file in manifest.files if file.path.split("/", 1)[0] not in _GIT}


def _named(paths: Iterable[str]) -> str:
    return ", ".join(repr(path) for path in sorted(paths))


def _unusable(key: Path, kind: str, error: Exception) -> BadInput:
    why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else f"is no {kind} key that can be used"
    return BadInput(
        f"{key} {why}.",
        remedy=f"Name a PEM file with a {kind} key on the curve P-256, P-384 or P-521"
        + (", and set SLIPWAY_SIGNING__PASSWORD if it has a password." if kind == "private" else "."),
    )


@contextmanager
def _file_in_memory(data: bytes = b"") -> Iterator[Path]:
    """Yield the path of a file without a disk: the package reads and writes files only."""
    with os.fdopen(os.memfd_create("signature"), "wb") as file:
        file.write(data)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")
