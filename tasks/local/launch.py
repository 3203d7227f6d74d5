"""Becomes a program of the embedded stack, after writing down who it is.

Run as ``python -I -S launch.py <record> <lock descriptor> <fields as JSON> <program> <arguments...>``;
standard library only, because it runs for milliseconds at every start.  The process that will be the program
writes its own record and only then becomes it, and until then it holds the stack's lock, which it inherited:
whoever kills the starter, at whatever moment, and then takes the lock, finds a record of everything that runs.
"""

import json
import os
import sys
from pathlib import Path


def main() -> int:
    """Fork the program into a session of its own; return 0 once it runs, else 127, the reason on stderr."""
    record, lock, fields, *command = sys.argv[1:]
    os.set_inheritable(int(lock), False)
    started, failed = os.pipe()
    if os.fork():
        os.close(failed)
        reason = os.read(started, 4096)
        sys.stderr.write(reason.decode())
        return 127 if reason else 0
    try:
        os.setsid()
        _write(Path(record), {**json.loads(fields), **_identity()})
        os.execvp(command[0], command)  # noqa: S606 - the program of a component, never input
    except OSError as error:
        Path(record).unlink(missing_ok=True)
        os.write(failed, f"{command[0]} cannot be started: {error.strerror}.\n".encode())
        os._exit(127)


def _identity() -> dict[str, object]:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": os.getpid(), "start_ticks": int(stat[19]), "boot": boot}


def _write(record: Path, fields: dict[str, object]) -> None:
    draft = record.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(fields, indent=1) + "\n")
    draft.replace(record)


if __name__ == "__main__":
    sys.exit(main())
