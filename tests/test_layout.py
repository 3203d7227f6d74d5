"""The shape of the code: what import-linter and ruff cannot say."""

import ast
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "serve", "k8s")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if ".venv" not in path.parts)
MOST_LINES = 300
VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
FORBIDDEN_FLOWS = {"tasks", "k8s", "serve", "tests"} | set(sys.stdlib_module_names)


def names(module: Path) -> str:
    """Return how a test names the module."""
    return module.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_a_module_is_short_and_says_what_it_promises(module: Path) -> None:
    """Every module fits a few screens and opens with its promise."""
    text = module.read_text()

    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "a module says what it promises"
    assert module.stem not in VAGUE


def test_functions_are_short() -> None:
    """Half of all functions have at most 12 lines, nine in ten at most 40."""
    lengths = [
        node.end_lineno - node.lineno + 1
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]

    assert statistics.median(lengths) <= 12
    assert statistics.quantiles(lengths, n=10)[-1] <= 40


@pytest.mark.parametrize("module", sorted((ROOT / "flows").glob("*.py")), ids=names)
def test_flows_define_no_classes_and_shadow_no_module(module: Path) -> None:
    """A deployment puts this folder first on the path and loads its files under a second name."""
    tree = ast.parse(module.read_text())

    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert module.stem not in FORBIDDEN_FLOWS


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_prefect_and_the_environment_have_their_places(module: Path) -> None:
    """Prefect is known to flows and public tasks alone; the environment is read in one module."""
    where = module.relative_to(ROOT)
    private = where.parts[0] == "tasks" and any(part.startswith("_") for part in where.parts)
    text = module.read_text()

    if private or where.parts[0] == "k8s":
        assert "from prefect" not in text
        assert "import prefect" not in text
    if where.parts[0] in {"flows", "tasks"} and where != Path("tasks/settings.py"):
        assert "os.environ" not in text
        assert "os.getenv" not in text
