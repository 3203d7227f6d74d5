"""The Hub's HTTP as bytes on the wire: headers, redirects, ranges, links, and hostile requests."""

import hashlib
import http.client
from collections.abc import Iterator

import httpx
import pytest
from huggingface_hub import HfApi
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.publishing import publish
from tests.fakes.hub_server import serving
from tests.tasks.local.hub.conftest import GATED, MODEL, READER, WEIGHTS, Stage, write_model

_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
_LARGE = f"/{MODEL}/resolve/main/model.safetensors"
_SMALL = f"/{MODEL}/resolve/main/config.json"


@pytest.fixture
def http_client(stage: Stage) -> Iterator[httpx.Client]:
    """A plain client of the first listener, without any of huggingface_hub's care."""
    with httpx.Client(base_url=stage.server.endpoint, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_large_file_is_a_redirect_to_the_other_port(stage: Stage, http_client: httpx.Client, method: str) -> None:
    """The redirect itself carries commit, hash and size; its target is on the second listener."""
    answer = http_client.request(method, _LARGE)
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{stage.server.content_endpoint}/lfs/{_SHA256}?expires=")
    assert answer.headers["x-repo-commit"] == stage.new
    assert answer.headers["x-linked-etag"] == f'"{_SHA256}"'
    assert answer.headers["x-linked-size"] == str(len(WEIGHTS))


def test_a_small_file_is_answered_here(stage: Stage, http_client: httpx.Client) -> None:
    """HEAD and GET agree; the ETag is git's blob id."""
    head, got = http_client.head(_SMALL), http_client.get(_SMALL)
    assert head.content == b""
    assert head.headers["content-length"] == str(len(got.content))
    blob = hashlib.sha1(b"blob 30\0" + got.content, usedforsecurity=False).hexdigest()
    assert head.headers["etag"] == got.headers["etag"] == f'"{blob}"'
    assert got.headers["x-repo-commit"] == stage.new


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=1048000-", 1048000, len(WEIGHTS)),
        ("bytes=-10", len(WEIGHTS) - 10, len(WEIGHTS)),
        ("bytes=1048570-9999999", 1048570, len(WEIGHTS)),
    ],
)
def test_ranges_of_a_large_file(http_client: httpx.Client, asked: str, start: int, end: int) -> None:
    """A range, an open range, a suffix and a range beyond the end give those bytes with 206."""
    answer = http_client.get(_LARGE, headers={"Range": asked}, follow_redirects=True)
    assert answer.status_code == 206
    assert answer.content == WEIGHTS[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(WEIGHTS)}"
    assert answer.headers["etag"] == f'"{_SHA256}"'


def test_ranges_of_a_small_file_and_beyond_the_end(http_client: httpx.Client) -> None:
    """Small files have ranges too; a start past the end is 416 with the true size."""
    assert http_client.get(_SMALL, headers={"Range": "bytes=2-14"}).content == b"architectures"
    beyond = http_client.get(_LARGE, headers={"Range": f"bytes={len(WEIGHTS)}-"}, follow_redirects=True)
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


def test_a_changed_file_is_sent_whole_to_a_conditional_range(http_client: httpx.Client) -> None:
    """``If-Range`` with another ETag gives 200 and everything, with the right one 206."""
    for etag, status in ((f'"{_SHA256}"', 206), ('"other"', 200)):
        headers = {"Range": "bytes=0-9", "If-Range": etag}
        assert http_client.get(_LARGE, headers=headers, follow_redirects=True).status_code == status


def test_the_second_port_wants_a_link_and_no_account(stage: Stage, http_client: httpx.Client) -> None:
    """Without the signature 403, with a token beside it 400, and the link alone serves."""
    link = http_client.get(_LARGE).headers["location"]
    assert httpx.get(link, trust_env=False).content == WEIGHTS
    bare = link.partition("?")[0]
    assert httpx.get(bare, trust_env=False).status_code == 403
    assert httpx.get(link[:-1] + ("0" if link[-1] != "0" else "1"), trust_env=False).status_code == 403
    other = link.replace(_SHA256, "0" * 64)
    assert httpx.get(other, trust_env=False).status_code == 403
    leaked = httpx.get(link, headers={"Authorization": f"Bearer {READER}"}, trust_env=False)
    assert leaked.status_code == 400
    assert httpx.get(f"{stage.server.content_endpoint}{_SMALL}", trust_env=False).status_code == 404


