"""``init`` and ``size``: from a model's name to a spec that can be released; and what a shell completes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import completing
from flows.cli.app import app
from tasks._spec_file import load_spec
from tasks.records import Outcome, ServiceRecord
from tests.fakes.hubs import MODEL, RunningHub, running_hub, write_model
from tests.flows.command_line import Line, asking, ended, line
from tests.tasks.sizing.configs import LLAMA_8B

__all__ = ["line"]

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def hub(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningHub]:
    """Return the Hub of the terminal, with the configuration of Llama 3.1 8B on a tiny model."""
    folder = write_model(line.folder / "model", sizes=(1000,))
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    with running_hub(line.folder / "hub") as running:
        running.publish(folder)
        monkeypatch.setenv("SLIPWAY_HUB__ENDPOINT", running.endpoint)
        yield running


def test_size_says_what_fits_where_and_how_sure_it_is(line: Line, hub: RunningHub) -> None:
    """No store, no cluster and no Prefect are needed; programs read the same."""
    assert hub
    assert 0 == line.slipway("size", MODEL, "--concurrency", "100", "--gpu", "l40s")
    assert "32 heads that share 8 of keys (GQA)" in line.out
    assert "100 sequences of 8,192 tokens at once, 107.4 GB of cache" in line.out
    assert "tensor_parallel_size: 4" in line.out
    assert "sure: good" in line.out

    assert 0 == line.slipway("size", f"{MODEL}@main", "--context", "1024", "--gpu-memory", "24", "--json")
    found = json.loads(line.out)
    assert (131_072, 1024, {"max_model_len": 1024}) == (found["per_token"], found["load"]["context"], found["engine"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (f"{MODEL} --gpu h10", 2, "Did you mean H100?"),
        (f"{MODEL} --gpu h100 --gpu-memory 80", 2, "not both"),
        (f"{MODEL} --context 999999", 2, "at most 131,072"),
        ("acme/nope", 3, "does not exist"),
        ("tiny", 2, "names no model"),
        (f"{MODEL} --gpu-memory 1", 5, ""),
    ],
)
def test_size_explains_what_it_cannot(line: Line, hub: RunningHub, arguments: str, code: int, sentence: str) -> None:
    """One sentence, and the exit code for its kind; 5 where no number of such GPUs is enough."""
    assert hub
    assert code == line.slipway("size", *arguments.split())
    assert sentence in line.err


def test_init_writes_a_spec_that_fits(line: Line, hub: RunningHub) -> None:
    """The engine's arguments and the GPUs are those that `size` proposes; a second time it is left alone."""
    assert hub
    named = ["init", "--service", "bot", "--model", MODEL, "--gpu", "a10g", "--yes"]

    assert 0 == line.slipway(*named, "--json")

    written = json.loads(line.out)
    spec = load_spec(line.folder / "services", "bot")
    assert (1, {"max_model_len": 8192}) == (spec.resources.gpus, spec.engine)
    assert [written["spec"], written["prompts"]] == [
        str(line.folder / "services" / name) for name in ("bot.yaml", "bot.prompts.yaml")
    ]
    assert 7 == line.slipway(*named)
    assert "--force" in line.err
    assert 0 == line.slipway(*named, "--force", "--gpus", "2")
    assert 2 == load_spec(line.folder / "services", "bot").engine["tensor_parallel_size"]


def test_init_needs_no_hub(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have told is left to the person, who is told so."""
    monkeypatch.setattr("tasks._retry.ATTEMPTS", 1)

    code = line.slipway("init", "--service", "bot", "--model", MODEL, "--gpus", "2", "--hub", NOWHERE, "-y")

    assert 0 == code
    assert "left to you" in line.err
    assert {"tensor_parallel_size": 2} == load_spec(line.folder / "services", "bot").engine


def test_init_asks_only_a_terminal(line: Line) -> None:
    """A program that forgot a flag is told which."""
    assert 2 == line.slipway("init", "--model", MODEL)
    assert "--service is missing" in line.err


def complete(*words: str) -> list[str]:
    """Return what a shell offers behind these words, of which the last is not finished."""
    typed = " ".join(["slipway", *words])
    offered = CliRunner().invoke(
        app,
        prog_name="slipway",
        env={"_SLIPWAY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words))},
    )
    return offered.stdout.split()


def test_a_shell_completes_services_and_releases(line: Line) -> None:
    """Of the service that was named: those that had traffic for a promote, all that ended for a report."""
    line.write(
        ServiceRecord(
            service="chat", next_number=4, live=ended(1).release, past=(ended(1), ended(2, Outcome.REFUSED))
        )
    )

    assert ["chat"] == complete("status", "c")
    assert ["chat-r1"] == complete("promote", "chat", "chat-")
    assert ["chat-r1"] == complete("rollback", "chat", "--to", "c")
    assert ["chat-r1", "chat-r2"] == complete("report", "chat", "chat")


def test_a_shell_shows_no_errors(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be read, nothing is offered."""
    assert line
    monkeypatch.setenv("SLIPWAY_STORE__URL", "nonsense")
    monkeypatch.setenv("SLIPWAY_SERVICES", str(tmp_path / "nowhere"))
    context = typer.Context(typer.main.get_command(app))

    assert ([], []) == (completing.services("c"), completing.earlier_releases(context, ""))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("promote chat chat-r1", "promote to chat-r1"),
        ("rollback chat --to chat-r1", "roll back to chat-r1"),
        ("rollback chat", "chat-r2 (000000000000) is on its way, and would be undone"),
        ("restore chat", "restore to chat-r1"),
    ],
)
def test_a_dry_run_says_what_would_happen_and_does_nothing(line: Line, arguments: str, sentence: str) -> None:
    """No Prefect server is needed, nor a target."""
    line.write(asking())
    before = line.record

    assert 0 == line.slipway(*arguments.split(), "--dry-run")
    assert sentence in line.out
    assert 0 == line.slipway(*arguments.split(), "--dry-run", "--json")
    assert "chat-r1" == json.loads(line.out)["live"]
    assert before == line.record
