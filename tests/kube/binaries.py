"""The programs of a control plane and of a whole cluster: those of this machine, or built once from pinned source.

    apiserver = find("kube-apiserver")

Looked for in the folder that ``KUBEBUILDER_ASSETS`` names, then on ``PATH``, then in the user's cache, where they are
built by Go from the modules beside this file if they are not there yet: ten minutes on two cores, once.  What is
built lies under a name that holds the digest of its module, appears there whole or not at all, and is built by one
process while the others wait.  ``python -m tests.kube.binaries`` does it ahead of the tests, and they build nothing.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).with_name("modules")
BUILD_DEADLINE_S = 3600
_VERSION = "k8s.io/component-base/version"


class MissingProgram(Exception):
    """A program is neither here nor is Go, to build it; the text is one sentence that says so."""


class BuildFailed(Exception):
    """Go is here and could not do it; the text ends with what it said."""


@dataclass(frozen=True)
class Source:
    """What a program is built from: a folder of ``modules``, a package in it, and the oldest version that will do."""

    module: str
    package: str
    oldest: tuple[int, int]
    requires: str
    """The module whose version is the program's."""


SOURCES = {
    "kube-apiserver": Source("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", (1, 33), "k8s.io/kubernetes"),
    # With etcd 3.4 a watch without a resource version is answered "Too large resource version".
    "etcd": Source("etcd", ".", (3, 5), "go.etcd.io/etcd/server/v3"),
    **{
        name: Source("kubernetes", f"k8s.io/kubernetes/cmd/{name}", (1, 33), "k8s.io/kubernetes")
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    },
    "coredns": Source("coredns", ".", (1, 11), "github.com/coredns/coredns"),
}
CONTROL_PLANE = ("kube-apiserver", "etcd")


def cache() -> Path:
    """Return the folder for what is made once for all checkouts of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipway" / "kube"


def find(name: str) -> Path:
    """Return the program, built if need be; raises ``MissingProgram`` and ``BuildFailed``."""
    return _installed(name) or _built(name)


def _installed(name: str) -> Path | None:
    for folders in (os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH")):
        found = shutil.which(name, path=folders) if folders else None
        if found and _version(Path(found)) >= SOURCES[name].oldest:
            return Path(found)
    return None


def _version(program: Path) -> tuple[int, int]:
    """Return the version of a program that prints it, or zeros."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"(\d+)\.(\d+)\.\d+", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _place(name: str) -> Path:
    source = SOURCES[name]
    version, digest = required(source.module, source.requires), _digest(MODULES / source.module)
    return cache() / f"{source.module}-{version}-{digest}" / name


def _built(name: str) -> Path:
    program = _place(name)
    if not program.exists():
        with one_at_a_time(program.parent):
            if not program.exists():
                _build(SOURCES[name], program)
    return program


def _build(source: Source, program: Path) -> None:
    version = required(source.module, source.requires)
    major, minor, _ = version.split(".")
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {_VERSION}.{name}={value}" for name, value in stamps.items())])
    say(f"Building {program.name} {version} from source; once, it takes minutes.")
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        made = Path(scratch) / program.name
        go("build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(made), source.package,
           module=source.module)  # fmt: skip
        made.rename(program)


def go(*arguments: str, module: str) -> str:
    """Run Go in a folder of ``modules`` as that is locked and return its output.

    Raises ``MissingProgram`` without Go, and ``BuildFailed``.
    """
    command = shutil.which("go")
    if command is None:
        raise MissingProgram(
            "No control plane for tests: name the folder of kube-apiserver and etcd in KUBEBUILDER_ASSETS, "
            "or install Go, which builds them."
        )
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(
        ["nice", "-n", "19", command, *arguments],
        cwd=MODULES / module,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_DEADLINE_S,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"Go could not {arguments[0]} in tests/kube/modules/{module}: {done.stderr.strip()[-500:]}")
    return done.stdout


def required(module: str, path: str) -> str:
    """Return the version of ``path`` that a folder of ``modules`` pins, without its ``v``."""
    found = re.search(rf"^\s*(?:require )?{re.escape(path)} v(\S+)$", (MODULES / module / "go.mod").read_text(), re.M)
    assert found, f"tests/kube/modules/{module}/go.mod pins no {path}"
    return found[1]


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:12]


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Make the folder, and let one process at a time work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(sentence: str) -> None:
    """Tell the person, whatever pytest does with standard error."""
    (sys.__stderr__ or sys.stderr).write(sentence + "\n")


def report(names: Iterable[str]) -> int:
    """Find or build programs, print where they are, and return the exit status."""
    try:
        for name in names:
            sys.stdout.write(f"{name}: {find(name)}\n")
    except (MissingProgram, BuildFailed) as error:
        say(str(error))
        return 9
    return 0


def main() -> int:
    """Find or build what most tests need, the control plane; return the exit status."""
    return report(CONTROL_PLANE)


if __name__ == "__main__":
    sys.exit(main())
