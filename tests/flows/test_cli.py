"""The command line: one clear sentence and the documented exit code, never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRONG = [
    pytest.param("relase", 2, "No such command 'relase'", id="verb"),
    pytest.param("release", 2, "Missing argument 'service'", id="argument"),
    pytest.param("release chat --modle a/b", 2, "No such option: --modle", id="flag"),
    pytest.param("release chta", 3, "Did you mean 'chat'?", id="service"),
    pytest.param("release chat", 2, "No store is configured", id="store"),
    pytest.param("history chat", 2, "No store is configured", id="history"),
]
LINES = [
    "release chta --json",
    *[str(wrong.values[0]) for wrong in WRONG],
    "--help",
    "status",
    "status --json",
    "schema",
]
Runs = Mapping[str, "Future[subprocess.CompletedProcess[str]]"]


def slipway(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "SLIPWAY_HOME": str(home / "state"), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Run every line in a home of its own, as many at once as there are cores: one takes up to 1.5 s of a core."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield {line: pool.submit(slipway, *line.split(), home=tmp_path_factory.mktemp("home")) for line in LINES}
    finally:
        pool.shutdown(cancel_futures=True)


def test_help_names_every_verb(runs: Runs) -> None:
    """A new user finds the verbs."""
    done = runs["--help"].result()

    assert 0 == done.returncode
    verbs = "up down demo release promote rollback approve reject restore drill refresh check finish bootstrap doctor"
    more = "plan status history explain why report schema mirror verify gc upstream size init receive render"
    for verb in f"{verbs} {more}".split():
        assert f"│ {verb} " in done.stdout


def test_status_with_nothing_running_says_what_to_do(runs: Runs) -> None:
    """An empty machine is not an error."""
    done = runs["status"].result()

    assert (0, "") == (done.returncode, done.stderr)
    assert "slipway up" in done.stdout


def test_status_speaks_json(runs: Runs) -> None:
    """Programs read the same facts."""
    done = runs["status --json"].result()

    assert {"stack": None, "services": {}} == json.loads(done.stdout)


def test_status_and_help_load_no_heavy_library(tmp_path: Path) -> None:
    """Both answer within half a second, because what takes long to import is imported by what needs it."""
    code = (
        "import sys; sys.argv = ['slipway', 'status']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('prefect', 'boto3', 'pandas', 'great_expectations', 'huggingface_hub')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "SLIPWAY_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert "[]" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("line", "code", "sentence"), WRONG)
def test_wrong_input_gets_one_sentence(runs: Runs, line: str, code: int, sentence: str) -> None:
    """The sentence says what is wrong and what to do; the exit code says which kind it is."""
    done = runs[line].result()

    assert code == done.returncode
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    """What the operating system refuses is told as such."""
    done = slipway("up", home=tmp_path, SLIPWAY_HOME="/proc/nope")

    assert 9 == done.returncode
    assert "/proc/nope" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_speak_json_too(runs: Runs) -> None:
    """A program that asked for JSON gets its error as JSON."""
    done = runs["release chta --json"].result()

    assert 3 == done.returncode
    assert "NotFound" == json.loads(done.stdout)["error"]["kind"]


def test_the_schema_knows_every_part_of_a_spec(runs: Runs) -> None:
    """Editors complete what the validator accepts."""
    schema = json.loads(runs["schema"].result().stdout)

    assert {"service", "model", "checks", "bake"} <= set(schema["properties"])
    assert False is schema["additionalProperties"]
