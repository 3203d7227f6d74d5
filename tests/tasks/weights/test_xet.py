"""Streams from Xet storage: the real hf-xet against a local server, with what may fail on the way."""

import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from pydantic import SecretStr
from starlette.applications import Starlette

from tasks._weights import xet
from tasks._weights.hub import Hub
from tasks._weights.xet import XetDownloads, open_xet
from tasks.errors import AccessDenied, MachineError, NotFound, SlipwayError, Unreachable
from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import HubServer
from tasks.local.hub.publishing import publish
from tests.fakes import asgi, hub_server
from tests.fakes.hubs import MODEL, TOKEN, Faults, write_model
from tests.fakes.xet_cas import CHUNK, Cas, running_cas

pytestmark = pytest.mark.slow

COMMIT = "0" * 40
NAME = "model.safetensors"
SHARD = "model-1-of-2.safetensors"
SIZE = 12_000_001
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where hf-xet keeps what it keeps; it writes no log."""
    monkeypatch.setenv("HF_XET_LOG_DEST", os.devnull)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """Return the bytes of the one file that there is."""
    file = tmp_path / NAME
    file.write_bytes(random.Random(0).randbytes(SIZE))  # noqa: S311 - filler
    return file.read_bytes()


@pytest.fixture
def cas() -> Iterator[Cas]:
    """Return a server whose xorbs have 2 MiB, so that a piece spans several."""
    with running_cas(xorb_chunks=32) as running:
        yield running


@pytest.fixture
def grants() -> Faults:
    """Return what goes wrong at the Hub."""
    return Faults()


@pytest.fixture
def hub(cas: Cas, grants: Faults) -> Iterator[str]:
    """Return the address of a Hub that grants tokens to whoever has ``TOKEN``, and does nothing else."""
    with asgi.serving(grants.around(cas.beside(token=TOKEN)(Starlette()))) as (endpoint, _):
        yield endpoint


@pytest.fixture
def downloads(hub: str) -> Iterator[XetDownloads]:
    """Return a client with the right token."""
    opened = open_xet(hub, SecretStr(TOKEN), MODEL, COMMIT)
    assert opened
    yield opened
    opened.stop()


@pytest.fixture
def name(cas: Cas, data: bytes, tmp_path: Path) -> str:
    """Return the file's name in the storage."""
    assert len(data) == SIZE
    return cas.add(tmp_path / NAME)


def read(downloads: XetDownloads, name: str, start: int = 0, size: int = SIZE) -> tuple[bytes, SlipwayError | None]:
    """Return what came of the file, and what ended it if that was not its end."""
    got = bytearray()
    try:
        for piece in downloads.stream(NAME, name, size, start):
            got += piece
    except SlipwayError as error:
        return bytes(got), error
    return bytes(got), None


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def readers() -> list[threading.Thread]:
    """Return the threads that wait for bytes."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("xet")]


@pytest.mark.parametrize("start", [0, 1, 5 * CHUNK, SIZE // 2, SIZE - 1, SIZE])
def test_streams_a_file_from_any_byte(downloads: XetDownloads, name: str, data: bytes, start: int) -> None:
    """The bytes are the file's, in order, with nothing around them."""
    assert (data[start:], None) == read(downloads, name, start)
    assert SIZE - start == downloads.received


@pytest.fixture
def real(cas: Cas, tmp_path: Path) -> Iterator[tuple[HubServer, str]]:
    """Return the embedded Hub and a commit of a gated model, whose first shard is in the storage."""
    folder = write_model(tmp_path / "model")
    commit = publish(tmp_path / "hub", MODEL, folder, message="test", gated=True)
    cas.add(folder / SHARD)
    opened = AccessTokens({TOKEN: "*"})
    with hub_server.serving(tmp_path / "hub", tokens=opened, middleware=cas.beside(token=TOKEN)) as server:
        yield server, commit


