"""What is read of a Hub: configuration and headers, a few kilobytes, whatever the weights have."""

import json
from pathlib import Path

import pytest

from tasks._sizing.reading import read_published
from tasks._weights.hub import Hub
from tasks.errors import NotFound
from tests.fakes.hubs import MODEL, RunningHub, write_model
from tests.tasks.sizing.configs import LLAMA_8B


def test_only_metadata_is_read(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """Of 3 MB of weights the first 128 KiB of each shard at most; the elements are those of the headers."""
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    commit = server.publish(folder)

    found = read_published(hub, MODEL, "main")

    assert (commit, LLAMA_8B, ()) == (found.commit, found.model.config, found.doubts)
    assert (3_070_000, {"U8": 3_070_000 - 2 * 128}) == (found.model.stored, found.model.dtypes)
    assert hub.received < 300_000


def test_a_second_copy_of_the_weights_does_not_count(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """Mistral AI publishes each model twice in one repository."""
    folder = write_model(tmp_path / "model", sizes=(1000,))
    (folder / "consolidated.safetensors").write_bytes((folder / "model-1-of-1.safetensors").read_bytes())
    server.publish(folder)

    assert 1000 == read_published(hub, MODEL, "main").model.stored


def test_what_cannot_be_read_or_would_be_refused_is_said(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """The size is told all the same, as far as it is known."""
    folder = write_model(tmp_path / "model", sizes=(1000,))
    (folder / "config.json").unlink()
    (folder / "modeling.py").write_text("import os")
    (folder / "model-1-of-1.safetensors").write_bytes(b"PK\x03\x04" + bytes(996))
    server.publish(folder)

    found = read_published(hub, MODEL, "main")

    assert (1000, {}) == (found.model.stored, found.model.dtypes)
    assert ["no config.json", "header cannot be read", "would refuse"] == [
        part
        for part, said in zip(("no config.json", "header cannot be read", "would refuse"), found.doubts, strict=True)
        if part in said
    ]


def test_weights_that_are_no_safetensors_cannot_be_sized(server: RunningHub, hub: Hub, tmp_path: Path) -> None:
    """A pickle tells nothing without being run."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    server.publish(tmp_path / "model")

    with pytest.raises(NotFound, match="no safetensors"):
        read_published(hub, MODEL, "main")
