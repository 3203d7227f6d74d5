"""A Hub with a few repositories, and the real client kept from the machine's own cache and from the internet."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from tasks.local.hub.access import AccessTokens
from tasks.local.hub.listeners import HubServer
from tasks.local.hub.publishing import publish, set_ref
from tests.fakes.hub_server import serving

MODEL = "acme/parrot"
GATED = "acme/gated"
PRIVATE = "acme/private"
READER = "hf_reads_both"
STRANGER = "hf_reads_neither"
WEIGHTS = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Stage:
    """A running Hub, its root, and the two commits of ``MODEL``: ``old``, then ``new`` on main."""

    server: HubServer
    root: Path
    old: str
    new: str

    def api(self, token: str | bool = False) -> HfApi:
        """Return the real client, anonymous unless told otherwise."""
        return HfApi(endpoint=self.server.endpoint, token=token)


def write_model(folder: Path, *, greeting: str = "hello", weights: bytes = WEIGHTS) -> Path:
    """Write a folder shaped like a model: small files, one in a subfolder, and a large one."""
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["Parrot"]}\n')
    (folder / "tokenizer" / "vocab.txt").write_text(greeting + "\n")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One Hub for all tests; those that publish do so in repositories of their own."""
    root, sources = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("sources")
    old = publish(root, MODEL, write_model(sources / "old"), message="First words")
    set_ref(root, MODEL, "refs/tags/v1", old)
    set_ref(root, MODEL, "feature/x", old)
    new = publish(root, MODEL, write_model(sources / "new", greeting="good day"), message="Better words\n\nPoliter.")
    publish(root, GATED, sources / "old", message="Behind a gate", gated=True)
    publish(root, PRIVATE, sources / "old", message="Ours alone", private=True)
    tokens = AccessTokens({READER: [GATED, PRIVATE], STRANGER: [MODEL]})
    with serving(root, tokens=tokens) as server:
        yield Stage(server, root, old, new)


@pytest.fixture(autouse=True)
def _keep_the_client_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep huggingface_hub off the home folder and off the real Hub.

    ``endpoint=`` does not cover everything: for its User-Agent the client asks ``constants.ENDPOINT`` once for
    a list of harnesses unless telemetry is off, and caches the answer under ``HF_HOME``.
    """
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", os.fspath(tmp_path / "unused"))
