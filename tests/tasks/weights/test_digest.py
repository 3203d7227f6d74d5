"""Hashes of a file on its way: compared with what was declared, combined from parts, and taken up again."""

import hashlib
import random
from datetime import UTC, datetime

import pytest
from awscrt import checksums

from tasks._stores.store import StoredObject
from tasks._weights.digest import Digest
from tasks._weights.hub import HubFile
from tasks.errors import IntegrityError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATA = random.Random(1).randbytes(1000)  # noqa: S311 - filler
LARGE = HubFile(path="a.safetensors", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
BLOB = hashlib.sha1(b"blob 1000\0" + DATA, usedforsecurity=False).hexdigest()
SMALL = HubFile(path="config.json", size=len(DATA), git_sha1=BLOB)


def fed(file: HubFile, data: bytes, part: int = 300) -> Digest:
    """Return the digest of ``data``, given in parts."""
    digest = Digest(file)
    for start in range(0, len(data), part):
        piece = bytearray(data[start : start + part])
        digest.update(memoryview(piece))
        digest.end_part(piece)
    return digest


@pytest.mark.parametrize("file", [LARGE, SMALL], ids=["sha256", "git-sha1"])
def test_the_declared_bytes_pass(file: HubFile) -> None:
    """Either hash that a Hub declares is compared, and the manifest's line has the sha256 in any case."""
    digest = fed(file, DATA)

    digest.check()

    entry = digest.entry(StoredObject("k", len(DATA), '"1"', NOW, "AAAAAAAAAAA="))
    assert (entry.sha256, entry.git_sha1) == (LARGE.sha256, file.git_sha1)
    assert (entry.etag, entry.crc64nvme) == ('"1"', "AAAAAAAAAAA=")


@pytest.mark.parametrize("file", [LARGE, SMALL], ids=["sha256", "git-sha1"])
@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA[:-1], DATA + b"x"], ids=["flipped", "short", "long"])
def test_other_bytes_are_refused_by_name(file: HubFile, data: bytes) -> None:
    """One byte changed, missing or too many."""
    with pytest.raises(IntegrityError, match=file.path):
        fed(file, data).check()


def test_parts_combine_to_the_checksum_of_the_whole() -> None:
    """CRC64NVME needs no second reading."""
    assert fed(LARGE, DATA).crc64nvme == checksums.crc64nvme(DATA)


def test_another_digest_goes_on_from_a_state() -> None:
    """After the state of the first 600 bytes only the rest is needed."""
    state = fed(LARGE, DATA[:600]).state()
    digest, rest = Digest(LARGE, state), bytearray(DATA[600:])
    digest.update(memoryview(rest))
    digest.end_part(rest)

    digest.check()

    assert digest.crc64nvme == checksums.crc64nvme(DATA)
