"""Checks of the user's own are found, told what they need, and believed only when they give a verdict."""

import importlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks._checks.plugins import missing_plugins, run_plugins
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec

RELEASE = Release(service="chat", number=2, model="org/model", commit="2" * 40, hub="http://hub", spec={})
SECRET = "hf_in-the-text"
MODULE = f'''
import sys, threading, time
from tasks.records import CheckResult, Verdict

woken = threading.Event()
told = []

def tells(asked, **parameters):
    told.append((asked, parameters))
    parameters.get("words", []).append("changed")
    return True

def refuses(asked):
    return False

def details(asked):
    return CheckResult(name="mine", verdict=Verdict.FAIL, summary="too slow", evidence=("x",), measured={{"s": 1.5}})

def several(asked):
    return tuple(CheckResult(name=name, verdict=Verdict.PASS, summary="ok") for name in ("one", "two"))

def raises(asked):
    raise KeyError("{SECRET}")

def leaves(asked):
    sys.exit(0)

def hangs(asked):
    woken.wait(10)
    return True

def nothing(asked):
    pass

def yes(asked):
    return "pass"

def empty(asked):
    return ()

def not_a_number(asked):
    return CheckResult(name="x", verdict=Verdict.PASS, summary="ok", measured={{"share": float("nan")}})

def endless(asked):
    return CheckResult(name="x", verdict=Verdict.PASS, summary="ok", evidence=("x" * 70_000,))

def not_valid(asked):
    return CheckResult.model_construct(name="x", verdict="fine", summary="ok")

constant = 3
'''
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: their-checks\nVersion: 1.0\n",
    "entry_points.txt": "[slipway.checks]\nby_entry_point = their_checks:details\n",
}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed package with checks, as its module."""
    (tmp_path / "their_checks.py").write_text(MODULE)
    (tmp_path / "broken_checks.py").write_text(f"raise ValueError('{SECRET}')\n")
    (tmp_path / "leaving_checks.py").write_text("raise SystemExit(0)\n")
    info = tmp_path / "their_checks-1.0.dist-info"
    info.mkdir()
    for name, text in METADATA.items():
        (info / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        module = importlib.import_module("their_checks")
        yield module
        module.woken.set()
        _until_ended("own")
    finally:
        sys.modules.pop("their_checks", None)


def _until_ended(name: str) -> None:
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread of a check goes on"
        time.sleep(0.01)


def spec(*uses: str, **more: Any) -> ServiceSpec:
    """Return a spec with these checks; the first is called ``own``."""
    names = ("own", "other")
    plugins = [{"name": name, "use": use, **more} for name, use in zip(names, uses, strict=False)]
    return ServiceSpec.model_validate({"service": "chat", "model": "org/model", "checks": {"plugins": plugins}})


def ran(*uses: str, **more: Any) -> tuple[CheckResult, ...]:
    """Run these checks of a candidate."""
    return run_plugins("http://candidate", "http://live", release=RELEASE, spec=spec(*uses, **more))


def test_a_check_is_told_what_it_needs(theirs: Any) -> None:
    """It gets both addresses, the release, the model's name, and parameters that are its own copy."""
    asked_for = {"words": ["a"], "limit": 3}
    (result,) = ran("their_checks:tells", parameters=asked_for)
    ((asked, parameters),) = theirs.told

    assert (asked.candidate, asked.live) == ("http://candidate", "http://live")
    assert (asked.release, asked.model) == (RELEASE, "chat")
    assert {"words": ["a", "changed"], "limit": 3} == parameters
    assert {"words": ["a"], "limit": 3} == asked_for
    assert (result.name, result.verdict) == ("own.own", Verdict.PASS)


@pytest.mark.usefixtures("theirs")
def test_verdicts_are_recorded_under_the_name_in_the_spec() -> None:
    """A false, a result, and several results each keep what they say and lose what they are called."""
    refused, detailed = ran("their_checks:refuses", "by_entry_point")

    assert (refused.name, refused.verdict) == ("own.own", Verdict.FAIL)
    expected = CheckResult(
        name="own.other", verdict=Verdict.FAIL, summary="too slow", evidence=("x",), measured={"s": 1.5}
    )
    assert expected == detailed
    assert ["own.own.one", "own.own.two"] == [result.name for result in ran("their_checks:several")]


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("use", "why"),
    [
        ("raises", "raised KeyError at their_checks.py:"),
        ("leaves", "raised SystemExit at their_checks.py:"),
        ("nothing", "returned NoneType"),
        ("yes", "returned str"),
        ("empty", "returned an empty tuple"),
        ("not_a_number", "measured something that is no number"),
        ("endless", "returned more than 65536 bytes"),
        ("not_valid", "returned a CheckResult that is none"),
        ("absent", "cannot be found: loading their_checks:absent raised AttributeError"),
        ("constant", "cannot be found: their_checks:constant cannot be called"),
    ],
)
def test_what_is_no_verdict_is_inconclusive(use: str, why: str) -> None:
    """Whatever a check does instead of giving a verdict is told in one sentence, and the next one still runs."""
    result, after = ran(f"their_checks:{use}", "their_checks:tells")

    assert (result.name, result.verdict) == ("own.own", Verdict.INCONCLUSIVE)
    assert result.summary.startswith(f"the check {why}")
    assert SECRET not in result.model_dump_json()
    assert after.verdict is Verdict.PASS


@pytest.mark.usefixtures("theirs")
def test_a_check_that_does_not_return_is_given_up() -> None:
    """After its time the release goes on, and what the check says later is dropped."""
    began = time.monotonic()
    result, after = ran("their_checks:hangs", "their_checks:tells", timeout=0.05)

    assert time.monotonic() - began < 5
    assert (result.verdict, after.verdict) == (Verdict.INCONCLUSIVE, Verdict.PASS)
    assert result.summary == "the check did not return within 0.05 s"


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("use", "why"),
    [
        ("nobody_has_this", "no installed package has an entry point nobody_has_this in slipway.checks."),
        ("no_such_module:check", "loading no_such_module:check raised ModuleNotFoundError"),
        ("broken_checks:check", "loading broken_checks:check raised ValueError at broken_checks.py:1."),
        ("leaving_checks:check", "loading leaving_checks:check raised SystemExit"),
        ("not a module:check", "loading not a module:check raised"),
    ],
)
def test_a_missing_check_is_found_before_anything_moves(use: str, why: str) -> None:
    """A check that cannot be loaded is named with the reason; run all the same, it is inconclusive."""
    (missing,) = missing_plugins(spec(use, "by_entry_point"))

    assert missing.startswith(f"The check own cannot be found: {why}")
    assert SECRET not in missing
    assert ran(use)[0].verdict is Verdict.INCONCLUSIVE


def test_two_checks_of_one_name_are_refused() -> None:
    """The second would take the place of the first in the record."""
    twice = [{"name": "own", "use": "a:b"}, {"name": "own", "use": "a:c"}]

    with pytest.raises(ValueError, match="own is there twice"):
        ServiceSpec.model_validate({"service": "chat", "model": "org/model", "checks": {"plugins": twice}})


def test_parameters_are_what_the_record_can_hold() -> None:
    """A number that JSON lacks would come back as another one."""
    with pytest.raises(ValueError, match="only what JSON can hold"):
        spec("a:b", parameters={"limit": float("nan")})
