"""Making the locked environments: skipped when current, repaired when interrupted, refused in one sentence."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.local import environments
from tasks.local.environments import CannotInstall

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path("tasks/local/environments.py")


def make_checkout(root: Path, packages: tuple[str, ...] = ()) -> Path:
    """A checkout with a lock of few packages, cut from the real one, and a project of one module."""
    (root / "tasks/local").mkdir(parents=True)
    for name in (SCRIPT, Path(environments.UV_LOCK)):
        shutil.copy(ROOT / name, root / name)
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    kept = [entry for entry in entries if entry.split("==")[0] in packages]
    (root / "requirements.lock").write_text("\n".join(kept) + "\n")
    (root / "slipway.py").write_text("")
    (root / "pyproject.toml").write_text(
        "[project]\nname = 'slipway'\nversion = '1'\n[project.scripts]\nslipway = 'slipway:main'\n"
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
    )
    return root


def call(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checkout's script as make does."""
    command = [sys.executable, "-I", "-S", str(root / SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def pretend_installed(root: Path) -> Path:
    """Put a stamp where an install would; return it."""
    folder = root / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    stamp = folder / "slipway.stamp"
    stamp.write_text(environments._wanted(environments.ENVIRONMENTS["controller"], root))
    return stamp


def test_a_current_environment_is_left_at_once(tmp_path: Path) -> None:
    """The usual case costs a start of Python and says nothing."""
    pretend_installed(make_checkout(tmp_path))
    begun = time.monotonic()
    done = call(tmp_path, "controller")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun < 2


def test_a_changed_lock_a_lost_python_or_a_missing_stamp_is_not_current(tmp_path: Path) -> None:
    """Each of the ways in which an environment can be out of date is seen."""
    stamp = pretend_installed(make_checkout(tmp_path))
    assert environments.is_current("controller", tmp_path)
    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    assert not environments.is_current("controller", tmp_path)
    stamp.write_text(environments._wanted(environments.ENVIRONMENTS["controller"], tmp_path))
    (tmp_path / ".venv/bin/python").unlink()
    assert not environments.is_current("controller", tmp_path)
    shutil.rmtree(tmp_path / ".venv")
    done = call(tmp_path, "controller", "--check")
    assert (done.returncode, done.stderr) == (
        9,
        "The controller environment is not current. Run `make install`.\n",
    )


def test_a_missing_lock_ends_in_one_sentence(tmp_path: Path) -> None:
    """The exit code is that of a machine error."""
    (make_checkout(tmp_path) / "requirements.lock").unlink()
    done = call(tmp_path, "controller")
    assert done.returncode == 9
    assert done.stderr == "The lock requirements.lock is missing. Restore it from version control.\n"


def test_too_little_disk_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names what is needed and what is there."""
    huge = environments.ENVIRONMENTS["controller"]._replace(installed_mb=10**9)
    monkeypatch.setitem(environments.ENVIRONMENTS, "controller", huge)
    with pytest.raises(CannotInstall, match=r"needs 10000\d+ MB of disk and .* has \d+ MB free"):
        environments.install("controller", make_checkout(tmp_path))
    assert not (tmp_path / ".tools/uv").exists()


@pytest.mark.parametrize("newest", [(3, 10), (3, 0)])
def test_a_python_outside_the_range_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest: tuple[int, int]
) -> None:
    """The sentence names the range and the remedy."""
    monkeypatch.setattr(environments, "NEWEST", newest)
    with pytest.raises(CannotInstall, match=r"Python 3\.11 to .* is needed.*make PYTHON="):
        environments.install("controller", make_checkout(tmp_path))


def test_a_processor_without_avx2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU build of vLLM would die of an illegal instruction minutes later."""
    monkeypatch.setattr(environments.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t: fpu sse4_2 avx\n")
    assert "no AVX2" in environments.unsupported_processor(cpuinfo)
    cpuinfo.write_text("flags\t: fpu sse4_2 avx2 fma\n")
    assert environments.unsupported_processor(cpuinfo) == ""
    monkeypatch.setattr(environments.platform, "system", lambda: "Darwin")
    assert "Linux container" in environments.unsupported_processor(cpuinfo)


@pytest.mark.slow
def test_an_install_is_whole_quiet_the_second_time_and_repaired_after_an_interruption(tmp_path: Path) -> None:
    """A real install of a small lock; what an interrupted one left behind is replaced."""
    packages = ("editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")
    root = make_checkout(tmp_path, packages)
    first = call(root, "controller")
    assert first.returncode == 0, first.stderr
    assert "MB to download" in first.stderr
    assert (root / ".venv/bin/slipway").exists()
    assert call(root, "controller").stderr == ""
    (root / ".venv/slipway.stamp").unlink()
    for package in (root / ".venv").glob("lib/python3*/site-packages/pluggy/__init__.py"):
        package.unlink()
    again = call(root, "controller")
    assert again.returncode == 0, again.stderr
    subprocess.run([root / ".venv/bin/python", "-c", "import pluggy, slipway"], cwd="/", check=True)
