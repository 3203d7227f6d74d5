"""Judges answers in a process of its own, so that a release does not carry Great Expectations to its end.

Imported, it takes 130 MB and three seconds, for a judgement of a tenth of a second.  What goes in and what comes out
are frozen values, as JSON; the process sees no key and no token, and it ends with its judgement.
"""

import subprocess
import sys
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from tasks._checks.prompts import Prompts
from tasks._checks.quality import quality
from tasks._clients.completions import Answer
from tasks.errors import MachineError
from tasks.records import CheckResult, Value
from tasks.settings import inherited_environment, silence_telemetry
from tasks.spec import ServiceSpec

JUDGING_S = 120.0
"""Longest judgement in seconds; on a busy machine with two cores it has been seen to take ten."""

_RESULTS: TypeAdapter[tuple[CheckResult, ...]] = TypeAdapter(tuple[CheckResult, ...])


class _Sheet(Value):
    """All that a judgement depends on."""

    answers: tuple[Answer, ...]
    prompts: Prompts
    spec: ServiceSpec


def quality_apart(answers: Sequence[Answer], prompts: Prompts, spec: ServiceSpec) -> tuple[CheckResult, ...]:
    """Return what ``quality`` returns; raises ``MachineError`` where its process fails."""
    sheet = _Sheet(answers=tuple(answers), prompts=prompts, spec=spec)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=sheet.to_json(),
            capture_output=True,
            env=inherited_environment(),
            timeout=JUDGING_S,
            check=True,
        )
        return _RESULTS.validate_json(done.stdout)
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        said = getattr(error, "stderr", None) or b""
        why = said.decode(errors="replace").strip().rpartition("\n")[2][:256] or type(error).__name__
        raise MachineError(f"The answers could not be judged: {why}.", remedy="Look for a lack of memory.") from error


def _main() -> None:
    silence_telemetry()
    sheet = _Sheet.from_json(sys.stdin.buffer.read())
    results = quality(sheet.answers, sheet.prompts, sheet.spec)
    sys.stdout.buffer.write(_RESULTS.dump_json(results))


if __name__ == "__main__":
    _main()