def test_a_listing_names_the_files_that_the_storage_has(real: tuple[HubServer, str]) -> None:
    """From a Hub's listing alone the bytes are found whose sha256 it declares."""
    server, commit = real
    tree = HfApi(server.endpoint, token=TOKEN).list_repo_tree(MODEL, revision=commit, recursive=True)
    files = {file.path: file for file in tree if isinstance(file, RepoFile)}
    downloads = open_xet(server.endpoint, SecretStr(TOKEN), MODEL, commit)
    found = files[SHARD]
    assert downloads
    assert found.xet_hash
    assert found.lfs
    data = b"".join(downloads.stream(SHARD, found.xet_hash, found.size, 0))

    assert found.lfs.sha256 == hashlib.sha256(data).hexdigest()
    assert [SHARD] == [path for path, file in files.items() if file.xet_hash]


@pytest.mark.parametrize("wanted", [True, False], ids=["with", "without"])
def test_the_hub_client_finds_its_way(cas: Cas, real: tuple[HubServer, str], tmp_path: Path, *, wanted: bool) -> None:
    """It reads from the storage what a Hub links there, if it is wanted, and the rest as ever."""
    server, commit = real
    other = "model-2-of-2.safetensors"
    with Hub(server.endpoint, SecretStr(TOKEN), xet=wanted) as hub:
        for name in (SHARD, other):
            expected = (tmp_path / "model" / name).read_bytes()[7:]
            assert expected == b"".join(hub.stream(MODEL, commit, name, start=7))

    assert wanted == bool(cas.faults.asked("/xorbs/"))


def test_the_storage_takes_no_token_but_its_own(cas: Cas, name: str) -> None:
    """A grant opens the list of links alone, and links refuse what is forged, late, or brings a token along."""
    place = f"/v2/reconstructions/{name}"
    own = {"authorization": f"Bearer {cas.grant()[0]}", "range": "bytes=0-99"}
    bare = {"range": f"bytes=0-{CHUNK + 7}"}
    with httpx.Client(base_url=cas.endpoint) as client:

        def status(place: str, headers: dict[str, str]) -> int:
            return client.get(place, headers=headers).status_code

        listed = client.get(place, headers=own).json()
        ((link,),) = listed["xorbs"].values()
        refused = [
            status(place, {"range": "bytes=0-99"}),
            status(place, own | {"authorization": f"Bearer {TOKEN}"}),
            status(place, own | {"range": f"bytes={SIZE}-"}),
            status(link["url"], own),
            status(link["url"] + "0", bare),
        ]
        served = status(link["url"], bare)
        cas.link_lifetime_s = -1
        ((late,),) = client.get(place, headers=own).json()["xorbs"].values()
        refused.append(status(late["url"], bare))

    assert [401, 401, 416, 400, 403, 403] == refused
    assert 206 == served


def test_streams_share_one_token(downloads: XetDownloads, name: str, data: bytes) -> None:
    """Several files at once are read with one request to the Hub."""
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda start: read(downloads, name, start), [0, 1000, 2000, 3000]))

    assert [(data[start:], None) for start in [0, 1000, 2000, 3000]] == results
    assert 1 == downloads.requests


def test_an_expiring_token_is_renewed_on_the_way(
    cas: Cas, downloads: XetDownloads, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes longer than a token lasts is whole all the same, and no token is used after its time."""
    monkeypatch.setattr(xet, "SPARE_S", 0.2)
    cas.token_lifetime_s = 1.0
    cas.faults.rates["/xorbs/"] = 4e6

    assert (data, None) == read(downloads, name)
    assert downloads.requests > 1


@pytest.mark.parametrize(
    ("token", "error"), [(None, "set SLIPWAY_HUB__TOKEN|put a token into"), ("hf_stranger", "the token's owner")]
)
def test_a_gated_model_needs_the_right_token(hub: str, name: str, token: str | None, error: str) -> None:
    """The Hub's refusal of a token means what its refusal of a file means, and holds no token."""
    downloads = open_xet(hub, SecretStr(token) if token else None, MODEL, COMMIT)
    assert downloads
    with pytest.raises(AccessDenied, match=error) as caught:
        next(downloads.stream(NAME, name, SIZE, 0))
    assert "hf_stranger" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {"x-error-code": "RevisionNotFound"}), NotFound),
        ((503, {}), Unreachable),
        ((200, {}), Unreachable),
        ((200, {"x-xet-cas-url": "http://127.0.0.1:9", "x-xet-access-token": "t"}), Unreachable),
    ],
    ids=["missing", "busy", "without Xet", "half"],
)
def test_a_hub_without_a_grant(
    grants: Faults, downloads: XetDownloads, name: str, answer: Any, error: type[SlipwayError]
) -> None:
    """Whatever else the Hub says to a request for a token is told apart as elsewhere."""
    grants.answers["/xet-read-token/"] = deque([answer])

    with pytest.raises(error):
        next(downloads.stream(NAME, name, SIZE, 0))


