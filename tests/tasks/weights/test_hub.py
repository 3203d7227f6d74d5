"""The Hub client against the embedded Hub: refs, listings, streams, refusals, and where the token goes."""

import logging
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from pydantic import SecretStr

from tasks._weights.hub import Hub
from tasks.errors import AccessDenied, BadInput, IntegrityError, NotFound, SlipwayError, Unreachable
from tasks.local import ports
from tests.fakes.hubs import MODEL, TOKEN, RunningHub, write_model


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=2):
        yield


@pytest.fixture
def known(server: RunningHub) -> Iterator[Hub]:
    """Return a client whose token opens everything."""
    with Hub(server.endpoint, SecretStr(TOKEN)) as client:
        yield client


def test_a_ref_that_moves_is_resolved_anew(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """A branch means its head at that moment, and the older commit is still found by its id."""
    first = server.publish(write_model(tmp_path / "m", seed=1))
    assert hub.resolve(MODEL, "main").commit == first

    second = server.publish(write_model(tmp_path / "m", seed=2))

    assert second != first
    assert hub.resolve(MODEL, "main").commit == second
    assert hub.resolve(MODEL, first).commit == first


def test_files_carry_the_hashes_that_the_hub_declares(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """Large files have a sha256, small ones git's blob id, and every one its size."""
    folder = write_model(tmp_path / "m")
    files = {file.path: file for file in hub.listing(MODEL, server.publish(folder)).files}

    assert {path: file.size for path, file in files.items()} == {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    assert files["model-1-of-2.safetensors"].sha256
    assert files["model-1-of-2.safetensors"].git_sha1 is None
    assert files["config.json"].git_sha1
    assert files["config.json"].sha256 is None


@pytest.mark.parametrize("name", ["model-1-of-2.safetensors", "config.json"], ids=["redirected", "direct"])
@pytest.mark.parametrize("start", [0, 7])
def test_streams_a_file(server: RunningHub, hub: Hub, tmp_path: Path, name: str, start: int) -> None:
    """The bytes are the file's, from the byte asked for on."""
    folder = write_model(tmp_path / "m")
    commit = server.publish(folder)
    assert b"".join(hub.stream(MODEL, commit, name, start=start)) == (folder / name).read_bytes()[start:]


def test_names_quoted_in_urls_are_found(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """A path may hold what a URL must not."""
    folder = write_model(tmp_path / "m")
    (folder / "a #1 %2f ü.json").write_text("{}")
    assert b"".join(hub.stream(MODEL, server.publish(folder), "a #1 %2f ü.json")) == b"{}"


def test_what_does_not_exist_is_not_found(server: RunningHub, hub: Hub, known: Hub, tmp_path: Path) -> None:
    """Repository, ref, commit and file each say so in one sentence with a remedy."""
    commit = server.publish(write_model(tmp_path / "m"))
    for call in (
        lambda: hub.resolve("acme/missing", "main"),
        lambda: known.resolve("acme/missing", "main"),
        lambda: hub.resolve(MODEL, "no-such-branch"),
        lambda: hub.resolve(MODEL, "0" * 40),
        lambda: hub.listing(MODEL, "0" * 40),
        lambda: next(hub.stream(MODEL, commit, "missing.json")),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.remedy


def test_a_hidden_repository_may_be_private(server: RunningHub, hub: Hub, known: Hub, tmp_path: Path) -> None:
    """Without a token, missing and private cannot be told apart, and the message says both."""
    commit = server.publish(write_model(tmp_path / "m"), private=True)
    with pytest.raises(NotFound, match="or is private"):
        hub.resolve(MODEL, "main")
    assert known.resolve(MODEL, "main").commit == commit


def test_gated_remedies_differ_with_and_without_a_token(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """Whoever has no token is told to set one; whoever has one is told to have it admitted."""
    commit = server.publish(write_model(tmp_path / "m"), gated=True)
    with pytest.raises(AccessDenied, match="gated") as anonymous:
        next(hub.stream(MODEL, commit, "config.json"))
    with Hub(server.endpoint, SecretStr("hf_stranger")) as stranger, pytest.raises(AccessDenied) as foreign:
        next(stranger.stream(MODEL, commit, "config.json"))

    assert "a token into SLIPWAY_HUB__TOKEN" in anonymous.value.remedy
    assert "as the token's owner" in foreign.value.remedy
    assert "hf_stranger" not in "".join(traceback.format_exception(foreign.value))


def test_the_token_stays_with_the_hub(
    server: RunningHub, known: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second host refuses requests that carry a token, and it serves these; no log tells a secret."""
    caplog.set_level(logging.INFO)
    folder = write_model(tmp_path / "m")
    commit = server.publish(folder, gated=True)
    shard = "model-1-of-2.safetensors"
    assert b"".join(known.stream(MODEL, commit, shard)) == (folder / shard).read_bytes()
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn")]
    assert not [line for line in ours if TOKEN in line or "signature" in line]


def test_a_rejected_token_is_told_apart(server: RunningHub, known: Hub) -> None:
    """A 401 despite a token is about the token, not about the repository."""
    server.faults.answers["/api/"] = deque([(401, {})])
    with pytest.raises(AccessDenied, match="does not accept the token"):
        known.resolve(MODEL, "main")


def test_a_hub_in_trouble_is_asked_again(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """One 503 or 429 passes; two in a row are Unreachable under two attempts."""
    commit = server.publish(write_model(tmp_path / "m"))
    server.faults.answers["/api/"] = deque([(503, {})])
    assert hub.resolve(MODEL, "main").commit == commit

    server.faults.answers["/api/"] = deque([(429, {}), (429, {})])
    with pytest.raises(Unreachable, match="429"):
        hub.resolve(MODEL, "main")


@pytest.mark.parametrize("header", [{"retry-after": "7"}, {"ratelimit": '"api";r=0;t=7'}], ids=["plain", "hub"])
def test_the_wait_that_the_hub_asks_for_is_known(server: RunningHub, hub: Hub, header: dict[str, str]) -> None:
    """Both ways in which a Hub names a wait are read, in seconds."""
    server.faults.answers["/resolve/"] = deque([(429, header)])
    with pytest.raises(Unreachable) as caught:
        next(hub.stream(MODEL, "0" * 40, "config.json"))
    assert caught.value.retry_after == 7


def test_an_expired_link_is_resolved_again_later(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """A refusal by the second host is the link's, so it may pass; it is no verdict on the model."""
    commit = server.publish(write_model(tmp_path / "m"))
    server.faults.answers["/lfs/"] = deque([(403, {})])
    with pytest.raises(Unreachable, match="link"):
        next(hub.stream(MODEL, commit, "model-1-of-2.safetensors"))


def test_bytes_of_another_commit_are_not_taken(server: RunningHub, hub: Hub) -> None:
    """An answer for another commit than the one asked for is refused."""
    server.faults.answers["/resolve/"] = deque([(200, {"x-repo-commit": "f" * 40})])
    with pytest.raises(IntegrityError, match="f" * 40):
        next(hub.stream(MODEL, "0" * 40, "config.json"))


def test_a_hub_that_is_down_is_unreachable() -> None:
    """Nothing listens: one sentence that names the Hub, from either way of asking."""
    endpoint = f"http://{ports.HOST}:{ports.choose()}"
    with Hub(endpoint) as hub:
        for call in (
            lambda: hub.resolve(MODEL, "main"),
            lambda: next(hub.stream(MODEL, "0" * 40, "config.json")),
        ):
            with pytest.raises(Unreachable, match=f"The Hub at {endpoint} does not answer."):
                call()


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://host", "http://"])
def test_a_malformed_endpoint_is_bad_input(endpoint: str) -> None:
    """What is no URL is told apart from a Hub that is down."""
    with Hub(endpoint) as hub, pytest.raises(BadInput, match="is not a Hub's URL"):
        next(hub.stream(MODEL, "0" * 40, "config.json"))
    with Hub(endpoint) as hub, pytest.raises(BadInput):
        hub.resolve(MODEL, "main")


def test_a_malformed_name_is_bad_input(hub: Hub) -> None:
    """A name that no Hub can have is the asker's mistake."""
    with pytest.raises(SlipwayError) as caught:
        hub.resolve("a/b/c", "main")
    assert isinstance(caught.value, BadInput)


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        pytest.param("---\nlicense: apache-2.0\ntags: [chat]\n---\n# A model", ("apache-2.0", "chat"), id="card"),
        pytest.param("# A model", (None, ""), id="no card"),
        pytest.param("---\nlicense: [\n---\n", (None, ""), id="no YAML"),
        pytest.param("---\n- a list\n---\n", (None, ""), id="no mapping"),
    ],
)
def test_the_licence_is_the_model_cards(
    server: RunningHub, hub: Hub, tmp_path: Path, readme: str, expected: tuple[str | None, str]
) -> None:
    """What the head of the README says, through the Hub's own listing."""
    folder = write_model(tmp_path / "m")
    (folder / "README.md").write_text(readme)
    facts = hub.listing(MODEL, server.publish(folder)).facts

    assert (facts.license, facts.tags[0] if facts.tags else "") == expected
