"""Signatures: of and for the stock command, over every file, by one key."""

import hashlib
import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as formats
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import SecretStr

from tasks._weights.layout import MANIFEST, SIGNATURE
from tasks._weights.signatures import check_signature, sign
from tasks.errors import BadInput, IntegrityError, Refused
from tasks.records import FileEntry, Manifest

COMMIT = "c0ffee" + "0" * 34
PASSWORD = SecretStr("CANARY of a password")


@dataclass(frozen=True)
class Pair:
    """The files of a key: private, private under ``PASSWORD``, and public."""

    private: Path
    locked: Path
    public: Path


def write_pair(folder: Path, curve: ec.EllipticCurve) -> Pair:
    """Make a key and write it down."""
    key = ec.generate_private_key(curve)
    pair = Pair(folder / "private.pem", folder / "locked.pem", folder / "public.pem")
    how = (formats.Encoding.PEM, formats.PrivateFormat.PKCS8)
    pair.private.write_bytes(key.private_bytes(*how, formats.NoEncryption()))
    under = formats.BestAvailableEncryption(PASSWORD.get_secret_value().encode())
    pair.locked.write_bytes(key.private_bytes(*how, under))
    pair.public.write_bytes(
        key.public_key().public_bytes(formats.Encoding.PEM, formats.PublicFormat.SubjectPublicKeyInfo)
    )
    return pair


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return our key."""
    return write_pair(tmp_path_factory.mktemp("keys"), ec.SECP256R1())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a small commit, with files of Git's own."""
    commit = tmp_path / COMMIT
    files = ("model.safetensors", "config.json", "tokenizer/config.json", ".gitattributes", ".github/labels.json")
    for name in files:
        (commit / name).parent.mkdir(parents=True, exist_ok=True)
        (commit / name).write_text(f"This is {name}.")
    return commit


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """Return its manifest."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return of({str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})


def of(digests: dict[str, str]) -> Manifest:
    """Return a manifest of files with these digests."""
    files = tuple(FileEntry(path=path, size=1, sha256=digest) for path, digest in digests.items())
    return Manifest(model="acme/tiny", commit=COMMIT, source="test", created_at=datetime.now(UTC), files=files)


def digests(manifest: Manifest) -> dict[str, str]:
    """Return its files' digests by path."""
    return {file.path: file.sha256 for file in manifest.files}


def statement(signature: bytes) -> Any:
    """Return what was signed."""
    return json.loads(b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))


def stock(command: str, folder: Path, key: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the package's own command on a folder with its signature in it."""
    named = (
        "--signature",
        str(folder / SIGNATURE),
        "--private_key" if command == "sign" else "--public_key",
        str(key),
    )
    arguments = (command, "key", str(folder), *named, *options)
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def publish(folder: Path, manifest: Manifest) -> None:
    """Write what a store's folder holds besides a commit's files."""
    (folder / MANIFEST).write_bytes(manifest.to_json())
    (folder / "hash").write_text(COMMIT)


@pytest.mark.slow
def test_the_stock_command_accepts_what_is_signed_here(folder: Path, manifest: Manifest, keys: Pair) -> None:
    """Whoever has the folder checks it without Slipway, and sees a changed file."""
    publish(folder, manifest)
    (folder / SIGNATURE).write_bytes(sign(manifest, keys.private))

    whole = stock("verify", folder, keys.public)
    (folder / "config.json").write_text("changed")
    changed = stock("verify", folder, keys.public)

    assert (0, "Verification succeeded\n") == (whole.returncode, whole.stdout), whole.stderr
    assert 1 == changed.returncode
    assert "Hash mismatch for 'config.json'" in changed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("leaves_ours_out", [True, False])
def test_what_the_stock_command_signs_is_accepted_here(
    leaves_ours_out: bool, folder: Path, manifest: Manifest, keys: Pair
) -> None:
    """A person may sign a published folder by hand, with or without the names that the store keeps for itself."""
    publish(folder, manifest)
    ours = [f"--ignore-paths={folder / name}" for name in (MANIFEST, "hash")] if leaves_ours_out else []

    assert 0 == stock("sign", folder, keys.private, *ours).returncode
    check_signature(manifest, (folder / SIGNATURE).read_bytes(), keys.public)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_a_key_may_have_a_password_and_another_curve(
    curve: ec.EllipticCurve, tmp_path: Path, manifest: Manifest
) -> None:
    """What the locked key signs, its public key accepts."""
    pair = write_pair(tmp_path, curve)

    check_signature(manifest, sign(manifest, pair.locked, PASSWORD), pair.public)


def test_the_same_files_are_signed_the_same_way(manifest: Manifest, keys: Pair) -> None:
    """Whatever the order of the manifest; the files are named in their own order, Git's are left out."""
    turned = manifest.model_copy(update={"files": manifest.files[::-1]})

    first, second = (statement(sign(m, keys.private)) for m in (manifest, turned))

    assert first == second
    assert f"acme/tiny@{COMMIT}" == first["subject"][0]["name"]
    signed = [resource["name"] for resource in first["predicate"]["resources"]]
    assert ["config.json", "model.safetensors", "tokenizer/config.json"] == signed


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"config.json": "0" * 64}, "changed: 'config.json'"),
        ({"config.json": None}, "missing: 'config.json'"),
        ({"more.json": "0" * 64}, "not signed: 'more.json'"),
        ({"config.json": None, "more.json": "0" * 64}, "missing: 'config.json'; not signed: 'more.json'"),
    ],
)
def test_what_differs_from_the_signed_files_is_named(
    change: dict[str, str | None], fault: str, manifest: Manifest, keys: Pair
) -> None:
    """A signature holds for exactly its files."""
    other = of({path: digest for path, digest in (digests(manifest) | change).items() if digest})

    with pytest.raises(IntegrityError, match=f"is not what was signed: {fault}\\."):
        check_signature(other, sign(manifest, keys.private), keys.public)