@pytest.mark.parametrize(
    ("kind", "where", "fault"),
    [
        ("answers", "/v2/", (503, {})),
        ("answers", "/xorbs/", (403, {})),
        ("answers", "/xorbs/", (503, {})),
        ("cuts", "/xorbs/", 300_000),
    ],
    ids=["busy", "expired link", "busy store", "cut"],
)
def test_one_fault_passes(
    cas: Cas, downloads: XetDownloads, name: str, data: bytes, kind: str, where: str, fault: Any
) -> None:
    """What fails once is asked for again within, with a new link."""
    getattr(cas.faults, kind)[where] = deque([fault])

    assert (data, None) == read(downloads, name)


@pytest.mark.parametrize(
    ("kind", "where", "fault"),
    [
        ("answers", "/v2/", (401, {})),
        ("answers", "/v2/", (404, {})),
        ("answers", "/xorbs/", (403, {})),
        ("cuts", "/xorbs/", 300_000),
        ("shortened", "/xorbs/", 300_000),
        ("damage", "/xorbs/", 0),
    ],
    ids=["token refused", "missing", "links refused", "cut", "truncated", "no xorb"],
)
def test_a_stream_that_broke_is_taken_up_where_it_broke(
    cas: Cas, downloads: XetDownloads, name: str, data: bytes, kind: str, where: str, fault: Any
) -> None:
    """Faults that go on are ``Unreachable``; what came before is true, and the rest comes with a new token."""
    good = read(downloads, name)[0]
    getattr(cas.faults, kind)[where] = deque([fault] * 100)
    first, error = read(downloads, name)
    getattr(cas.faults, kind).clear()

    assert isinstance(error, Unreachable)
    assert good.startswith(first)
    assert (data, None) == (first + read(downloads, name, len(first))[0], None)
    assert 2 == downloads.requests


def test_a_file_shorter_than_declared_is_noticed(downloads: XetDownloads, name: str, data: bytes) -> None:
    """The storage's end of a file is not taken for its declared size."""
    got, error = read(downloads, name, size=SIZE + 5)

    assert data == got
    assert isinstance(error, Unreachable)