def test_the_real_client_drops_its_token_at_the_second_port(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every request of a gated download with a token is seen: the Hub gets the token, the other port never."""
    seen: list[tuple[int, str, bool]] = []

    def spying(inner: ASGIApp) -> ASGIApp:
        async def spy(scope: Scope, receive: Receive, send: Send) -> None:
            names = {name for name, _ in scope["headers"]}
            seen.append((scope["server"][1], scope["path"], b"authorization" in names))
            await inner(scope, receive, send)

        return spy

    with serving(stage.root, tokens=AccessTokens({READER: [GATED]}), middleware=spying) as server:
        HfApi(endpoint=server.endpoint, token=READER).snapshot_download(
            GATED, cache_dir=tmp_path_factory.mktemp("cache")
        )
        hub_port = int(server.endpoint.rpartition(":")[2])
    assert {authorized for port, _, authorized in seen if port == hub_port} == {True}
    elsewhere = [(path, authorized) for port, path, authorized in seen if port != hub_port]
    assert elsewhere == [(f"/lfs/{_SHA256}", False)]


def test_an_expired_link_is_refused_and_resolving_again_helps(stage: Stage) -> None:
    """A link of a Hub with no lifetime is dead on arrival; a fresh one of another Hub serves."""
    with (
        serving(stage.root, link_lifetime_s=-1) as server,
        httpx.Client(base_url=server.endpoint, trust_env=False) as client,
    ):
        assert client.get(_LARGE, follow_redirects=True).status_code == 403
    again = httpx.get(stage.server.endpoint + _LARGE, follow_redirects=True, trust_env=False)
    assert again.status_code == 200


def test_pages_are_of_one_commit_though_the_branch_moves(
    stage: Stage, http_client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second page, asked for after a publish, still belongs to the first page's commit."""
    repo, folder = "acme/paged", write_model(tmp_path_factory.mktemp("paged"))
    publish(stage.root, repo, folder, message="one")
    first = http_client.get(f"/api/models/{repo}/tree/main", params={"recursive": "true", "limit": 3})
    (folder / "a.txt").write_text("sorts before all others")
    publish(stage.root, repo, folder, message="two")
    second = http_client.get(first.links["next"]["url"])
    assert [entry["path"] for entry in first.json()] == ["config.json", "model.safetensors", "tokenizer"]
    assert [entry["path"] for entry in second.json()] == ["tokenizer/vocab.txt"]
    assert "next" not in second.links


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/api/models/../../etc", {404}),
        ("/api/models/..%2f..%2fetc/passwd", {400}),
        ("/api/models/%2e%2e/%2e%2e", {400}),
        ("/api/models/acme/%00", {400}),
        ("/api/models/acme/parrot%2f..%2fprivate", {400}),
        (f"/api/models/{MODEL}/revision/..%2f..%2fprivate", {404}),
        (f"/api/models/{MODEL}/revision/%00", {404}),
        (f"/api/models/{MODEL}/tree/main/..%2f..", {404}),
        (f"/api/models/{MODEL}/tree/main?cursor=-1", {400}),
        (f"/api/models/{MODEL}/tree/main?limit=x", {400}),
        (f"/{MODEL}/resolve/main/../../repository.json", {404}),
        (f"/{MODEL}/resolve/main/%2e%2e/%2e%2e/repository.json", {404}),
        (f"/{MODEL}/resolve/main//etc/passwd", {404}),
        (f"/{MODEL}/resolve/main/caf%C3%A9%0d%0aX-Injected:1", {404}),
        (f"/{MODEL}/resolve/%ff/config.json", {404}),
        ("/lfs/../../../../etc/passwd", {404}),
        ("/api/agent-harnesses", {404}),
    ],
)
def test_hostile_paths_reach_nothing(stage: Stage, path: str, statuses: set[int]) -> None:
    """Paths as no client would normalise them end in 400 or 404, and inject no header."""
    host, port = stage.server.endpoint.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.putrequest("GET", path, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in statuses
        assert answer.getheader("X-Injected") is None
        assert b"root:" not in answer.read()
    finally:
        connection.close()


def test_both_listeners_say_that_they_are_well(stage: Stage) -> None:
    """``/healthz`` answers on either port."""
    for address in (stage.server.endpoint, stage.server.content_endpoint):
        assert httpx.get(f"{address}/healthz", trust_env=False).json() == {"status": "ok"}
