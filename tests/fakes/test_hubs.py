"""The Hub's faults are the ones that were ordered, and the model that it serves is one."""

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.hubs import HEADER_BYTES, MODEL, RunningHub, running_hub, write_model

pytestmark = pytest.mark.slow

NAME = "model-1-of-1.safetensors"
SIZE = 3_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a model on disk."""
    return write_model(tmp_path / "model", sizes=(SIZE,))


@pytest.fixture
def data(folder: Path) -> bytes:
    """Return the bytes of its shard."""
    return (folder / NAME).read_bytes()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """Return a Hub without faults."""
    with running_hub(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def link(hub: RunningHub, folder: Path) -> str:
    """Return the path of the shard at its commit."""
    return f"/{MODEL}/resolve/{hub.publish(folder)}/{NAME}"


@pytest.fixture
def client(hub: RunningHub) -> Iterator[httpx.Client]:
    """Return an HTTP client of the Hub that follows redirects."""
    with httpx.Client(base_url=hub.endpoint, timeout=2, follow_redirects=True) as client:
        yield client


def received(client: httpx.Client, link: str) -> tuple[bytes, type[httpx.HTTPError] | None]:
    """Return what came before the end, and what ended it if that was no good end."""
    got = bytearray()
    try:
        with client.stream("GET", link) as answer:
            for piece in answer.iter_raw():
                got += piece
    except httpx.HTTPError as error:
        return bytes(got), type(error)
    return bytes(got), None


def test_a_shard_is_valid_and_of_the_size_asked_for(tmp_path: Path) -> None:
    """The header names one tensor that fills the rest of the file; equal seeds give equal bytes."""
    shards = [
        (write_model(tmp_path / str(number), seed=seed, sizes=(128, 5000)) / "model-2-of-2.safetensors").read_bytes()
        for number, seed in enumerate((1, 1, 2))
    ]
    (length,) = struct.unpack("<Q", shards[0][:8])
    (tensor,) = json.loads(shards[0][8 : 8 + length]).values()

    assert len(shards[0]) == 5000
    assert 8 + length == HEADER_BYTES
    assert tensor == {"dtype": "U8", "shape": [5000 - 128], "data_offsets": [0, 5000 - 128]}
    assert shards[0] == shards[1] != shards[2]


def test_without_faults_the_bytes_are_whole(client: httpx.Client, link: str, data: bytes) -> None:
    """Nothing stands between the Hub and its client."""
    assert received(client, link) == (data, None)


def test_answers_take_their_turns(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """A queue answers once per entry and lets through where it holds None; a refusal answers every time."""
    hub.faults.answers["GET /acme/"] = deque([(503, {"retry-after": "1"}), None, (429, {})])
    answers = [client.get(link) for _ in range(4)]
    hub.faults.refusals["/lfs/"] = (403, {"x-error-code": "GatedRepo"})
    refused = [client.get(link) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 200, 429, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert answers[1].content == answers[3].content == data
    assert [(a.status_code, a.headers["x-error-code"]) for a in refused] == [(403, "GatedRepo")] * 2


def test_a_fault_may_be_for_one_method(client: httpx.Client, hub: RunningHub, link: str) -> None:
    """HEAD fails and GET does not."""
    hub.faults.refusals["HEAD /"] = (500, {})

    assert [client.head(link).status_code, client.get(link).status_code] == [500, 200]


def test_a_fault_may_be_for_a_range(client: httpx.Client, hub: RunningHub, link: str) -> None:
    """Requests for the whole pass, and those for a range do not."""
    hub.faults.answers[" bytes=5-"] = deque([(503, {})])
    hub.faults.answers[" whole"] = deque([(502, {})])
    answers = [client.get(link, headers=headers) for headers in ({"range": "bytes=5-9"}, {})]

    assert [answer.status_code for answer in answers] == [503, 502]


def test_a_body_breaks_where_it_was_to(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """A cut ends the connection after so many bytes of a longer declared length; the next answer is whole."""
    hub.faults.cuts["/lfs/"] = deque([1_500_001])

    assert received(client, link) == (data[:1_500_001], httpx.RemoteProtocolError)
    assert received(client, link) == (data, None)


@pytest.mark.parametrize("after", [0, 1_500_001])
def test_a_body_stalls_where_it_was_to(hub: RunningHub, link: str, data: bytes, after: int) -> None:
    """The connection stays open and nothing more comes, before the status or within the body."""
    hub.faults.stalls["/lfs/"] = deque([after])
    with httpx.Client(base_url=hub.endpoint, timeout=0.2, follow_redirects=True) as impatient:
        assert received(impatient, link) == (data[:after], httpx.ReadTimeout)


def test_a_stall_may_be_ended(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """What stalls is cut when it is to be, and nothing stalls afterwards."""
    hub.faults.stalls["/lfs/"] = deque([1_000_000, 0])
    threading.Timer(0.1, hub.faults.drop).start()

    assert received(client, link) == (data[:1_000_000], httpx.RemoteProtocolError)
    assert received(client, link) == (data, None)


def test_bytes_are_wrong_where_they_were_to_be(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """One bit of one answer differs, and its length does not."""
    hub.faults.damage["/lfs/"] = deque([2_000_000])
    (damaged, error), (whole, _) = received(client, link), received(client, link)

    assert error is None
    assert [at for at in range(SIZE) if damaged[at] != data[at]] == [2_000_000]
    assert whole == data


def test_a_shortened_body_declares_its_length(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """The answer ends in order, before the file does."""
    hub.faults.shortened["/lfs/"] = deque([1_200_000])

    assert received(client, link) == (data[:1_200_000], None)


def test_a_range_may_be_ignored(client: httpx.Client, hub: RunningHub, link: str, data: bytes) -> None:
    """The whole comes with 200, as if no range had been asked for; the request is known all the same."""
    headers = {"range": f"bytes={SIZE - 5}-"}
    kept = client.get(link, headers=headers)
    hub.faults.rangeless.add("/lfs/")
    ignored = client.get(link, headers=headers)

    assert (kept.status_code, kept.content) == (206, data[-5:])
    assert (ignored.status_code, ignored.content) == (200, data)
    assert hub.faults.asked("/lfs/") == [headers["range"]] * 2


def test_a_body_trickles(client: httpx.Client, hub: RunningHub, link: str) -> None:
    """Bytes come at about the rate asked for, a few at a time."""
    hub.faults.rates["/lfs/"] = 1000.0
    begun, got = time.monotonic(), 0
    with client.stream("GET", link) as answer:
        for piece in answer.iter_raw():
            assert len(piece) < 2000
            got += len(piece)
            if got >= 300:
                break

    assert time.monotonic() - begun >= 0.15
    assert got < 2000


def test_something_may_happen_first(client: httpx.Client, hub: RunningHub, link: str) -> None:
    """What was planned for the moment of a request has happened when it is answered, once."""
    happened: list[int] = []
    hub.faults.before["/resolve/"] = deque([lambda: happened.append(len(hub.faults.requests))])
    client.get(link)
    client.get(link)

    assert happened == [1]


def test_a_renamed_repository_leads_to_its_new_name(client: httpx.Client, hub: RunningHub, link: str) -> None:
    """Its addresses answer 307, query and all, and the new ones hold what the old ones did."""
    hub.faults.renamed["acme/old"] = MODEL
    listing = client.get("/api/models/acme/old/revision/main?blobs=true")

    assert [answer.status_code for answer in listing.history] == [307]
    assert listing.url.path == f"/api/models/{MODEL}/revision/main"
    assert all("size" in file for file in listing.json()["siblings"])
    assert client.get(link.replace(MODEL, "acme/old")).status_code == 200


def test_links_expire(tmp_path: Path, folder: Path) -> None:
    """A signed link that is too old is refused with 403."""
    with running_hub(tmp_path / "brief", link_lifetime_s=0) as hub:
        link = f"{hub.endpoint}/{MODEL}/resolve/{hub.publish(folder)}/{NAME}"
        assert httpx.get(link, follow_redirects=True).status_code == 403


def test_a_stalled_connection_does_not_keep_the_hub_alive(tmp_path: Path, folder: Path) -> None:
    """The server ends at once although a client still waits."""
    with running_hub(tmp_path / "stalled") as hub:
        hub.publish(folder)
        hub.faults.stalls["/api/"] = deque([0])
        host, port = hub.endpoint.removeprefix("http://").split(":")
        waiting = socket.create_connection((host, int(port)))
        waiting.sendall(f"GET /api/models/{MODEL} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        deadline = time.monotonic() + 5
        while not hub.faults.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
    waiting.close()

    assert time.monotonic() - begun < 2
