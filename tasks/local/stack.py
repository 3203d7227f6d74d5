"""The embedded stack of real parts on this machine: ``up``, ``down``, and how it is.

``up`` may be called at any time: it keeps what runs as it should and answers, and starts the rest.  Where it fails
or is interrupted it ends what it started.  ``down`` ends everything that the stack's mark or records lead to, also
after a killed ``up``.  One lock keeps two of them apart.
"""

import contextlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks._clock import Clock
from tasks.errors import MachineError
from tasks.local import deployments, machine, processes
from tasks.local.components import COMPONENTS, Component, Surroundings
from tasks.local.state import (
    Keys,
    Stack,
    addresses,
    demonstration_mark,
    kept_back,
    read_state,
    remember,
    short_folder,
)
from tasks.records import Value

__all__ = ["Health", "Progress", "Stack", "down", "health", "read_stack", "up"]

_CLOCK = Clock()
_LOCK_S = 300.0  # the longest `up` that was seen took a minute
_REUSE_S = 60.0  # how long a part that runs may take to answer on a busy machine before it is started again
_POLL_S = 0.2

Progress = Callable[[str], None]


class Health(Value):
    """How one part is: its process runs, its server answers, and where to look."""

    alive: bool
    answers: bool
    pid: int | None
    endpoint: str | None
    log: Path


def up(home: Path, *, progress: Progress, ports: Mapping[str, int] | None = None) -> Stack:
    """Bring the whole stack up, or what is missing of it, and return where it answers.

    ``ports`` are demands of a person, for example ``{"prefect": 4200}``.  Raises ``MachineError`` that quotes what
    stopped it, after ending what this call started; ``KeyboardInterrupt`` on Ctrl-C or SIGTERM, the same way.
    """
    home = home.absolute()
    run = home / "run"
    started: list[str] = []
    with processes.locked(run, patience_s=_LOCK_S, waiting=_tell_waiting(progress)) as lock, _terminable():
        try:
            return _bring_up(home, lock, started, ports or {}, progress)
        except BaseException as error:
            with _uninterruptible():
                _undo(home, started, progress)
            if isinstance(error, OSError):
                raise MachineError(f"The stack cannot be started: {error}.", remedy="Mend that.") from error
            raise


def down(home: Path, *, wipe: bool = False, progress: Progress = lambda _: None) -> int:
    """End the stack and return how many processes that were; its data stays.  Ctrl-C does not cut it short.

    ``wipe`` removes the data too, all but ``models``, the converted sample model.
    """
    home = home.absolute()
    run = home / "run"
    if not run.is_dir():
        return 0
    with processes.locked(run, patience_s=_LOCK_S, waiting=_tell_waiting(progress)), _uninterruptible():
        state = read_state(home)
        ended = processes.end(run, state.mark if state else "")
        _clear_temporary(home)
        if wipe:
            # The mark goes last: a wipe that is cut short leaves a demonstration's folder known as such.
            for path in sorted(home.iterdir(), key=lambda path: path == demonstration_mark(home)):
                if path.name not in {"models", "run"}:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return ended


def read_stack(home: Path) -> Stack | None:
    """Return where the stack answers, or nothing where it was never up or is down."""
    home = home.absolute()
    state = read_state(home)
    if state is None or not processes.read_records(home / "run"):
        return None
    return addresses(home, state)


def health(stack: Stack) -> dict[str, Health]:
    """Return how each part is, by its name, in the order of starting."""
    here = _surroundings(stack.home)
    with ThreadPoolExecutor(len(COMPONENTS)) as pool:
        return dict(pool.map(lambda component: (component.name, _health(component, here)), COMPONENTS))


