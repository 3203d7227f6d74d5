"""What is proven of a local copy, for how long, and what does not belong to it."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from serve import copies
from serve.copies import Copy
from serve.manifest import File, WeightsError
from tests.serve.nodes import FILES, entry

LISTED = [entry(path, data) for path, data in FILES.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a whole copy."""
    for path, data in FILES.items():
        (tmp_path / "commit" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "commit" / path).write_bytes(data)
    return tmp_path / "commit"


def names(files: list[File]) -> list[str]:
    """Return the paths of files."""
    return [file.path for file in files]


def hashed(folder: Path, *, keep_proofs: bool = False) -> Copy:
    """Return the copy with everything hashed and written down."""
    copy = Copy(folder, LISTED, keep_proofs=keep_proofs)
    copy.hash_present(lambda _: None)
    copy.store_proofs()
    return copy


def recalled(folder: Path, *, keep_proofs: bool) -> list[str]:
    """Return what a start of now takes for unproven."""
    copy = Copy(folder, LISTED, keep_proofs=keep_proofs)
    copy.recall()
    return names(copy.unproven())


def test_what_was_hashed_is_proven_until_it_is_touched(folder: Path) -> None:
    """Nobody knows a file that was not read, nor one that was written to since, even with its old size and time."""
    copy = Copy(folder, LISTED, keep_proofs=False)
    assert list(FILES) == names(copy.unproven())

    counted: list[int] = []
    copy.hash_present(counted.append)
    assert sum(map(len, FILES.values())) == sum(counted)
    assert [] == copy.unproven()

    file = folder / "tokenizer.json"
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # some kernels count it in steps of milliseconds
        file.write_bytes(b"[2]")
        os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    (folder / "config.json").unlink()
    assert ["config.json", "tokenizer.json"] == names(copy.unproven())


@pytest.mark.parametrize("damage", [b"W" + b"w" * 199_999, b"w", b""])
def test_a_file_that_is_not_what_it_should_be_is_removed(folder: Path, damage: bytes) -> None:
    """Its room is needed for the right one."""
    (folder / "model-1.safetensors").write_bytes(damage)

    assert ["model-1.safetensors"] == names(hashed(folder).unproven())
    assert not (folder / "model-1.safetensors").exists()


@pytest.mark.parametrize(("keep_proofs", "unproven"), [(False, list(FILES)), (True, [])])
def test_earlier_proofs_count_where_they_are_kept(folder: Path, keep_proofs: bool, unproven: list[str]) -> None:
    """Every start hashes, unless the node is told to trust what it hashed since it was booted."""
    hashed(folder)

    assert unproven == recalled(folder, keep_proofs=keep_proofs)


def test_proofs_of_before_a_boot_never_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power failure may have taken back was hashed before it."""
    with monkeypatch.context() as earlier:
        earlier.setattr(copies, "this_boot", lambda: "an earlier boot")
        hashed(folder)

    assert list(FILES) == recalled(folder, keep_proofs=True)


def test_the_proofs_of_another_process_count_from_this_start_on(folder: Path) -> None:
    """Eight replicas that wait for one hash once: what it proved while they waited is as good as theirs."""
    hashed(folder)
    waiting = Copy(folder, LISTED, keep_proofs=False)
    waiting.recall()
    assert list(FILES) == names(waiting.unproven())

    hashed(folder)
    waiting.recall()
    assert [] == waiting.unproven()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"boot": 1}', '{"id": "a", "boot": "BOOT", "files": []}'])
def test_proofs_that_cannot_be_read_prove_nothing(folder: Path, content: str) -> None:
    """They are a convenience."""
    folder.with_name("commit.proof").write_text(content.replace("BOOT", copies.this_boot()))

    assert list(FILES) == recalled(folder, keep_proofs=True)


def test_a_proof_is_of_one_hash(folder: Path) -> None:
    """A manifest that declares another sha256 is not proven by what is there."""
    hashed(folder)
    other = [entry("config.json", b"{ }"), File("tokenizer.json", 3, "0" * 64)]
    copy = Copy(folder, other, keep_proofs=True)
    copy.recall()

    assert ["config.json", "tokenizer.json"] == names(copy.unproven())


def test_strangers_are_whatever_the_manifest_does_not_list(folder: Path) -> None:
    """Parts, code, and links, which may lead anywhere whatever their names."""
    (folder / "0123.part").write_bytes(b"half")
    (folder / "sub" / "modeling.py").write_text("import os")
    (folder / "more").symlink_to(folder.parent)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "tokenizer.json")

    found = Copy(folder, LISTED, keep_proofs=False).strangers()

    assert {"0123.part", "sub/modeling.py", "more", "config.json"} == {str(p.relative_to(folder)) for p in found}


class _Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_room_is_left_to_the_neighbours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spare: int, fits: bool
) -> None:
    """What is missing and a margin must fit; nothing missing needs no room at all."""
    free = 200_000 + copies.MARGIN_BYTES + spare
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: _Usage(free))
    copy = Copy(folder, LISTED, keep_proofs=False)
    copy.check_room([])

    if fits:
        copy.check_room(LISTED[1:2])
    else:
        with pytest.raises(
            WeightsError, match=rf"has {free:,} bytes free, and 200,000 are still to be fetched, with"
        ):
            copy.check_room(LISTED[1:2])
