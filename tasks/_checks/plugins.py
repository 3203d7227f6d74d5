"""Checks of the user's own, run against the candidate before it gets traffic.

A check is a callable that the spec names in ``checks.plugins``, by an entry point of the group ``slipway.checks`` or
as ``module:function``; it must be importable where the release runs.  It is called with one ``Asked`` and the
spec's ``parameters`` as keywords, and returns

* ``True`` or ``False``: pass or fail;
* a ``tasks.records.CheckResult``: its verdict, summary, evidence and numbers are recorded as ``own.name``;
* a tuple of those, at least one: recorded as ``own.name.its-own-name``.

    def speaks_latin(asked: Asked, *, words: int) -> bool:
        answer = httpx.post(f"{asked.candidate}/v1/chat/completions", json={"model": asked.model, ...})
        ...

Anything else is inconclusive, and so holds the release until a person decides: an exception, another value, a number
that is none, more than ``LARGEST`` bytes, no answer within the spec's ``timeout``.  Of an exception only its kind and
its place are recorded, because its text may hold a secret; what a check returns is recorded as it is.

A check runs in a thread of this process, which nothing can end from outside.  One that never returns is given up:
what it returns later is dropped, its thread goes on until the process ends, and does not keep that from ending.  A
check that runs away with the processor or the memory takes them from the release; start a process of your own for
what you do not trust.
"""

import copy
import logging
import math
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from pydantic import ValidationError

from tasks._spec_checks import Plugin
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec

GROUP = "slipway.checks"
OWN = "own."
"""What the names of results begin with, so that none takes the place of a built-in check's."""
LARGEST = 64 * 1024
"""Bytes of the results of one check as JSON: they are kept in the record, which is read at every step."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a check is told.

    ``candidate`` and ``live`` are base URLs of OpenAI servers, ``live`` none for a first release; ``model`` is the
    name that both serve.
    """

    candidate: str
    live: str | None
    release: Release
    model: str


Check = Callable[..., object]


def run_plugins(candidate: str, live: str | None, *, release: Release, spec: ServiceSpec) -> tuple[CheckResult, ...]:
    """Run every check that the spec names, one after the other; never raises for what they do."""
    asked = Asked(candidate=candidate, live=live, release=release, model=release.service)
    return tuple(result for plugin in spec.checks.plugins for result in _run(plugin, asked))


def missing_plugins(spec: ServiceSpec) -> tuple[str, ...]:
    """Return one sentence for each check of the spec that cannot be loaded here; loading runs its module."""
    found = ((plugin, _load(plugin)) for plugin in spec.checks.plugins)
    return tuple(
        f"The check {plugin.name} cannot be found: {check}." for plugin, check in found if isinstance(check, str)
    )


def _load(plugin: Plugin) -> Check | str:
    """Return the callable, or why there is none."""
    use = plugin.use
    if ":" in use:
        entry: EntryPoint | None = EntryPoint(name=use, value=use, group=GROUP)
    else:
        entry = next(iter(entry_points(group=GROUP, name=use)), None)
    if entry is None:
        return f"no installed package has an entry point {use} in {GROUP}"
    try:
        check: object = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing foreign code may raise anything
        return f"loading {use} raised {_kind(error)}"
    return check if callable(check) else f"{use} cannot be called"


def _run(plugin: Plugin, asked: Asked) -> tuple[CheckResult, ...]:
    check = _load(plugin)
    if isinstance(check, str):
        return (_unknown(plugin, f"cannot be found: {check}"),)
    returned: list[object] = []
    thread = threading.Thread(target=_call, args=(check, asked, plugin, returned), name=plugin.name, daemon=True)
    thread.start()
    thread.join(plugin.timeout)
    if not returned:
        return (_unknown(plugin, f"did not return within {plugin.timeout:g} s"),)
    return _read(plugin, returned[0])


def _call(check: Check, asked: Asked, plugin: Plugin, returned: list[object]) -> None:
    try:
        returned.append(check(asked, **copy.deepcopy(plugin.parameters)))
    except BaseException as error:  # noqa: BLE001 - whatever foreign code raises, SystemExit included
        log.warning("The check %s raised %s.", plugin.name, _kind(error))
        returned.append(_Raised(_kind(error)))


@dataclass(frozen=True)
class _Raised:
    kind: str


def _read(plugin: Plugin, value: object) -> tuple[CheckResult, ...]:
    """Return what a check gave back as results under its name in the spec."""
    if isinstance(value, _Raised):
        return (_unknown(plugin, f"raised {value.kind}"),)
    if isinstance(value, bool):
        verdict = Verdict.PASS if value else Verdict.FAIL
        return (CheckResult(name=f"{OWN}{plugin.name}", verdict=verdict, summary=f"{plugin.use} returned {value}"),)
    if isinstance(value, CheckResult):
        return tuple(_recorded(plugin, [(f"{OWN}{plugin.name}", value)]))
    if isinstance(value, tuple) and value and all(isinstance(one, CheckResult) for one in value):
        return tuple(_recorded(plugin, [(f"{OWN}{plugin.name}.{one.name}", one) for one in value]))
    what = "an empty tuple" if value == () else type(value).__name__
    return (_unknown(plugin, f"returned {what}; a bool, a CheckResult or a tuple of them is needed"),)


def _recorded(plugin: Plugin, results: list[tuple[str, CheckResult]]) -> Iterator[CheckResult]:
    """Yield the results under their names, if the record can hold them."""
    try:
        named = [
            CheckResult.model_validate(result.model_dump(warnings=False) | {"name": name}) for name, result in results
        ]
    except ValidationError:
        yield _unknown(plugin, "returned a CheckResult that is none")
        return
    if sum(len(result.to_json()) for result in named) > LARGEST:
        yield _unknown(plugin, f"returned more than {LARGEST} bytes, which is too much to record")
    elif not all(math.isfinite(number) for result in named for number in result.measured.values()):
        yield _unknown(plugin, "measured something that is no number")
    else:
        yield from named


def _kind(error: BaseException) -> str:
    """Return an exception's type and the line that raised it; its text may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _unknown(plugin: Plugin, why: str) -> CheckResult:
    return CheckResult(name=f"{OWN}{plugin.name}", verdict=Verdict.INCONCLUSIVE, summary=f"the check {why}")