def _bring_up(home: Path, lock: int, started: list[str], wanted: Mapping[str, int], progress: Progress) -> Stack:
    run = home / "run"
    idle = frozenset(c.name for c in COMPONENTS if not _runs(run, c.name))
    machine.check(home, ray_starts="ray" in idle)
    state = read_state(home)
    if state:
        processes.end(run, state.mark, idle)
    remember(home, idle, wanted)
    here = _surroundings(home)
    stop = threading.Event()

    def bring(component: Component) -> None:
        _bring(component, here, lock, started, stop, progress)

    servers = [component for component in COMPONENTS if component.name != "worker"]
    with ThreadPoolExecutor(len(servers)) as pool:
        try:
            for done in [pool.submit(bring, component) for component in servers]:
                done.result()
        except BaseException:
            stop.set()
            raise
    for name in kept_back():
        progress(f"The worker is not given {name}; name its file in {name}_FILE and run `slipway up` again.")
    bring(COMPONENTS[-1])
    deployments.register(here, progress)
    return here.stack


def _bring(
    component: Component,
    here: Surroundings,
    lock: int,
    started: list[str],
    stop: threading.Event,
    progress: Progress,
) -> None:
    run, logs = here.home / "run", here.home / "logs"
    program = component.program(here)
    record = processes.read_record(run, component.name)
    if record and processes.alive(record) and record.fingerprint == program.fingerprint:
        if _await_ready(component, here, _REUSE_S, stop):
            return
        progress(f"The {component.title} runs but does not answer; starting it again.")
    processes.end(run, here.state.mark, [component.name])
    if component.name == "ray":
        shutil.rmtree(short_folder(here.home) / "ray", ignore_errors=True)
    if stop.is_set():
        return
    progress(f"Starting the {component.title}.")
    begun = _CLOCK.monotonic()
    started.append(component.name)
    processes.start(run, logs, program, here.state.mark, lock)
    if not _await_ready(component, here, component.deadline_s, stop):
        raise _died(component, here, _CLOCK.monotonic() - begun)
    progress(f"The {component.title} is ready after {_CLOCK.monotonic() - begun:.1f} s.")


def _await_ready(component: Component, here: Surroundings, deadline_s: float, stop: threading.Event) -> bool:
    for _ in _CLOCK.ticks(deadline_s, _POLL_S):
        if stop.is_set() or not _runs(here.home / "run", component.name):
            return False
        if component.ready(here):
            return True
    return False


def _died(component: Component, here: Surroundings, seconds: float) -> MachineError:
    log = here.home / "logs" / f"{component.name}.log"
    how = "does not answer" if _runs(here.home / "run", component.name) else "ended"
    said = processes.last_line(log, here.keys.texts())
    return MachineError(
        f"The {component.title} {how} after {seconds:.0f} s; the last it said is: {said}",
        remedy=f"Its whole log is {log}.",
    )


def _undo(home: Path, started: list[str], progress: Progress) -> None:
    run, state = home / "run", read_state(home)
    if started:
        progress("Ending what was started.")
        processes.end(run, state.mark if state else "", started)
    if not processes.read_records(run):
        _clear_temporary(home)


def _runs(run: Path, name: str) -> bool:
    record = processes.read_record(run, name)
    return record is not None and processes.alive(record)


def _surroundings(home: Path) -> Surroundings:
    state = read_state(home)
    if state is None:
        raise MachineError(f"{home / 'stack.json'} cannot be read.", remedy="Run `slipway up`.")
    return Surroundings(addresses(home, state), state, Keys.load(home))


def _health(component: Component, here: Surroundings) -> Health:
    record = processes.read_record(here.home / "run", component.name)
    alive = record is not None and processes.alive(record)
    return Health(
        alive=alive,
        answers=alive and component.ready(here),
        pid=record.pid if record else None,
        endpoint=getattr(here.stack, component.name, None),
        log=here.home / "logs" / f"{component.name}.log",
    )


def _clear_temporary(home: Path) -> None:
    shutil.rmtree(short_folder(home), ignore_errors=True)
    state = read_state(home)
    for port in state.ports.values() if state else ():
        for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108 - SeaweedFS's own choice
            socket.unlink(missing_ok=True)


def _tell_waiting(progress: Progress) -> Callable[[], None]:
    return lambda: progress("Another `slipway up` or `slipway down` is at work on this stack; waiting for it.")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM an interrupt, so that it unwinds as Ctrl-C does; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _uninterruptible() -> Iterator[None]:
    """Keep a second Ctrl-C from cutting the clean-up short; it takes seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