def test_files_that_a_signature_would_have_ignored_must_be_signed(
    folder: Path, manifest: Manifest, keys: Pair
) -> None:
    """The package obeys the signer's list of files to ignore; weights must not slip through it."""
    from model_signing import hashing, signing  # noqa: PLC0415 - most of a second

    partly = hashing.Config().set_ignored_paths(paths=["model.safetensors", SIGNATURE])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys.private)
    signer.set_hashing_config(partly).sign(folder, folder / SIGNATURE)

    with pytest.raises(IntegrityError, match=r"not signed: 'model\.safetensors'"):
        check_signature(manifest, (folder / SIGNATURE).read_bytes(), keys.public)


def test_a_commit_without_a_signature_is_refused(manifest: Manifest, keys: Pair) -> None:
    """Where one is demanded, none is not good enough."""
    with pytest.raises(Refused, match="carries no signature"):
        check_signature(manifest, None, keys.public)


def test_another_key_signs_in_vain(tmp_path: Path, manifest: Manifest, keys: Pair) -> None:
    """Neither openly nor under our key's name."""
    theirs = json.loads(sign(manifest, write_pair(tmp_path, ec.SECP256R1()).private))
    ours = json.loads(sign(manifest, keys.private))
    forged = theirs | {"verificationMaterial": ours["verificationMaterial"]}

    for bundle in (theirs, forged):
        with pytest.raises(IntegrityError, match=r"damaged, or not by the key in .*public\.pem"):
            check_signature(manifest, json.dumps(bundle).encode(), keys.public)


def leave_a_file_out(bundle: Any) -> None:
    """Replace what was signed, in place."""
    told = statement(json.dumps(bundle).encode())
    told["predicate"]["resources"].pop()
    bundle["dsseEnvelope"].update(payload=b64encode(json.dumps(told).encode()).decode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda bundle: bundle.clear(),
        lambda bundle: bundle.pop("dsseEnvelope"),
        lambda bundle: bundle.update(mediaType="text/plain"),
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"].update(payload="%"),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
        lambda bundle: bundle["verificationMaterial"]["publicKey"].pop("hint"),
        lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=""),
        leave_a_file_out,
    ],
)
def test_a_bundle_that_was_tampered_with_is_damaged(
    damage: Callable[[Any], object], manifest: Manifest, keys: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is missing or wrong in it, there is one answer, and nothing is printed."""
    bundle = json.loads(sign(manifest, keys.private))
    damage(bundle)

    with pytest.raises(IntegrityError, match="damaged"):
        check_signature(manifest, json.dumps(bundle).encode(), keys.public)
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("bundle", [b"", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_bundle_at_all_is_damaged(bundle: bytes, manifest: Manifest, keys: Pair) -> None:
    """Anybody with write access to the store can put anything there."""
    with pytest.raises(IntegrityError, match="damaged"):
        check_signature(manifest, bundle, keys.public)


def write_rsa(folder: Path) -> Path:
    """Write a key of a kind that the package does not know."""
    how = (formats.Encoding.PEM, formats.PrivateFormat.PKCS8, formats.NoEncryption())
    (folder / "rsa.pem").write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*how))
    return folder / "rsa.pem"


def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, manifest: Manifest, keys: Pair) -> None:
    """Missing, of another kind, or locked with another password, which is not told."""
    wrong = SecretStr("CANARY")
    attempts: list[tuple[Path, SecretStr | None, str]] = [
        (tmp_path / "none.pem", None, "none.pem cannot be read: No such file"),
        (tmp_path, None, "cannot be read: Is a directory"),
        (keys.public, None, "public.pem is no private key"),
        (keys.locked, None, "locked.pem is no private key that can be used.*SLIPWAY_SIGNING__PASSWORD"),
        (keys.locked, wrong, "locked.pem is no private key"),
        (keys.private, wrong, "private.pem is no private key"),
        (write_rsa(tmp_path), None, "rsa.pem is no private key"),
    ]
    for key, password, told in attempts:
        with pytest.raises(BadInput, match=told) as caught:
            sign(manifest, key, password)
        assert "CANARY" not in f"{caught.value} {caught.value.__cause__!r}"
    with pytest.raises(BadInput, match=r"private\.pem is no public key"):
        check_signature(manifest, sign(manifest, keys.private), keys.private)
