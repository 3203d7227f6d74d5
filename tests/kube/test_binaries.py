"""The programs of a control plane are found where they are, and built once where they are not."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kube import binaries
from tests.kube.binaries import BuildFailed, MissingProgram, find

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return what puts a script into a folder that alone is on ``PATH``, beside the system's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    system = tmp_path / "system"
    system.mkdir()
    for name in ("sh", "nice", "sleep"):
        (system / name).symlink_to(
            next(path for path in (Path("/usr/bin") / name, Path("/bin") / name) if path.exists())
        )
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{system}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    def write(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def test_the_assets_go_before_the_path(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own choice of programs is taken first."""
    on_path = program("etcd", "echo etcd Version: 3.5.1")
    assets = tmp_path / "assets"
    assets.mkdir()
    on_path.rename(assets / "etcd")
    program("etcd", "echo etcd Version: 3.6.2")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    assert find("etcd") == assets / "etcd"


def test_a_program_that_is_too_old_is_passed_over(program: Program) -> None:
    """The etcd of a distribution may be one with which watches fail; without Go, one sentence says what to do."""
    program("etcd", "echo etcd Version: 3.4.23")

    with pytest.raises(MissingProgram, match="KUBEBUILDER_ASSETS, or install Go"):
        find("etcd")


def test_what_is_not_here_is_built_once(program: Program, tmp_path: Path) -> None:
    """Of several processes that need a program, one builds it, and all find it whole."""
    count = tmp_path / "count"
    program("go", f'echo "$@" >> {count}; sleep 0.1; while [ "$1" != -o ]; do shift; done; echo built > "$2"')

    with ThreadPoolExecutor(3) as threads:
        found = set(threads.map(find, ["etcd"] * 3))

    (path,) = found
    assert path.read_text() == "built\n"
    assert len(count.read_text().splitlines()) == 1
    assert sorted(child.name for child in path.parent.iterdir()) == ["etcd", "lock"]


def test_a_failed_build_says_why_and_leaves_nothing(program: Program) -> None:
    """What Go said is told, and the next call builds again."""
    program("go", "echo no such module >&2; exit 1")

    with pytest.raises(BuildFailed, match="no such module"):
        find("kube-apiserver")

    assert [path.name for path in binaries.cache().rglob("*") if path.is_file()] == ["lock"]


def test_ahead_of_the_tests_only_the_control_plane_is_built(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest of a cluster is for those who bring one up."""
    program("go", 'while [ "$1" != -o ]; do shift; done; echo built > "$2"')

    assert 0 == binaries.main()

    assert ["kube-apiserver", "etcd"] == [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
