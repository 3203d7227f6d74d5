"""What a check found, and how several of them look at once without waiting for any for ever."""

import threading
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue

from tasks._clock import Clock
from tasks.errors import SlipwayError
from tasks.records import Value

Check = Callable[[], "Iterable[Finding]"]


class Finding(Value):
    """Something that is wrong: what it is about, what was seen, and how to mend it."""

    about: str
    what: str
    remedy: str


def told(about: str, error: SlipwayError) -> Finding:
    """Return an error as a finding."""
    return Finding(about=about, what=str(error.args[0]), remedy=error.remedy or "Mend that, and look again.")


def look(checks: Mapping[str, Check], deadline_s: float) -> tuple[Finding, ...]:
    """Let all checks look at once, and return what they found, in their order; what several found is told once.

    A check that has not ended after ``deadline_s`` seconds is a finding itself, and is left to its thread, which
    keeps nobody from exiting: most of what is wrong shows as silence.
    """
    clock, answers = Clock(), SimpleQueue[tuple[str, tuple[Finding, ...]]]()
    for about, check in checks.items():
        threading.Thread(target=_answer, args=(about, check, answers), name=f"doctor: {about}", daemon=True).start()
    found: dict[str, tuple[Finding, ...]] = {}
    end = clock.monotonic() + deadline_s
    while len(found) < len(checks):
        try:
            about, findings = answers.get(timeout=max(end - clock.monotonic(), 0.001))
        except Empty:
            break
        found[about] = findings
    told_once: dict[str, Finding] = {}
    for about in checks:
        for finding in found.get(about, (_silent(about, deadline_s),)):
            told_once.setdefault(finding.what, finding)
    return tuple(told_once.values())


def _answer(about: str, check: Check, answers: "SimpleQueue[tuple[str, tuple[Finding, ...]]]") -> None:
    try:
        answers.put((about, tuple(check())))
    except SlipwayError as error:
        answers.put((about, (told(about, error),)))
    except Exception as error:  # noqa: BLE001 - one check that fails must not hide what the others find
        what = f"The check of {about} failed itself: {type(error).__name__}."
        answers.put((about, (Finding(about=about, what=what, remedy="This is a fault of Slipway's; report it."),)))


def _silent(about: str, deadline_s: float) -> Finding:
    return Finding(
        about=about,
        what=f"Nothing was heard of {about} within {deadline_s:.0f} s.",
        remedy="See whether its address is right, and whether anything between here and there drops packets.",
    )