def test_a_silent_storage_is_given_up(
    cas: Cas, downloads: XetDownloads, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that does not come in time ends the stream, and leaves no thread that waits."""
    monkeypatch.setattr(xet, "PIECE_S", 0.3)
    cas.faults.stalls["/xorbs/"] = deque([1000] * 100)

    assert isinstance(read(downloads, name)[1], Unreachable)
    assert not readers()


def test_streams_end_when_told_to(cas: Cas, downloads: XetDownloads, name: str) -> None:
    """``stop`` reaches readers that wait for bytes which never come."""
    cas.faults.stalls["/xorbs/"] = deque([1000] * 100)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(read, downloads, name) for _ in range(2)]
        until(lambda: len(cas.faults.asked("/xorbs/")) > 1)
        begun = time.monotonic()
        downloads.stop()
        errors = [job.result(DEADLINE_S)[1] for job in jobs]

    assert time.monotonic() - begun < xet.SILENCE_S / 2
    assert [Unreachable, Unreachable] == [type(error) for error in errors]


def test_no_more_is_fetched_than_may_be_held(cas: Cas, downloads: XetDownloads, tmp_path: Path) -> None:
    """A reader that pauses pauses the download, and one that closes ends it."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 200_000_000)
    stream = downloads.stream("large", cas.add(tmp_path / "large"), 200_000_000, 0)
    held = len(next(stream))

    def fetched() -> int:
        """Return the bytes asked for, once no more of them are."""
        spans = cas.faults.asked("/xorbs/")
        time.sleep(0.3)
        until(lambda: spans == cas.faults.asked("/xorbs/") or spans.extend(cas.faults.asked("/xorbs/")[len(spans) :]))
        ends = [span.removeprefix("bytes=").split("-") for span in spans]
        return sum(int(last) - int(first) + 1 for first, last in ends)

    ahead = fetched()
    stream.close()

    assert ahead - held < 1.2 * (xet.IN_FLIGHT_BYTES + xet.FETCH_BYTES)
    assert ahead == fetched()
    assert not readers()


def test_no_secret_is_told_and_nothing_kept(
    cas: Cas, downloads: XetDownloads, name: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither logs nor errors hold a token or a signature, and hf-xet leaves empty folders alone."""
    caplog.set_level(logging.DEBUG)
    read(downloads, name)
    cas.faults.refusals["/xorbs/"] = (403, {})
    error = read(downloads, name)[1]
    assert error
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    text = "\n".join([*ours, *traceback.format_exception(error), repr(downloads._granted)])

    assert not [secret for secret in (TOKEN, "cas_canary", "signature") if secret in text]
    assert cache.is_dir()
    assert [] == [path for path in cache.rglob("*") if not path.is_dir()]
    assert not [path for path, _ in cas.faults.requests if "telemetry" in path]


def test_a_folder_that_cannot_be_made_is_named(
    downloads: XetDownloads, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is read-only, the remedy says which variable moves hf-xet's folder."""
    monkeypatch.setenv("HF_XET_CACHE", "/proc/none")
    with pytest.raises(MachineError, match="HF_XET_CACHE"):
        next(downloads.stream(NAME, name, SIZE, 0))


def test_without_hf_xet_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, callers are told so and read by HTTP."""
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    assert open_xet("http://127.0.0.1:9", None, MODEL, COMMIT) is None


CLIENT = """
import os, sys, threading
from pydantic import SecretStr
from tasks._weights.hub import Hub
from tasks._weights.xet import open_xet

endpoint, token, name, size, streams = sys.argv[1:]

def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) // 1024 for text in status if text.startswith(line))

import hf_xet, huggingface_hub.hf_api, httpx2
downloads = open_xet(endpoint, SecretStr(token), "acme/tiny", "0" * 40)
before = memory("VmRSS")

def read():
    stream, got = downloads.stream("large", name, int(size), 0), 0
    while piece := next(stream, b""):
        got += len(piece)
        del piece
        print("piece", flush=True)
    assert got == int(size)

others = [threading.Thread(target=read) for _ in range(int(streams) - 1)]
for thread in others:
    thread.start()
read()
for thread in others:
    thread.join()
child = os.fork()
if child == 0:
    sys.exit(7)
print("peak", memory("VmHWM") - before, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def client(hub: str, name: str, size: int, streams: int) -> subprocess.Popen[str]:
    """Start a process that reads a file, in several streams at once."""
    arguments = [hub, TOKEN, name, str(size), str(streams)]
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_memory_is_bounded_and_a_fork_survives(cas: Cas, hub: str, tmp_path: Path) -> None:
    """Four streams of 100 MB each hold under 90 MB together, and a child of the process ends by itself."""
    size = 100_000_000
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", size)
    cas.xorb_chunks = 1024
    process = client(hub, cas.add(tmp_path / "large"), size, 4)
    output, errors = process.communicate(timeout=2 * DEADLINE_S)
    word, peak, child = output.splitlines()[-1].split()

    assert ("", 0) == (errors, process.returncode)
    assert ("peak", "7") == (word, child)
    assert int(peak) < 90


def test_an_interrupt_ends_a_process_that_waits(cas: Cas, hub: str, name: str) -> None:
    """Ctrl-C is heard while no byte comes, and nothing of hf-xet holds the process up or complains."""
    cas.faults.stalls["/xorbs/"] = deque([1000] * 100)
    process = client(hub, name, SIZE, 1)
    try:
        until(lambda: cas.faults.asked("/xorbs/"))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()

    assert time.monotonic() - begun < xet.SILENCE_S / 2
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "panic" not in errors
